"""Measure what the package costs, each time beside something else that does the same work.

    python jobs/bench.py scan                 # one measure, at its default size
    python jobs/bench.py scan --rows 1000000  # a smaller one
    python jobs/bench.py scan --help          # its sizes
    python jobs/bench.py all
    python jobs/bench.py page                 # BENCH.md again, from the records that are there

Every measure leaves a JSON file below --output, and writes the page of all that are there. One
that needs more memory or disk than there is is refused before it starts, with the amount.
"""

from diet_ray.bench.command_line import run

if __name__ == "__main__":
    run(__doc__)
