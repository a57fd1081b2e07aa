"""A number for every real row of a block, and the rows that such numbers select.

Protocol: a *scoring* (`el2n.py`, `alignment.py`) turns rows into scores, in float32, as a function
of a row, a checkpoint and, for alignment, one direction. A *scan* (`scan.py`) applies it to a
whole block: Ray Data hands fragment descriptors to workers, each reads its own Parquet,
writes the scores as a side-car in row order, and enters the fragment with a quantile sketch per
label group into the *ledger* (`ledger.py`). An interrupted scan goes on with the fragments that
the ledger lacks. *Selection* (`selection.py`) brackets the wanted ranks with the merged sketches,
reads only scores, and cuts exactly.
"""
