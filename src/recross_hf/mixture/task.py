"""One task of a mixture: its rows in a random order that the seed determines, and the templates that suit."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..core.hashing import digest_of, spread
from ..data.schema import ExampleError
from .arguments import MixtureArguments
from .decontamination import source_example
from .file_rows import file_rows
from .hub_rows import hub_rows
from .rendering import RowsToRender
from .rows import UNREADABLE, RowBatch, Rows
from .sandbox import PromptError
from .sources import P3, SourceError, TaskSource
from .template_files import EXACT_METRICS, select_templates
from .templates import PromptTemplate

logger = logging.getLogger(__name__)


def open_rows(source: TaskSource) -> Rows:
    """Opens the rows of a task; a data set on the Hub is downloaded once.

    Raises:
        SourceError: a path leads nowhere or to what is no table; the data set is gone, private or gated, or has no such
            configuration or split.
    """
    if source.files is None:
        return hub_rows(source)
    try:
        return file_rows(source)
    except (ExampleError, FileNotFoundError) as error:
        raise SourceError(f"Task {source.task}: {error}") from error
    except UNREADABLE as error:
        raise SourceError(f"Task {source.task}: {source.origin} cannot be read: {error}") from error


# Below a number of rows, each is rendered by several templates, so that small tasks weigh more (the authors' choice).
TEMPLATES_BY_ROWS = ((5_000, 10), (10_000, 7), (50_000, 5))
DEV_SHARE = 0.1


def templates_by_rows(num_rows: int) -> int:
    """By how many templates each row is rendered where nothing else is said: 10, 7, 5 or, of large tasks, 1."""
    return next((number for limit, number in TEMPLATES_BY_ROWS if num_rows <= limit), 1)


# ---- one task --------------------------------------------------------------------------------------------------------


class MixtureTask:
    """A task's rows in a random order that the seed determines, and the templates that suit."""

    def __init__(
        self, source: TaskSource, args: MixtureArguments, common: dict[str, Any], template_folder: str | Path | None
    ) -> None:
        self.source = source
        self.args = args
        self.rows: Rows = open_rows(source)
        if not self.rows.num_rows:
            raise SourceError(f"Task {source.task}: expected rows in {source.origin}, found none.")
        self.unsuitable: dict[str, str] = {}
        try:
            self.templates = self._suitable(source.load_templates(folder=template_folder))
        except PromptError as error:
            raise SourceError(f"Task {source.task}: {error}") from error
        self.per_row = 1
        if self.templates:
            asked = args.templates_per_example or templates_by_rows(self.rows.num_rows)
            self.per_row = min(asked, len(self.templates))
        # What the result depends on; not where files lie.
        described = asdict(source) | dict.fromkeys(("files", "license", "query_split", "templates"))
        self.settings = {
            "source": described,
            "templates": digest_of([asdict(template) for template in self.templates]),
            "version": self.rows.version,
            **common,
        }

    def _suitable(self, templates: list[PromptTemplate]) -> list[PromptTemplate]:
        if self.source.templates is None:
            return []
        chosen = select_templates(
            templates,
            metrics=EXACT_METRICS if self.args.exact_match_only else None,
            original_task=True if self.args.original_task_only else None,
        )
        suitable = []
        for template in chosen:
            try:
                template.check()
                missing = sorted(template.columns - set(self.rows.column_names)) if self.rows.column_names else []
                if not missing:
                    suitable.append(template)
                    continue
                problem = (
                    f"expected the column {', '.join(map(repr, missing))}, found {', '.join(self.rows.column_names)}"
                )
            except PromptError as error:
                problem = str(error)
            if self.args.strict:
                raise SourceError(f"Task {self.source.task}: template {template.name!r}: {problem}.")
            self.unsuitable[template.name] = problem
        if not suitable:
            why = "; ".join(f"{name}: {problem}" for name, problem in self.unsuitable.items())
            raise SourceError(
                f"Task {self.source.task}: expected a usable template among the {len(templates)} of "
                f"{self.source.templates}, found none{f' ({why})' if why else ': none is of the kind that the settings ask for'}."
            )
        for name, problem in self.unsuitable.items():
            logger.warning("Task %s: template %r is left out: %s.", self.source.task, name, problem)
        return suitable

    def keys(self, batch: RowBatch) -> np.ndarray:
        """A number for the source example of each row: rows of the same one stay on one side of the split."""
        numbers = batch.first + np.arange(len(batch), dtype=np.uint64)
        if self.templates:
            return numbers
        ids = batch.column(self.source.columns.get("id", "id"))
        return np.asarray(
            [
                number if identity is None else digest_of(source_example(str(identity)))
                for number, identity in zip(numbers.tolist(), ids, strict=True)
            ],
            dtype=np.uint64,
        )

    def _places_of(self, keys: np.ndarray) -> np.ndarray:
        """Where each row stands in the random order."""
        return spread(keys ^ np.uint64(digest_of([self.args.seed, self.source.task])))

    def work(self, start: int, stop: int, *, per_row: int) -> Iterator[RowsToRender]:
        """The rows from `start` to `stop` in the random order, in the order of the data."""
        low, high = self._place(start), self._place(stop)
        for batch in self.rows.batches():
            places = self._places_of(self.keys(batch))
            positions = np.flatnonzero((places >= low) & ((places < high) if stop < self.rows.num_rows else True))
            if len(positions):
                yield RowsToRender(
                    task=self.source.task,
                    split=self.source.split,
                    templates=tuple(self.templates),
                    columns=self.source.columns,
                    strips=self.source.dataset == P3,
                    rows=batch.take(positions.tolist()),
                    numbers=(positions + batch.first).tolist(),
                    per_row=per_row,
                    seed=self.args.seed,
                    truncate=self.args.truncate,
                )

    def _place(self, rank: int) -> np.uint64:
        return self._sorted_places[rank] if rank < self.rows.num_rows else np.uint64(2**64 - 1)

    @cached_property
    def _sorted_places(self) -> np.ndarray:
        if self.templates:  # no need to read the rows
            return np.sort(self._places_of(np.arange(self.rows.num_rows, dtype=np.uint64)))
        return np.sort(np.concatenate([self._places_of(self.keys(batch)) for batch in self.rows.batches()]))


@contextmanager
def readable(source: TaskSource) -> Iterator[None]:
    """Names the task where its data turn out to be none, or a template fails."""
    try:
        yield
    except UNREADABLE as error:
        raise SourceError(f"Task {source.task}: {source.origin} cannot be read: {error}") from error
    except (ExampleError, PromptError) as error:
        raise SourceError(f"Task {source.task}: {error}") from error
