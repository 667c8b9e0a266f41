"""`MixtureTask`: the rows of one task in a random order that the seed determines, and the templates that suit."""

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
from .p3 import P3, p3_rows
from .rendering import RowsToRender
from .rows import UNREADABLE, RowBatch, Rows
from .sandbox_budget import PromptError
from .sources import SourceError, TaskSource
from .template_files import EXACT_METRICS, select_templates
from .templates import PromptTemplate

logger = logging.getLogger(__name__)


# Below a number of rows, each is rendered by several templates, so that small tasks weigh more (the authors' choice).
TEMPLATES_BY_ROWS = ((5_000, 10), (10_000, 7), (50_000, 5))
DEV_SHARE = 0.1


def templates_by_rows(num_rows: int) -> int:
    """The number of templates that render each row where nothing else is said: 10, 7, 5 or, in large tasks, 1."""
    return next((number for limit, number in TEMPLATES_BY_ROWS if num_rows <= limit), 1)


def open_rows(source: TaskSource) -> Rows:
    """Opens the rows of a task; a data set on the Hub is downloaded once.

    Raises:
        SourceError: A path leads nowhere or to a file that is no table; the data set is gone, private or gated, or has no such
            configuration or split.
    """
    if source.dataset is not None:
        return p3_rows(source) if source.dataset == P3 else hub_rows(source)
    try:
        with readable(source):
            return file_rows(source)
    except FileNotFoundError as error:
        raise SourceError(f"Task {source.task}: {error}") from error


@contextmanager
def readable(source: TaskSource) -> Iterator[None]:
    """Turns the errors of unreadable data, and of templates, into a [`SourceError`] that names the task."""
    try:
        yield
    except UNREADABLE as error:
        raise SourceError(f"Task {source.task}: {source.origin} cannot be read: {error}") from error
    except (ExampleError, PromptError) as error:
        raise SourceError(f"Task {source.task}: {error}") from error


class MixtureTask:
    """A task's rows in a random order that the seed determines, and the templates that suit.

    Args:
        source: The task.
        args: Settings of the mixture.
        common: Settings that the result depends on beside the task's own, for its report.
        template_folder: Folder of templates, laid out as PromptSource's; the installed package's by default.

    Attributes:
        rows: Rows of the task.
        templates: Templates that suit; none where rows are examples already.
        unsuitable: Reason against each template that is left out, by its name.
        per_row: Templates to render each row by.
        settings: All that the result depends on.

    Raises:
        SourceError: The task's data or templates cannot be had, or no template suits.
    """

    def __init__(
        self, source: TaskSource, args: MixtureArguments, common: dict[str, Any], template_folder: str | Path | None
    ) -> None:
        self.source = source
        self.args = args
        self.rows = open_rows(source)
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
        # The result does not depend on where files lie.
        described = asdict(source) | dict.fromkeys(("files", "license", "query_split", "templates"))
        described["columns"] = dict(self.rows.columns)
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
        """A number for the source example of each row: rows with the same number stay on one side of the split."""
        numbers = batch.first + np.arange(len(batch), dtype=np.uint64)
        if self.templates:
            return numbers
        ids = batch.column(self.rows.columns.get("id", "id"))
        return np.asarray(
            [
                number if identity is None else digest_of(source_example(str(identity)))
                for number, identity in zip(numbers.tolist(), ids, strict=True)
            ],
            dtype=np.uint64,
        )

    def _sort_keys_of(self, keys: np.ndarray) -> np.ndarray:
        """Numbers of 64 bits by which rows are in the random order."""
        return spread(keys ^ np.uint64(digest_of([self.args.seed, self.source.task])))

    def work(self, start: int, stop: int, *, per_row: int) -> Iterator[RowsToRender]:
        """The rows from `start` to `stop` of the random order, in the order of the data.

        Args:
            start: Rank of the first row in the random order.
            stop: Rank after the last row.
            per_row: Templates to render each row by.

        Returns:
            An iterator over batches to render.
        """
        low, high = self._threshold(start), self._threshold(stop)
        for batch in self.rows.batches():
            sort_keys = self._sort_keys_of(self.keys(batch))
            positions = np.flatnonzero(
                (sort_keys >= low) & ((sort_keys < high) if stop < self.rows.num_rows else True)
            )
            if len(positions):
                yield RowsToRender(
                    task=self.source.task,
                    split=self.source.split,
                    templates=tuple(self.templates),
                    columns=self.rows.columns,
                    is_padded=self.rows.is_padded,
                    rows=batch.take(positions.tolist()),
                    numbers=(positions + batch.first).tolist(),
                    per_row=per_row,
                    seed=self.args.seed,
                    truncate=self.args.truncate,
                )

    def _threshold(self, rank: int) -> np.uint64:
        """The sort key of the row that has this rank in the random order."""
        return self._sorted_keys[rank] if rank < self.rows.num_rows else np.uint64(2**64 - 1)

    @cached_property
    def _sorted_keys(self) -> np.ndarray:
        if self.templates:  # no need to read the rows
            return np.sort(self._sort_keys_of(np.arange(self.rows.num_rows, dtype=np.uint64)))
        return np.sort(np.concatenate([self._sort_keys_of(self.keys(batch)) for batch in self.rows.batches()]))
