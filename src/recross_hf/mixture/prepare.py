"""`prepare_mixture` makes upstream data: examples of many tasks, without repetition or contamination, as parquet files."""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..core.files import matching, read_json, write_atomically, write_json
from ..core.output_folders import check_apart, check_apart_from_files, check_not_of_others, folder_to_write
from ..core.progress import progress_bar
from ..core.run_settings import names_alone, refuse_other_settings
from .arguments import MixtureArguments
from .dataset_card import mixture_card
from .decontamination import Decontaminator
from .deduplication import ExampleFilter
from .rendering import Rendered, Renderer
from .shards import ExampleShards
from .sources import SourceError, TaskSource
from .task import DEV_SHARE, MixtureTask, readable
from .workers import RenderingPool

logger = logging.getLogger(__name__)

REPORT_FILE = "task.json"
MIXTURE_FILE = "mixture.json"
# A last pass over the rows for less than this share of the cap is not worth its time.
_SHORTAGE = 0.01


def prepare_mixture(
    sources: Sequence[TaskSource],
    output_dir: str | Path,
    args: MixtureArguments | None = None,
    *,
    targets: Decontaminator | None = None,
    template_folder: str | Path | None = None,
    num_proc: int = 1,
    skip_failed_tasks: bool = False,
    show_progress: bool = False,
) -> dict[str, dict[str, Any]]:
    """Makes upstream examples of the rows of many tasks: `output_dir/task/train-*.parquet` and `dev-*.parquet`.

    ```python
    sources = read_task_sources("recross")["upstream"]
    targets = Decontaminator.of([load_examples("target/*/test.parquet")])
    prepare_mixture(sources, "upstream", targets=targets, num_proc=8)
    load_examples("upstream/*/train-*.parquet")
    ```

    Rows stream through `num_proc` processes; a task keeps eight bytes a row and an example in memory. The result depends on the
    seed and the data alone, and examples are in the order of the data. A finished task is there as a whole, with a report of its
    examples in `task.json`; a rerun goes on with the others. Only one process at a time may prepare a task. The folder opens with
    `datasets.load_dataset`.

    Args:
        sources: The tasks.
        output_dir: Folder that the examples go to.
        args: Settings; see [`MixtureArguments`].
        targets: Texts that no example may share; see [`Decontaminator`].
        template_folder: Folder of templates, laid out as PromptSource's; the installed package's by default.
        num_proc: Number of processes that render. It does not change the result.
        skip_failed_tasks: Whether to report a task that cannot be had (gone, gated, no suitable template), and go on.
        show_progress: Whether to show a progress bar.

    Returns:
        The content of each `task.json`, by task: counts, templates, and reasons for what was dropped; for a task that failed, `error`.

    Raises:
        SourceError: A task's data or templates cannot be had.
        ContaminationError: An example overlaps with a target, and `args.on_overlap` is "fail".
        ValueError: `output_dir` contains a task that was prepared with other settings, `targets` have other n-grams than
            `args`, or a task comes twice.
        NotADirectoryError: `template_folder` is no folder.
        RuntimeError: A process that renders died.
    """
    args = args or MixtureArguments()
    output_dir = folder_to_write(output_dir)
    targets = Decontaminator(args.ngram_size) if targets is None else targets  # an empty Decontaminator is falsy
    check_mixture(sources, output_dir, args, targets, num_proc)
    if template_folder is not None and not Path(template_folder).is_dir():
        raise NotADirectoryError(
            f"Expected a folder of templates, laid out as PromptSource's, found none at {template_folder}. Name one, or leave it out."
        )
    common, before = _common_settings(args, targets), _reports_of(output_dir)
    reports: dict[str, dict[str, Any]] = {}
    with (
        RenderingPool(Renderer(targets), num_proc) as pool,
        progress_bar(sources, unit="task", is_shown=show_progress) as progress,
    ):
        for source in progress:
            progress.set_description(source.task)
            try:
                reports[source.task] = _report(source, args, common, output_dir, template_folder, pool, progress)
            except SourceError as error:
                if not skip_failed_tasks:
                    raise
                logger.warning("Left out: %s", error)
                reports[source.task] = {"task": source.task, "error": str(error)}
                if source.task in before:
                    logger.warning("Task %s stays as it was prepared before.", source.task)
                    reports[source.task] = before[source.task]
    done = _reports_of(output_dir)
    write_json(output_dir / MIXTURE_FILE, done)
    failed = [task for task in reports if task not in done]
    card = mixture_card(done, failed=failed, args=args, num_target_texts=len(targets))
    write_atomically(output_dir / "README.md", lambda partial: partial.write_text(str(card), encoding="utf-8"))
    return reports


def check_mixture(
    sources: Sequence[TaskSource],
    output_dir: str | Path,
    args: MixtureArguments,
    targets: Decontaminator,
    num_proc: int,
) -> None:
    """Checks, before any work, that a mixture can be prepared.

    Args:
        sources: The tasks.
        output_dir: Folder that the examples go to.
        args: Settings of the mixture.
        targets: Texts that no example may share.
        num_proc: Number of processes that render.

    Raises:
        ValueError: [`prepare_mixture`] could not begin.
    """
    if num_proc < 1:
        raise ValueError(f"Expected `num_proc` to be at least 1, found {num_proc}.")
    if targets.ngram_size != args.ngram_size:
        raise ValueError(
            f"Expected `targets` with the n-grams of the settings, {args.ngram_size} words, found {targets.ngram_size}."
        )
    repeated = [task for task, count in Counter(source.task for source in sources).items() if count > 1]
    if repeated:
        raise ValueError(
            f"Expected each task once, found more of {', '.join(repeated)}. Give one of them another name."
        )
    check_not_of_others(output_dir, MIXTURE_FILE, overwritten=("README.md",))
    for source in sources:
        found = matching(source.files) if source.files is not None else []  # what is missing is said later
        check_apart(output_dir, {f"the data of {source.task}": path for path in found if path.is_dir()})
        check_apart_from_files(output_dir, [path for path in found if path.is_file()])
    for report in _reports_of(Path(output_dir)).values():
        _check_settings(report, _common_settings(args, targets), Path(output_dir))


def _report(
    source: TaskSource,
    args: MixtureArguments,
    common: dict[str, Any],
    output_dir: Path,
    template_folder: str | Path | None,
    pool: RenderingPool,
    progress: tqdm,
) -> dict[str, Any]:
    """The report of a task, which is prepared unless it was before."""
    with readable(source):
        task = MixtureTask(source, args, common, template_folder)
        return _finished(task, output_dir) or _prepare(task, output_dir, pool, progress)


def _prepare(task: MixtureTask, output_dir: Path, pool: RenderingPool, progress: tqdm) -> dict[str, Any]:
    source, args = task.source, task.args
    partial = output_dir / f".{source.task}.{os.getpid()}.partial"
    for abandoned in output_dir.glob(".*.partial"):
        if re.fullmatch(rf"\.{re.escape(source.task)}\.\d+\.partial", abandoned.name):
            shutil.rmtree(abandoned)
    partial.mkdir(parents=True)
    try:
        examples = ExampleFilter(args)
        num_dev = min(args.max_dev_examples_per_task, int(DEV_SHARE * task.rows.num_rows))
        dev = ExampleShards(partial, "dev", args.shard_size)
        for made in pool.map(task.work(0, num_dev, per_row=1)):
            dev.write(examples.keep(made, args.max_dev_examples_per_task - dev.num_rows))
        dev.close()
        train = ExampleShards(partial, "train", args.shard_size)
        for made in _train_batches(task, num_dev, train, pool):
            train.write(examples.keep(made, args.max_examples_per_task - train.num_rows))
            progress.set_postfix_str(f"{train.num_rows:,} examples")
        train.close()
        if not train.num_rows:
            raise SourceError(_without_examples(task, examples))
        report = _report_of(task, examples, train.num_rows, dev.num_rows)
        write_json(partial / REPORT_FILE, report)
        os.replace(partial, output_dir / source.task)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _train_batches(task: MixtureTask, start: int, train: ExampleShards, pool: RenderingPool) -> Iterator[Rendered]:
    """Renders the rows from `start` on in passes, until `train`, which the caller writes to, holds as many examples as it may."""
    cap = task.args.max_examples_per_task
    # Rows come in the order of the data, so that a pass that makes too many would lose the last: the first cannot, and
    # the others ask for what would suffice if the last pass had been unlucky by three standard deviations.
    asked = math.ceil(cap / task.per_row)
    for number_of_pass in itertools.count():
        before, stop = train.num_rows, min(task.rows.num_rows, start + asked)
        yield from pool.map(task.work(start, stop, per_row=task.per_row))
        gained, seen, start = train.num_rows - before, stop - start, stop
        short = cap - train.num_rows
        if start == task.rows.num_rows or short <= (_SHORTAGE * cap if number_of_pass else 0):
            return
        asked = math.ceil(short * seen / (gained + 3 * math.sqrt(gained) + 3))


def _report_of(task: MixtureTask, examples: ExampleFilter, num_train: int, num_dev: int) -> dict[str, Any]:
    """The content of `task.json`."""
    return {
        "task": task.source.task,
        "source": task.source.origin,
        "license": task.rows.license,
        "notes": list(task.rows.notes),
        "rows": task.rows.num_rows,
        "train": num_train,
        "dev": num_dev,
        "templates_per_row": task.per_row if task.templates else None,
        "templates": dict(sorted(examples.templates.items())),
        "templates_left_out": task.unsuitable,
        "dropped": dict(examples.dropped),
        "overlap": {f"{kind} with {target}": count for (kind, target), count in sorted(examples.overlap.items())},
        "overlap_examples": examples.shown,
        "failures": examples.failures,
        "settings": task.settings,
    }


def _without_examples(task: MixtureTask, examples: ExampleFilter) -> str:
    """The message where no row gave a training example."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in examples.dropped.items()) or "all rows went to dev"
    first = next(iter(examples.failures.values()), "")
    return (
        f"Task {task.source.task}: expected examples from {task.rows.num_rows} rows of {task.source.origin}, found none ({reasons})."
        + (f" The first failure: {first}" if first else "")
    )


def _finished(task: MixtureTask, output_dir: Path) -> dict[str, Any] | None:
    """The report of a task that was prepared before, or None."""
    path = output_dir / task.source.task / REPORT_FILE
    if not path.is_file():
        if path.parent.exists():
            raise ValueError(
                f"Expected no folder {path.parent}, or one with {REPORT_FILE}, found one without: it was not made here. "
                "Choose another `output_dir`."
            )
        return None
    report = read_json(path)
    settings = task.settings
    if None in (settings["version"], report["settings"]["version"]):  # offline the commit is not known
        settings = settings | {"version": report["settings"]["version"]}
    _check_settings(report, settings, output_dir)
    return report


def _common_settings(args: MixtureArguments, targets: Decontaminator) -> dict[str, Any]:
    """The settings that all tasks of a mixture depend on."""
    return {"targets": targets.identity(), **asdict(args)}


def _check_settings(report: dict[str, Any], settings: dict[str, Any], output_dir: Path) -> None:
    refuse_other_settings(
        report["settings"],
        settings,
        names=sorted(settings),
        expected="tasks that were prepared with these settings",
        found=lambda changed: (
            f"that {report['task']} in {output_dir} was prepared with other settings or data ({names_alone(changed)})"
        ),
        remedy=f"Choose another `output_dir`, or delete {output_dir / report['task']} to prepare the task again.",
    )


def _reports_of(output_dir: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: read_json(path) for path in sorted(output_dir.glob(f"*/{REPORT_FILE}"))}
