"""A trial of a task: a few of its rows are prepared and timed."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .arguments import MixtureArguments
from .decontamination import Decontaminator
from .deduplication import ExampleFilter
from .rendering import Renderer, RowsToRender
from .shards import ExampleShards
from .sources import SourceError, TaskSource
from .task import DEV_SHARE, MixtureTask, readable


class Trial(NamedTuple):
    """Time and disk that an example of a task takes, and the number of them.

    Attributes:
        seconds: Seconds that an example took on average to be made and compared, which processes share.
        serial_seconds: Seconds that an example took on average to be filtered and written, which the main process does.
        num_bytes: Bytes that an example takes on disk on average.
        num_examples: Number of examples of the whole task, training and dev.
        num_rows: Number of rows of the whole task.
        num_tried: Number of examples that were made.
    """

    seconds: float
    serial_seconds: float
    num_bytes: float
    num_examples: int
    num_rows: int
    num_tried: int


def try_out(
    source: TaskSource,
    args: MixtureArguments,
    *,
    targets: Decontaminator | None = None,
    template_folder: str | Path | None = None,
    num_rows: int = 200,
) -> Trial:
    """Prepares the first rows of a task without keeping them, and more until there are examples.

    Args:
        source: The task.
        args: Settings of the mixture.
        targets: Texts of target tasks to compare with; by default none.
        template_folder: Folder of templates, laid out as PromptSource's; the installed package's by default.
        num_rows: Rows to prepare at a time.

    Returns:
        What the trial took and made.

    Raises:
        SourceError: The task's data or templates cannot be had, or no row gives an example.
        ContaminationError: An example overlaps with a target, and `args.on_overlap` is "fail".
    """
    renderer = Renderer(targets)
    with readable(source), tempfile.TemporaryDirectory() as folder:
        task = MixtureTask(source, args, {}, template_folder)
        examples, shards = ExampleFilter(args), ExampleShards(Path(folder), "train", args.shard_size)
        tried, seconds, serial_seconds = 0, 0.0, 0.0
        batches = task.work(0, task.rows.num_rows, per_row=task.per_row)
        for work in itertools.chain.from_iterable(_slices(batch, num_rows) for batch in batches):
            if not tried:
                renderer.render(work)  # compiles the templates
            start = time.perf_counter()
            made = renderer.render(work)
            rendered = time.perf_counter()
            shards.write(examples.keep(made, len(made.table)))
            tried += len(work.rows)
            seconds += rendered - start
            serial_seconds += time.perf_counter() - rendered
            if shards.num_rows:
                break
        start = time.perf_counter()
        shards.close()
        serial_seconds += time.perf_counter() - start
        num_bytes = sum(path.stat().st_size for path in Path(folder).iterdir())
    num_made = shards.num_rows
    if not num_made:
        raise SourceError(f"Task {source.task}: expected examples of its {task.rows.num_rows} rows, found none.")
    num_dev = min(args.max_dev_examples_per_task, int(DEV_SHARE * task.rows.num_rows))
    num_train = min(args.max_examples_per_task, round((task.rows.num_rows - num_dev) * num_made / tried))
    return Trial(
        seconds / num_made,
        serial_seconds / num_made,
        num_bytes / num_made,
        num_train + num_dev,
        task.rows.num_rows,
        num_made,
    )


def _slices(work: RowsToRender, num_rows: int) -> Iterator[RowsToRender]:
    for start in range(0, len(work.rows), num_rows):
        part = slice(start, start + num_rows)
        yield work._replace(rows=work.rows[part], numbers=work.numbers[part])
