"""What the package costs, measured beside what else could do the same work.

Protocol: a *measure* (`measure.py`) is a frozen dataclass whose fields are its sizes; `needs` says
what memory and disk they take, `run` returns *figures*, each with what was compared and the goal
that it is held against. `timing.py` times things by turns, `peaks.py` reads peaks of processes.
Rivals run side by side in one process, or in children of their own where memory is the question;
what is paid once (start-up) is told apart. `record.py` keeps a JSON file per measure and writes
the page, a Markdown table of whatever such files are there. `catalogue.py` lists the measures;
`command_line.py` makes each a subcommand of ``jobs/bench.py``. The other files hold measures, by
subject, on blocks and configurations of `made.py`.
"""
