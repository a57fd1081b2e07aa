"""Does a distilled set tell the truth about architectures?

Protocol: a *method* (`methods.py`) says on what a candidate is trained before and on the
subsequent block; three of them select real rows (`selection.py`). A *run* (`run.py`) is a
configuration with its blocks, phi_T and S_T. A *cell* (`cells.py`) is one training of one candidate
under one method with one seed, judged on validation and test and kept under a hash of all that it
depends on, so that a grid of cells (`grid.py`), whose trainings share their data (`shared.py`),
resumes.

The *check* (`check.py`) puts one small grid into the table with which the main job ends. The
*benchmark* (`benchmark.py`) chooses every method's protocol (`tuning.py`), trains the cells of the
paper's tables and figures (`studies.py`), measures what an epoch costs (`costs.py`), and publishes
tidy tables of it (`results.py`). `tables.py` makes the paper's tables of those, with the intervals
of `statistics.py` and the recovered gap (`gap.py`); the room `report` lays them out.

Whether a cheap score orders settings as full training does is the fidelity study's question
(`fidelity.py`); it is measured by `agreement.py`, with the rank measures of `ranking.py`, and pair
by pair by `pairs.py`.
"""
