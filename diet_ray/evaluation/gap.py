"""The recovered gap: how far a method comes on the way from the warm start to full data.

It is a share of full data's lead over the warm start. Where that lead is not clear of zero there
is nothing to take a share of: then there is no gap, and a sentence with the numbers says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from diet_ray.evaluation.statistics import Estimate, paired_difference


def lead(full: Mapping[int, float], warm: Mapping[int, float]) -> Estimate | None:
    """Full data's AUC minus the warm start's, paired by seed; None if they share no seed."""
    return paired_difference(full, warm) if full.keys() & warm.keys() else None


def is_clear(estimate: Estimate | None) -> bool:
    """Whether the interval over seeds lies above zero; that of one seed never does."""
    if estimate is None or estimate.half_width is None:
        return False
    return estimate.mean > estimate.half_width


def recovered_gap(auc: float, warm: float, full: float) -> float:
    """(auc - warm) / (full - warm)."""
    return (auc - warm) / (full - warm)


def why_none(table: pd.DataFrame, where: str = "") -> str:
    """A sentence on the candidates whose lead is not clear; empty if there are none.

    table: columns candidate, lead, lead_half_width (AUC), recovered_gap. `where` follows the names
    of the candidates, such as " (reference dcn)".
    """
    unclear = table[table["recovered_gap"].isna() & table["lead"].notna()]
    unclear = unclear.drop_duplicates("candidate")
    if unclear.empty:
        return ""
    columns = unclear["candidate"], unclear["lead"], unclear["lead_half_width"]
    told = [
        f"{name} {value:+.4f} " + ("(one seed)" if math.isnan(width) else f"± {width:.4f}")
        for name, value, width in zip(*columns, strict=True)
    ]
    return (
        f"No recovered gap for {', '.join(unclear['candidate'])}{where}: full data is not clearly "
        f"above the warm start, or one seed cannot tell (AUC of full data minus warm start, paired "
        f"over seeds, 95% interval: {', '.join(told)})."
    )
