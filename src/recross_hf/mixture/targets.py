"""Target tasks that upstream data must not hold: their examples, and the splits that they are tested on."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

from ..data.files import files_of
from .arguments import MixtureArguments
from .decontamination import ContaminationError
from .rendering import SCHEMA, make_examples
from .sources import SourceError, TaskSource
from .task import MixtureTask, readable

logger = logging.getLogger(__name__)


# So many examples of each template of a target tell its wording from content.
_EXAMPLES_A_TEMPLATE = 20


def render_targets(
    sources: Sequence[TaskSource],
    args: MixtureArguments | None = None,
    *,
    template_folder: str | Path | None = None,
    skip_failed_tasks: bool = False,
) -> Iterator[Dataset]:
    """The examples of target tasks for [`TargetTexts`] to compare with, a task at a time.

    Each row is rendered by one template, of small tasks by so many that a template's wording can be told from content.

    Raises:
        SourceError: a task's data or templates cannot be had, and not `skip_failed_tasks`, which passes it over with a warning.
    """
    args = args or MixtureArguments()
    for source in sources:
        try:
            task = MixtureTask(source, args, {}, template_folder)
            num_rows = task.rows.num_rows
            per_row = min(len(task.templates), math.ceil(_EXAMPLES_A_TEMPLATE * len(task.templates) / num_rows)) or 1
            with readable(source):
                made = [make_examples(work) for work in task.work(0, num_rows, per_row=per_row)]
            table = pa.concat_tables([rendered.table for rendered in made]).select(SCHEMA.names)
            lost = num_rows - len({identity.rpartition("#")[2] for identity in table["id"].to_pylist()})
            if not len(table):
                raise SourceError(f"Task {source.task}: expected examples to compare with, found none.")
        except SourceError as error:
            if not skip_failed_tasks:
                raise
            logger.warning("NOT compared with the target %s: %s", source.task, error)
            continue
        if lost:
            logger.warning(
                "Target %s: %d of %d rows are not compared with: no template suits.", source.task, lost, num_rows
            )
        yield Dataset(InMemoryTable(table.cast(SCHEMA)))


def check_splits(upstream: Sequence[TaskSource], targets: Sequence[TaskSource]) -> None:
    """Raises a [`ContaminationError`] if an upstream task is read from what a target task is tested on."""
    for target in targets:
        for source in upstream:
            if _reads_the_same(source, target):
                raise ContaminationError(
                    f"Task {source.task} reads {source.origin}, which is the test set of the target {target.task}. "
                    "Read another split, or leave the task out."
                )


def _reads_the_same(source: TaskSource, target: TaskSource) -> bool:
    if source.files is not None or target.files is not None:
        if source.files is None or target.files is None:
            return False
        return bool(_resolved(source.files) & _resolved(target.files))
    splits, tested = ({part.partition("[")[0].strip() for part in one.split.split("+")} for one in (source, target))
    same_config = source.config == target.config or None in (source.config, target.config)
    return source.dataset == target.dataset and same_config and bool(splits & tested)


def _resolved(pattern: str) -> set[Path]:
    try:
        return {path.resolve() for path in files_of(pattern)}
    except FileNotFoundError:  # which is said when it is read
        return set()
