"""Which architecture is best? Many candidates, each trained on the distilled set only.

Protocol: a *space* (`models/space.py`) names networks and the values of their hyper-parameters; the
candidates drawn from it are a pure function of the seed. A *trial* (`trial.py`) is one candidate's
warm-up on S_T, a pure function of the candidate and of the data that all trials share without a
copy (`shared.py`). The *sweep* (`sweep.py`) runs the trials with Ray Tune, keeps each result as
soon as it is there, so that a killed sweep resumes, and ends with a *leaderboard*
(`leaderboard.py`).

Candidates are judged on the validation block. No test row is read here: a test block that has
chosen an architecture can no longer judge it. Check the winner with `evaluation`.
"""
