"""Target tasks, which upstream data must not contain: their examples are rendered, and their test splits are compared."""

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
from .rendering import SCHEMA, Renderer
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
    """Renders the examples of target tasks for [`Decontaminator.of`], a task at a time.

    Each row is rendered by one template, and in small tasks by so many that a template's wording can be told from content.

    Args:
        sources: The target tasks.
        args: Settings of the mixture.
        template_folder: Folder of templates, laid out as PromptSource's; the installed package's by default.
        skip_failed_tasks: Whether to pass over, with a warning, a task that cannot be had.

    Returns:
        An iterator over the examples of each task.

    Raises:
        SourceError: A task's data or templates cannot be had, and not `skip_failed_tasks`.
    """
    args, renderer = args or MixtureArguments(), Renderer()
    for source in sources:
        try:
            task = MixtureTask(source, args, {}, template_folder)
            num_rows = task.rows.num_rows
            per_row = min(len(task.templates), math.ceil(_EXAMPLES_A_TEMPLATE * len(task.templates) / num_rows)) or 1
            with readable(source):
                made = [renderer.render(work) for work in task.work(0, num_rows, per_row=per_row)]
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
    """Checks that no upstream task is read from the split that a target task is tested on.

    Raises:
        ContaminationError: An upstream task is.
    """
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
