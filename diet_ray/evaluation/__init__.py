"""Does a distilled set tell the truth about architectures?

Protocol: a *method* (`methods.py`) says on what a candidate is trained before and on the
subsequent block; a *cell* (`cells.py`) is one training of one candidate under one method with one
seed, judged on test and kept as a JSON file, so that a grid of cells (`grid.py`) resumes. The
*check* (`check.py`) puts a grid into the table with which the main job ends.
"""
