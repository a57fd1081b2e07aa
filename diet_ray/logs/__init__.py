"""Raw behaviour logs become encoded time blocks.

Protocol: a *source* (`sources/`) names its parts and reads each as a stream of raw batches.
Preparing (`prepare.py`) passes over the parts twice with Ray Data. The first pass checks every
row, quarantines what cannot be used, and stages the rest by block, with the values that each field
takes; what all parts hold is added up (`staged_log.py`). Between the passes the vocabularies are
extended block by block, up to the subsequent block (`extending.py`), and indexed (`encoder.py`).
The second pass writes one Parquet fragment per task, encoded and in time order. The manifest is
published last (`blocks.py`), and readers start there; `doubts.py` tells from it which fields and
tasks cannot help.

For a table without a configuration `suggest.py` writes a first one, from a sample (`sample.py`)
and what its columns look like (`roles.py`).
"""
