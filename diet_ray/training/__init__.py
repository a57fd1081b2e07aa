"""The reference model over the stream, and a candidate's training.

Protocol: `stream.py` trains phi_t block by block on Ray Train, `reference.py` publishes and reads
each. A candidate (`candidate.py`) inherits phi_T's embedding tables, warms its dense network up on
a reduced set (embeddings in, soft labels out), is then trained as a whole for one epoch on the
subsequent block and judged on test. `model.py` joins table and network and holds the one training
epoch that all of them share; `metrics.py` says what "judged" means.
"""
