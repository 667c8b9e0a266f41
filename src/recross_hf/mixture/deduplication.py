"""Examples that are new and share nothing with target tasks are kept; the others are counted."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pyarrow as pa

from ..core.hashing import digest_of
from .arguments import MixtureArguments
from .decontamination import ContaminationError, Overlap
from .rendering import SCHEMA, Rendered
from .sandbox_budget import PromptError
from .sources import SourceError

logger = logging.getLogger(__name__)

_MAX_SHOWN = 5


class DigestSet:
    """A set of 64-bit digests that grows by batches.

    It is kept as sorted arrays of falling size, of which two of like size are merged: adding `n` digests takes time in proportion to
    `n log n`, whatever the size of the batches.
    """

    def __init__(self) -> None:
        self._levels: list[np.ndarray] = []

    def __len__(self) -> int:
        return sum(map(len, self._levels))

    def add(self, digests: np.ndarray) -> np.ndarray:
        """Adds digests `[n]` (uint64), and says of each whether it is new; of equal ones in a batch the first is."""
        distinct, first = np.unique(digests, return_index=True)
        is_new = np.zeros(len(digests), dtype=bool)
        for level in self._levels:
            position = np.minimum(np.searchsorted(level, distinct), len(level) - 1)
            keep = level[position] != distinct
            distinct, first = distinct[keep], first[keep]
        is_new[first] = True
        if len(distinct):
            self._levels.append(distinct)
        while len(self._levels) > 1 and len(self._levels[-2]) <= 2 * len(self._levels[-1]):
            smaller, larger = self._levels.pop(), self._levels.pop()
            self._levels.append(np.sort(np.concatenate([larger, smaller]), kind="stable"))
        return is_new


class ExampleFilter:
    """Keeps the examples of one task that are new and share nothing with target tasks, and counts the others.

    Args:
        args: Settings of the mixture.

    Attributes:
        templates: Number of kept examples, by template.
        dropped: Number of examples that were left out, by reason.
        overlap: Number of examples that overlap with a target, by kind of overlap and target task.
        shown: A few of these overlaps, for the report.
        failures: First failure of each template that failed.
    """

    def __init__(self, args: MixtureArguments) -> None:
        self.args = args
        self.templates: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.overlap: Counter[tuple[str, str]] = Counter()
        self.shown: list[dict[str, str]] = []
        self.failures: dict[str, str] = {}
        self._rows, self._ids, self._examples = DigestSet(), DigestSet(), DigestSet()

    def keep(self, made: Rendered, limit: int) -> pa.Table:
        """The examples to keep of `made`, at most `limit`.

        Raises:
            PromptError: A template failed, and `args.strict`.
            SourceError: An id repeats.
            ContaminationError: An example overlaps with a target, and `args.on_overlap` is "fail".
        """
        table = made.table
        self.dropped.update(made.dropped)
        for name, failure in made.failures.items():
            if name not in self.failures:
                if self.args.strict:
                    raise PromptError(failure)
                logger.warning("Rows that a template fails on are left out: %s", failure)
            self.failures.setdefault(name, failure)
        # A row that repeats could come to both sides of the split, in other words.
        numbers, first = np.unique(table["row"].to_numpy(), return_index=True)
        new = self._rows.add(table["row_digest"].to_numpy()[first])
        kept = new[np.searchsorted(numbers, table["row"].to_numpy())]
        self._count("of a repeated row", ~kept)
        kept &= self._without_overlap(made, kept)
        positions = np.flatnonzero(kept)
        ids = table["id"].take(pa.array(positions))
        repeats = ~self._ids.add(np.asarray([digest_of(identity) for identity in ids.to_pylist()], dtype=np.uint64))
        if repeats.any():
            raise SourceError(
                f"Task {table['task'][0].as_py()}: expected unique ids, found more of "
                f"{ids[int(np.argmax(repeats))].as_py()!r}. Map `id` to another column."
            )
        new = self._examples.add(table["digest"].to_numpy()[positions])
        self._count("repeated", ~new)
        positions = positions[new][: max(limit, 0)]
        table = table.take(pa.array(positions)).select(SCHEMA.names)
        self.templates.update(table["template"].to_pylist())
        return table

    def _without_overlap(self, made: Rendered, candidates: np.ndarray) -> np.ndarray:
        """Which examples may stay: of a row that one prompt shares with a target, no prompt does."""
        rows = made.table["row"].to_numpy()
        shared: dict[int, Overlap] = {}
        for position in np.flatnonzero(candidates).tolist():
            overlap = made.overlaps[position]
            if overlap is None:
                continue
            identity = made.table["id"][position].as_py()
            if self.args.on_overlap == "fail":
                raise ContaminationError(
                    f"{identity} shares {overlap.shared!r} ({overlap.kind}) with {overlap.target_id} of the target "
                    f'{overlap.target_task}. Leave such rows out with `on_overlap="drop"`.'
                )
            if len(self.shown) < _MAX_SHOWN:
                kind, _, target_id, words = overlap
                self.shown.append({"id": identity, "kind": kind, "target": target_id, "shared": words[:200]})
            shared.setdefault(int(rows[position]), overlap)
        clean = np.ones(len(rows), dtype=bool)
        for position in np.flatnonzero(candidates).tolist():
            overlap = shared.get(int(rows[position]))
            if overlap is not None:
                self.overlap[overlap.kind, overlap.target_task] += 1
                clean[position] = self.args.on_overlap != "drop"
        self._count("of a row shared with a target", ~clean)
        return clean

    def _count(self, reason: str, is_dropped: np.ndarray) -> None:
        if is_dropped.any():
            self.dropped[reason] += int(is_dropped.sum())
