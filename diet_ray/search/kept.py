"""The outcomes of trials, each kept as soon as it is known, so that a killed sweep goes on.

Layout: ``search/trials/<key>.json`` for every trial that ended well or was stopped as one of the
worse, where the key is a hash of all that its outcome depends on. A failed trial leaves no file: a
repeated sweep tries it again. Trials touch no storage; the driver keeps what they report.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from diet_ray import devices, documents, progress, storage
from diet_ray.config import RunConfig
from diet_ray.logs.blocks import Blocks
from diet_ray.memory import artifact
from diet_ray.models.candidate import Candidate
from diet_ray.models.registry import source_digest
from diet_ray.search.trial import Outcome

FORMAT = 2


@dataclass(frozen=True)
class _Kept:
    """What a trial's file holds."""

    format: int
    key: str
    candidate: Candidate
    outcome: Outcome


Found = dict[str, tuple[Candidate, Outcome]]
"""By key, what is known."""


class Trials:
    """Keys of candidates, and what is kept under them."""

    def __init__(self, config: RunConfig, blocks: Blocks | None, distilled: str) -> None:
        """blocks: of the run, for `search.use: inherit`; distilled: URI of the set."""
        self.config = config
        self.made_from = _made_from(config, blocks, distilled)

    def key(self, candidate: Candidate) -> str:
        """Equal keys mean equal outcomes. Raises ConfigError."""
        name = candidate.network.name
        own = {"candidate": candidate.identity(), "code": source_digest(name)}
        text = json.dumps({**self.made_from, **own}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def uri(self, key: str) -> str:
        """Where an outcome lies."""
        return self.config.place("search", "trials", f"{key[:32]}.json")

    def keep(self, key: str, candidate: Candidate, outcome: Outcome) -> None:
        """Write what a trial found out."""
        content = {
            "format": FORMAT,
            "key": key,
            "candidate": candidate.as_json(),
            "outcome": asdict(outcome),
        }
        documents.write_sealed(self.uri(key), content)

    def read(self) -> Found:
        """All outcomes of trials that this sweep could have run, in the order of their keys.

        A damaged one is none, so that its trial is run again.
        """
        found: Found = {}
        for uri in storage.list_files(self.config.place("search", "trials"), ".json"):
            try:
                kept = _read(uri)
            except storage.StorageError as error:
                progress.logger.warning("%s; until then its trial is run again", error)
                continue
            if kept is not None and kept.key == self.key(kept.candidate):
                found[kept.key] = kept.candidate, kept.outcome
        return found


def _read(uri: str) -> _Kept | None:
    """None for one of an earlier version, whose keys are others. Raises StorageError."""
    content = documents.read_sealed(uri)
    return documents.parsed(content, _Kept, uri) if content.get("format") == FORMAT else None


def _made_from(config: RunConfig, blocks: Blocks | None, distilled: str) -> dict[str, Any]:
    """What determines an outcome beside the candidate."""
    described, evaluation = artifact.describe(distilled), config.evaluation
    made_from = {
        "models": config.models.model_dump(),
        "use": config.search.use,
        "protocol": protocol_of(config),
        "blocks": None if blocks is None else blocks.fingerprint,
        "seed": config.seed,
        "threads": config.threads,
        "fields": described.fields,  # a fresh vector depends on its field's name
        "tasks": described.tasks,
        "distilled": artifact.checksums(distilled),
        "ranking": artifact.ranking_checksum(distilled),
        **devices.numerics(config.resources.trial_gpus),
    }
    if config.search.stop != "none":
        # who is stopped depends on the score; and seeds that train in other groups round otherwise
        made_from |= {"stop": config.search.stop, "score": config.search.ranked_by}
    if blocks is not None:
        # a co-training's seeds stand in its protocol
        made_from |= {"reference": described.reference, "seeds": evaluation.seeds}
    return made_from


def protocol_of(config: RunConfig) -> dict[str, Any]:
    """How a trial trains."""
    if config.search.use == "cotrain":
        return config.evaluation.cotrain.model_dump()
    return config.evaluation.protocol.model_dump(exclude={"batch_size", "learning_rate"})
