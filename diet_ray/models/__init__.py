"""Recommender networks as pure functions of embeddings.

Protocol: an embedding table turns ids (B, F) into embeddings (B, F, d). A *dense network* turns
embeddings into logits (B, K): an interaction network (its last representation, not its logit), then
MMoE with one tower per task. Dense networks never see ids, so a synthetic row, whose embedding has
moved away from that of its ids, trains them just like a real one. A network is judged on its
logits, and trained on what it returns when it is given labels as well. Interaction networks are
looked up by name (`registry.py`); each lives in a file of its own beside its typed
hyper-parameters. None of ours has BatchNorm: its in-place update breaks forward-mode
differentiation and its statistics would tie the rows of a batch together. A network of one's own
may have it, as a candidate; it puts out the logits itself (`own.py`), and so does a class of
FuxiCTR's (`fuxictr.py`).
"""

from diet_ray.models.registry import register

__all__ = ["register"]
