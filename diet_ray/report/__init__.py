"""What a benchmark found, for readers: one page of tables, and pictures.

Protocol: tables come from `evaluation.tables` as tidy frames, the protocols that were tried from
`evaluation.tuning`. `figures.py` draws some of them, `markdown.py` (and `agreement.py`, those of
the fidelity study) lays each out under a heading with a sentence on how to read it, `benchmark.py`
puts all of it into one folder. Equal results give equal bytes.
"""
