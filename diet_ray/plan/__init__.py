"""What a job will do, and about how long it will take here, before it does it.

Protocol: `expected.py` says how many rows there are, prepared or not. `pace.py` measures how fast
this machine trains, by some steps on made rows of the configured shape. `estimates.py` turns both
into the seconds of a stage or a training. `distill.py`, `benchmark.py` and `sweep.py` list a job's
steps, with what is published already left out; `steps.py` says them. `quick.py` makes a job small.

This room looks at all others, and nothing but the jobs looks at it. An estimate is meant to be
right within a factor of two; it knows nothing of machines other than the one that plans.
"""
