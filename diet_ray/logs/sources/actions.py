"""The tasks of a log whose rows are single actions, such as Tmall's and Taobao's.

A row is one logged action, and its labels say which: click 1 for a click, favourite 1 for a
favourite, buy 1 for a purchase; an addition to the cart has none of the three. The paper does not
define its three tasks, but its Table 2 and its LogLoss do:

 - Its 100,095,231 interactions of Taobao are exactly the file's rows within the nine days, so
   additions to the cart are rows too.
 - Taobao has 89.6% clicks, 5.5% additions to the cart, 2.9% favourites and 2.0% purchases. A
   constant guess of the rates has the LogLoss 0.188 for click, favourite, buy; 0.215 for click,
   cart, buy; 0.226 for click, cart, favourite; 0.148 for cart, favourite, buy. The paper reports
   0.175 at AUC 0.715: worse than guessing for the last, far too good for the second and third.
   Without the rows of the cart a guess would have 0.148: those rows must be there.
 - Tmall's guesses are 0.266, 0.199, 0.194 and 0.150; the paper reports 0.241.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

TASKS = ("click", "favourite", "buy")
ACTIONS = (*TASKS, "cart")


def action_labels(
    column: pa.ChunkedArray, codes: Mapping[str, str], tasks: Sequence[str]
) -> dict[str, pa.ChunkedArray]:
    """The tasks' labels (float64) of rows with these actions (text).

    `codes` holds how the log writes each of `ACTIONS`; what it does not hold gives null.
    """
    known = pc.is_in(column, value_set=pa.array(codes.values()))
    return {
        task: pc.if_else(known, pc.equal(column, codes[task]).cast(pa.float64()), None)
        for task in tasks
    }
