"""A log with planted structure, in which row i is a pure function of (seed, i).

What is planted, with s in [0, 1) the place of a row in the log's time:

 - users belong to groups, items to categories and authors; a vector is mostly its group's and
   partly its own, so both crosses of features and ids carry signal
 - a user's vector turns by `drift` radians from s = 0 to s = 1
 - 60% of the items exist at s = 0, the others appear one after the other until s = 0.95
 - which item is shown follows a power law around a centre of fashion that moves with s
 - label k is Bernoulli of sigmoid(affinity_k + popularity + user + author + hour + tab + bias_k)

Every latent quantity is drawn by counter (`seeds.uniform`), indexed by user, item or row. So no
table of users or items exists anywhere, and any shard can be made anywhere, at any size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, time

import numpy as np
import pyarrow as pa

from diet_ray import seeds
from diet_ray.config import LogsConfig
from diet_ray.logs.blocks import TIME_MS
from diet_ray.logs.sources.source import ROW, Part, RawBatch, choose

FIELDS = ("user_id", "item_id", "category", "author_id", "user_group", "hour", "tab")
TASKS = ("click", "long_view", "like")
USER_GROUPS, TABS = 8, 5
TAB_ENDS = (0.5, 0.75, 0.9, 0.97, 1.0)  # cumulative shares of the tabs
ITEMS_PER_AUTHOR = 4
USER_POWER, ITEM_POWER = 2.0, 3.0  # density of rank r is proportional to r ** (1 / power - 1)
OLD_STOCK, LAST_BIRTH = 0.6, 0.95
FASHION_WALK = 0.15  # share of all items that the centre of fashion passes over the log
TRIES = 16  # unborn items are redrawn; the chance to need more is 0.4 ** 16
BIASES = (-0.65, -2.1, -4.9)
STRENGTH = 1.7
GROUP_SHARE = 0.7  # of a vector's variance
MILLISECONDS_PER_DAY = 86_400_000


class Synthetic:
    """The source `synthetic`."""

    def __init__(self, logs: LogsConfig, seed: int) -> None:
        """Raises LogsError for an unknown field or task."""
        self.shape, self.seed = logs.synthetic, seed
        self.fields = choose("logs.fields", logs.fields, FIELDS)
        self.tasks = choose("logs.tasks", logs.tasks, TASKS)

    def parts(self) -> list[Part]:
        rows, step = self.shape.rows, self.shape.rows_per_part
        firsts = range(0, rows, step)
        return [Part("synthetic", first, min(step, rows - first)) for first in firsts]

    def load_shared(self) -> None:
        """Nothing: every row is made from its number."""

    def read(self, part: Part, shared: None) -> Iterator[RawBatch]:
        del shared
        assert part.rows is not None
        rows = self.rows(np.arange(part.first, part.first + part.rows))
        yield RawBatch(rows, rows.drop_columns([ROW]))

    def fingerprint(self) -> str:
        return json.dumps({"seed": self.seed, **self.shape.model_dump(mode="json")})

    def source_bytes(self) -> int:
        return 0

    def rows(self, numbers: np.ndarray) -> pa.Table:
        """The rows with these numbers, (n,) int64, as a RawBatch's rows."""
        times = self._times(numbers)
        age = numbers / self.shape.rows
        users = self._users(numbers)
        items, rarity = self._items(numbers, age)
        hours = times // 3_600_000 % 24
        tabs = np.searchsorted(TAB_ENDS, self._uniform("tab", numbers), side="right")
        authors = self._authors(items)
        common = (
            0.5 * (1 - 2 * rarity)
            + 0.5 * self._normal("user bias", users)
            + 0.3 * self._normal("author bias", authors)
            + 0.3 * self._normal("tab bias", tabs)
            + 0.3 * np.cos(2 * np.pi * (hours - 20) / 24)
        )
        features = {
            "user_id": users,
            "item_id": items,
            "category": self._categories(items),
            "author_id": authors,
            "user_group": self._groups(users),
            "hour": hours,
            "tab": tabs,
        }
        columns = {ROW: pa.array(numbers), TIME_MS: pa.array(times)}
        columns |= {f: pa.array(features[f]).cast(pa.string()) for f in self.fields}
        affinities = self._affinities(users, items, age)
        for task in self.tasks:
            k = TASKS.index(task)
            chance = 1 / (1 + np.exp(-(STRENGTH * affinities[:, k] + common + BIASES[k])))
            label = self._uniform(f"label {task}", numbers) < chance
            columns[task] = pa.array(label.astype(np.float64))
        return pa.table(columns)

    def _uniform(self, what: str, indices: np.ndarray) -> np.ndarray:
        return seeds.uniform(self.seed, "synthetic", what, indices=indices)

    def _normal(self, what: str, indices: np.ndarray) -> np.ndarray:
        """Standard normal numbers by Box and Muller's method, one per index."""
        radius = np.sqrt(-2 * np.log1p(-self._uniform(f"{what} radius", indices)))
        return radius * np.cos(2 * np.pi * self._uniform(f"{what} angle", indices))

    def _vectors(self, what: str, indices: np.ndarray) -> np.ndarray:
        """Standard normal vectors, (n, latent_dim), one per index."""
        width = self.shape.latent_dim
        flat = (indices[:, None] * width + np.arange(width)).ravel()
        return self._normal(what, flat).reshape(len(indices), width)

    def _mixed(
        self, group: str, groups: np.ndarray, member: str, members: np.ndarray
    ) -> np.ndarray:
        """Standard normal vectors, (n, latent_dim), that members of a group share in part."""
        common, own = self._vectors(group, groups), self._vectors(member, members)
        return math.sqrt(GROUP_SHARE) * common + math.sqrt(1 - GROUP_SHARE) * own

    def _times(self, numbers: np.ndarray) -> np.ndarray:
        start = datetime.combine(self.shape.start, time(0), UTC)
        span = self.shape.days * MILLISECONDS_PER_DAY
        return round(start.timestamp() * 1000) + numbers * span // self.shape.rows

    def _users(self, numbers: np.ndarray) -> np.ndarray:
        count = self.shape.users
        rank = self._uniform("user", numbers) ** USER_POWER * count
        return self._shuffled("users", rank.astype(np.int64), count)

    def _items(self, numbers: np.ndarray, age: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items shown, (n,) int64, and how far from the centre of fashion each is, in [0, 1)."""
        count = self.shape.items
        born = OLD_STOCK + (1 - OLD_STOCK) * np.minimum(age / LAST_BIRTH, 1)
        available = np.maximum((born * count).astype(np.int64), 1)
        centre = (FASHION_WALK * age * count).astype(np.int64)
        items = np.zeros(len(numbers), np.int64)
        rarity = np.zeros(len(numbers))
        waiting = np.arange(len(numbers))
        for attempt in range(TRIES):
            draw = 2 * self._uniform(f"item {attempt}", numbers[waiting]) - 1
            distance = np.trunc(np.sign(draw) * np.abs(draw) ** ITEM_POWER * count / 2)
            place = (centre[waiting] + distance.astype(np.int64)) % count
            items[waiting] = self._shuffled("items", place, count)
            rarity[waiting] = np.abs(draw)
            waiting = waiting[items[waiting] >= available[waiting]]
        items[waiting] %= available[waiting]
        return items, rarity

    def _shuffled(self, what: str, places: np.ndarray, count: int) -> np.ndarray:
        """A fixed permutation of range(count), applied to `places` without a table."""
        factor = seeds.derive(self.seed, "synthetic", what, "factor") % count or 1
        while math.gcd(factor, count) > 1:
            factor += 1
        offset = seeds.derive(self.seed, "synthetic", what, "offset") % count
        return (places * factor + offset) % count

    def _groups(self, users: np.ndarray) -> np.ndarray:
        return (self._uniform("group", users) * USER_GROUPS).astype(np.int64)

    def _categories(self, items: np.ndarray) -> np.ndarray:
        return (self._uniform("category", items) * self.shape.categories).astype(np.int64)

    def _authors(self, items: np.ndarray) -> np.ndarray:
        count = max(self.shape.items // ITEMS_PER_AUTHOR, 1)
        return (self._uniform("author", items) * count).astype(np.int64)

    def _affinities(self, users: np.ndarray, items: np.ndarray, age: np.ndarray) -> np.ndarray:
        """How well item and user fit for each task at that time, (n, 3), about standard normal."""
        groups, categories = self._groups(users), self._categories(items)
        taste = self._mixed("group", groups, "user", users)
        turned = self._mixed("group later", groups, "user later", users)
        angle = (self.shape.drift * age)[:, None]
        taste = np.cos(angle) * taste + np.sin(angle) * turned
        item = self._mixed("category", categories, "item", items)
        weights = 0.6 + 0.8 * self._uniform("emphasis", np.arange(3 * self.shape.latent_dim))
        weights = weights.reshape(self.shape.latent_dim, 3) / math.sqrt(self.shape.latent_dim)
        return (taste * item) @ weights
