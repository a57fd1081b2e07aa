"""Algorithms 1 and 2 of the paper, stage by stage, on Ray actors.

Protocol of a stage (`stage.py`): `boundary.py` chooses and embeds the new rows (Algorithm 1) and
fuses them with the previous memory. Then, in rounds: `addressing.py` finds hard targets and
active memory, and meta-workers (`worker.py`) compute meta-gradients (`meta_gradient.py`) of the
proxies' inner loops (`proxy.py`, `inner_loop.py`), which the memory's servers apply (Algorithm 2).

The work of an outer step is cut into G logical shards, each a pure function of (seed, stage,
round, step, shard) and the memory at that step. Any worker computes any shard (`workers.py`), so
the number of workers, and which of them died, leaves no trace in the result. `stream.py` runs the
stages in order and skips what is published. `parts.py` says which parts of the paper's method a
configuration switches on, and what to call it.
"""
