"""The measures there are, in the order in which the page lists them."""

from __future__ import annotations

from diet_ray.bench.agreement import Agreement
from diet_ray.bench.measure import Measure
from diet_ray.bench.memory import Driver, OuterStep
from diet_ray.bench.meta import Meta
from diet_ray.bench.preparing import Vocabulary
from diet_ray.bench.projection import Projection
from diet_ray.bench.roofline import Roofline
from diet_ray.bench.scoring import Alignment, LongScan, PerSample, Scan
from diet_ray.bench.training import Candidate, ReferenceIds, ReferenceTrainer
from diet_ray.bench.whole import Job, Scale

KINDS: tuple[type[Measure], ...] = (
    Scan,
    LongScan,
    Alignment,
    PerSample,
    Meta,
    Agreement,
    ReferenceTrainer,
    ReferenceIds,
    Candidate,
    Driver,
    OuterStep,
    Vocabulary,
    Scale,
    Job,
    Roofline,
    Projection,
)
MEASURES: dict[str, type[Measure]] = {kind.name: kind for kind in KINDS}
