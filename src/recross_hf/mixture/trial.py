"""A little of a task, prepared to see what all of it takes."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .arguments import MixtureArguments
from .decontamination import TargetTexts
from .rendering import RowsToRender, make_examples, set_targets
from .shards import ExampleShards
from .sieve import Sieve
from .sources import SourceError, TaskSource
from .task import DEV_SHARE, MixtureTask, readable


class Trial(NamedTuple):
    """A little of a task, prepared to see what all of it takes.

    Attributes:
        seconds: that an example took on average to be made and compared, which processes share.
        serial_seconds: that it took to be sifted and written, which the main process does.
        num_bytes: that an example takes on disk on average.
        num_examples: of the whole task, training and dev.
        num_rows: of the whole task.
        num_tried: examples that were made.
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
    targets: TargetTexts | None = None,
    template_folder: str | Path | None = None,
    num_rows: int = 200,
) -> Trial:
    """Prepares some rows of a task without keeping them: the first ones, and more until there are examples.

    Raises:
        SourceError: the task's data or templates cannot be had, or no row gives an example.
        ContaminationError: there is an overlap, and `args.on_overlap` is "fail".
    """
    set_targets(TargetTexts() if targets is None else targets)
    try:
        with readable(source), tempfile.TemporaryDirectory() as folder:
            task = MixtureTask(source, args, {}, template_folder)
            sieve, shards = Sieve(args), ExampleShards(Path(folder), "train", args.shard_size)
            tried, seconds, serial_seconds = 0, 0.0, 0.0
            batches = task.work(0, task.rows.num_rows, per_row=task.per_row)
            for work in itertools.chain.from_iterable(_slices(batch, num_rows) for batch in batches):
                if not tried:
                    make_examples(work)  # compiles the templates
                start = time.perf_counter()
                made = make_examples(work)
                rendered = time.perf_counter()
                shards.write(sieve.keep(made, len(made.table)))
                tried += len(work.rows)
                seconds, serial_seconds = (
                    seconds + rendered - start,
                    serial_seconds + time.perf_counter() - rendered,
                )
                if shards.num_rows:
                    break
            start = time.perf_counter()
            shards.close()
            serial_seconds += time.perf_counter() - start
            num_bytes = sum(path.stat().st_size for path in Path(folder).iterdir())
    finally:
        set_targets(TargetTexts())
    made_of_them = shards.num_rows
    if not made_of_them:
        raise SourceError(f"Task {source.task}: expected examples of its {task.rows.num_rows} rows, found none.")
    num_dev = min(args.max_dev_examples_per_task, int(DEV_SHARE * task.rows.num_rows))
    num_train = min(args.max_examples_per_task, round((task.rows.num_rows - num_dev) * made_of_them / tried))
    return Trial(
        seconds / made_of_them,
        serial_seconds / made_of_them,
        num_bytes / made_of_them,
        num_train + num_dev,
        task.rows.num_rows,
        made_of_them,
    )


def _slices(work: RowsToRender, num_rows: int) -> Iterator[RowsToRender]:
    for start in range(0, len(work.rows), num_rows):
        part = slice(start, start + num_rows)
        yield work._replace(rows=work.rows[part], numbers=work.numbers[part])
