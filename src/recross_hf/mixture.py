"""Upstream data: examples of many tasks, rendered, split, without repetition or contamination, as parquet on disk."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import InMemoryTable
from tqdm.auto import tqdm

from .arguments import MixtureArguments
from .card import mixture_card
from .contamination import TargetTexts, source_example
from .digests import DigestSet, digest_of, spread
from .files import read_json, write_atomically, write_json
from .prompts import EXACT_METRICS, PromptError, PromptTemplate, select_templates
from .rendering import SCHEMA, Rendered, RowsToRender, make_examples, set_targets
from .sources import P3, RowBatch, Rows, SourceError, TaskSource, open_rows

logger = logging.getLogger(__name__)

REPORT_FILE = "task.json"
MIXTURE_FILE = "mixture.json"

# Below a number of rows, each is rendered by several templates, so that small tasks weigh more (the authors' choice).
TEMPLATES_BY_ROWS = ((5_000, 10), (10_000, 7), (50_000, 5))
_DEV_SHARE = 0.1
_MAX_SHOWN = 5
# A last pass over the rows for less than this share of the cap is not worth its time.
_SHORTAGE = 0.01


class ContaminationError(ValueError):
    """Upstream examples share text or source with a target task, and `on_overlap` is "fail"."""


def prepare_mixture(
    sources: Sequence[TaskSource],
    output_dir: str | Path,
    args: MixtureArguments | None = None,
    *,
    targets: TargetTexts | None = None,
    template_folder: str | Path | None = None,
    num_proc: int = 1,
    skip_failed_tasks: bool = False,
    show_progress: bool = False,
) -> dict[str, dict[str, Any]]:
    """Makes upstream examples of the rows of many tasks: `output_dir/task/train-*.parquet` and `dev-*.parquet`.

    ```python
    sources = read_task_sources("recross")["upstream"]
    targets = TargetTexts.of([load_examples("target/*/test.parquet")])
    prepare_mixture(sources, "upstream", targets=targets, num_proc=8)
    load_examples("upstream/*/train-*.parquet")
    ```

    Rows stream through `num_proc` processes; a task keeps eight bytes a row and an example in memory. What comes out depends
    on the seed and the data alone. Finished tasks are there as a whole, with what was kept and dropped in `task.json`; a
    rerun goes on with the others. The folder opens with `datasets.load_dataset`.

    Args:
        sources: the tasks.
        output_dir: where they go.
        args: settings; see [`MixtureArguments`].
        targets: texts that no example may share; see [`TargetTexts`].
        template_folder: laid out as PromptSource's; that of the installed package by default.
        num_proc: processes that render. Their number does not change the result.
        skip_failed_tasks: report a task that cannot be had (gone, gated, no suitable template), and go on.

    Returns:
        The content of each `task.json` by task: counts, templates, what was dropped and why; of a task that failed, `error`.

    Raises:
        SourceError: a task's data or templates cannot be had.
        ContaminationError: there is an overlap, and `args.on_overlap` is "fail".
        ValueError: `output_dir` holds a task that was prepared with other settings.
    """
    args = args or MixtureArguments()
    output_dir = Path(output_dir)
    targets = targets or TargetTexts(args.ngram_size)
    reports: dict[str, dict[str, Any]] = {}
    with _Workers(num_proc, targets) as workers, tqdm(sources, unit="task", disable=not show_progress) as progress:
        for source in progress:
            progress.set_description(source.task)
            try:
                task = _Task(source, args, targets, template_folder)
                reports[source.task] = _finished(task, output_dir) or _prepare(task, output_dir, workers, progress)
            except (SourceError, PromptError) as error:
                if not skip_failed_tasks:
                    raise
                logger.warning("Left out: %s", error)
                reports[source.task] = {"task": source.task, "error": str(error)}
    everything = _reports_of(output_dir) | reports
    write_json(output_dir / MIXTURE_FILE, everything)
    card = mixture_card(everything, args=args, num_target_texts=len(targets))
    write_atomically(output_dir / "README.md", lambda partial: partial.write_text(str(card), encoding="utf-8"))
    return reports


def render_targets(
    sources: Sequence[TaskSource], args: MixtureArguments | None = None, *, template_folder: str | Path | None = None
) -> Iterator[Dataset]:
    """The examples of target tasks, each row by one template, for [`TargetTexts`] to compare with; a task at a time."""
    args = args or MixtureArguments()
    for source in sources:
        task = _Task(source, args, TargetTexts(), template_folder)
        made = [make_examples(work).table for work in task.work(0, task.rows.num_rows, per_row=1)]
        if not any(map(len, made)):
            raise SourceError(f"Task {source.task}: expected examples to compare with, found none.")
        table = pa.concat_tables(made).select(SCHEMA.names)
        yield Dataset(InMemoryTable(table.cast(SCHEMA)))


def check_splits(upstream: Sequence[TaskSource], targets: Sequence[TaskSource]) -> None:
    """Raises a [`ContaminationError`] if an upstream task is read from what a target task is tested on."""
    tested = {_data_of(source): source.task for source in targets}
    for source in upstream:
        if _data_of(source) in tested:
            raise ContaminationError(
                f"Task {source.task} reads {source.origin}, which is the test set of the target {tested[_data_of(source)]}. "
                "Read another split, or leave the task out."
            )


def _data_of(source: TaskSource) -> tuple[str | None, ...]:
    if source.files is not None:
        return (str(Path(source.files).resolve()),)
    return (source.dataset, source.config, source.split)


def templates_by_rows(num_rows: int) -> int:
    """By how many templates each row is rendered where nothing else is said: 10, 7, 5 or, of large tasks, 1."""
    return next((number for limit, number in TEMPLATES_BY_ROWS if num_rows <= limit), 1)


# ---- one task --------------------------------------------------------------------------------------------------------


class _Task:
    """A task's rows in a random order that the seed determines, and the templates that suit."""

    def __init__(
        self, source: TaskSource, args: MixtureArguments, targets: TargetTexts, template_folder: str | Path | None
    ) -> None:
        self.source = source
        self.args = args
        self.rows: Rows = open_rows(source)
        if not self.rows.num_rows:
            raise SourceError(f"Task {source.task}: expected rows in {source.origin}, found none.")
        self.unsuitable: dict[str, str] = {}
        self.templates = self._suitable(source.load_templates(folder=template_folder))
        self.per_row = 1
        if self.templates:
            asked = args.templates_per_example or templates_by_rows(self.rows.num_rows)
            self.per_row = min(asked, len(self.templates))
        # What the result depends on; not where files lie.
        self.settings = {
            "source": asdict(source) | {"files": None},
            "templates": digest_of([asdict(template) for template in self.templates]),
            "version": self.rows.version,
            "targets": targets.identity(),
            **asdict(args),
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


def _prepare(task: _Task, output_dir: Path, workers: _Workers, progress: tqdm) -> dict[str, Any]:
    source, args = task.source, task.args
    partial = output_dir / f".{source.task}.{os.getpid()}.partial"
    for abandoned in output_dir.glob(f".{source.task}.*.partial"):
        shutil.rmtree(abandoned)
    partial.mkdir(parents=True)
    try:
        sieve = _Sieve(args)
        num_dev = min(args.max_dev_examples_per_task, int(_DEV_SHARE * task.rows.num_rows))
        dev = _Shards(partial, "dev", args.shard_size)
        for made in workers.map(task.work(0, num_dev, per_row=1)):
            dev.write(sieve.keep(made, args.max_dev_examples_per_task - dev.num_rows))
        dev.close()

        train = _Shards(partial, "train", args.shard_size)
        cap, start, per_row = args.max_examples_per_task, num_dev, float(task.per_row)
        for number_of_pass in range(task.rows.num_rows):
            short = cap - train.num_rows
            if start == task.rows.num_rows or short <= (_SHORTAGE * cap if number_of_pass > 1 else 0):
                break
            before = train.num_rows
            stop = min(task.rows.num_rows, start + math.ceil(short / max(per_row, 0.01)))
            for made in workers.map(task.work(start, stop, per_row=task.per_row)):
                train.write(sieve.keep(made, cap - train.num_rows))
                progress.set_postfix_str(f"{train.num_rows:,} examples")
            per_row = (train.num_rows - before) / (stop - start)
            start = stop
        train.close()
        report = {
            "task": source.task,
            "source": source.origin,
            "license": task.rows.license,
            "rows": task.rows.num_rows,
            "train": train.num_rows,
            "dev": dev.num_rows,
            "templates_per_row": task.per_row if task.templates else None,
            "templates": dict(sorted(sieve.templates.items())),
            "templates_left_out": task.unsuitable,
            "dropped": dict(sieve.dropped),
            "overlap": {f"{kind} with {target}": count for (kind, target), count in sorted(sieve.overlap.items())},
            "overlap_examples": sieve.shown,
            "failures": sieve.failures,
            "settings": task.settings,
        }
        if not train.num_rows:
            why = ", ".join(f"{count} {reason}" for reason, count in sieve.dropped.items()) or "all rows went to dev"
            first = next(iter(sieve.failures.values()), "")
            raise SourceError(
                f"Task {source.task}: expected examples from {task.rows.num_rows} rows of {source.origin}, found none ({why})."
                + (f" The first failure: {first}" if first else "")
            )
        write_json(partial / REPORT_FILE, report)
        os.replace(partial, output_dir / source.task)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _finished(task: _Task, output_dir: Path) -> dict[str, Any] | None:
    """The report of a task that was prepared before."""
    path = output_dir / task.source.task / REPORT_FILE
    if not path.is_file():
        if path.parent.exists():
            raise ValueError(
                f"Expected no folder {path.parent}, or one with {REPORT_FILE}, found one without: it was not made here. "
                "Choose another `output_dir`."
            )
        return None
    report = read_json(path)
    asked, found = json.loads(json.dumps(task.settings)), report["settings"]
    different = sorted(name for name in asked.keys() | found.keys() if asked.get(name) != found.get(name))
    if different:
        raise ValueError(
            f"{path.parent} was prepared with other settings or data ({', '.join(different)}). Choose another `output_dir`, or "
            "delete that folder to prepare the task again."
        )
    return report


def _reports_of(output_dir: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: read_json(path) for path in sorted(output_dir.glob(f"*/{REPORT_FILE}"))}


# ---- examples to files, in the main process --------------------------------------------------------------------------


class _Sieve:
    """Keeps examples that are new and share nothing with targets, and counts the others."""

    def __init__(self, args: MixtureArguments) -> None:
        self.args = args
        self.templates: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.overlap: Counter[tuple[str, str]] = Counter()
        self.shown: list[dict[str, str]] = []
        self.failures: dict[str, str] = {}
        self._rows, self._examples = DigestSet(), DigestSet()

    def keep(self, made: Rendered, limit: int) -> pa.Table:
        """The examples to keep of `made`, at most `limit`."""
        table = made.table
        self.dropped.update(made.dropped)
        for name, failure in made.failures.items():
            if name not in self.failures:
                if self.args.strict:
                    raise PromptError(failure)
                logger.warning("Rows that a template fails on are left out: %s", failure)
            self.failures.setdefault(name, failure)
        # A row that repeats would come to both sides of the split, put differently.
        numbers, first = np.unique(table["row"].to_numpy(), return_index=True)
        new = self._rows.add(table["row_digest"].to_numpy()[first])
        kept = new[np.searchsorted(numbers, table["row"].to_numpy())]
        self._count("of a repeated row", ~kept)
        kept &= self._without_overlap(made, kept)
        positions = np.flatnonzero(kept)
        new = self._examples.add(table["digest"].to_numpy()[positions])
        self._count("repeated", ~new)
        positions = positions[new][: max(limit, 0)]
        table = table.take(pa.array(positions)).select(SCHEMA.names)
        self.templates.update(table["template"].to_pylist())
        return table

    def _without_overlap(self, made: Rendered, candidates: np.ndarray) -> np.ndarray:
        clean = np.ones(len(made.overlaps), dtype=bool)
        for position, overlap in enumerate(made.overlaps):
            if overlap is None or not candidates[position]:
                continue
            kind, target_task, target_id, shared = overlap
            identity = made.table["id"][position].as_py()
            if self.args.on_overlap == "fail":
                raise ContaminationError(
                    f"{identity} shares {shared!r} ({kind}) with {target_id} of the target {target_task}. Leave such examples "
                    'out with `on_overlap="drop"`.'
                )
            self.overlap[kind, target_task] += 1
            if len(self.shown) < _MAX_SHOWN:
                self.shown.append({"id": identity, "kind": kind, "target": target_id, "shared": shared[:200]})
            clean[position] = self.args.on_overlap != "drop"
        self._count("shared with a target", ~clean)
        return clean

    def _count(self, reason: str, is_dropped: np.ndarray) -> None:
        if is_dropped.any():
            self.dropped[reason] += int(is_dropped.sum())


class _Shards:
    """Parquet files of one split, named as the Hub's when closed: `train-00000-of-00003.parquet`."""

    def __init__(self, folder: Path, split: str, shard_size: int) -> None:
        self.folder, self.split, self.shard_size = folder, split, shard_size
        self.num_rows = 0
        self._paths: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._room = 0

    def write(self, table: pa.Table) -> None:
        while len(table):
            if self._writer is None:
                self._paths.append(self.folder / f"{self.split}-{len(self._paths)}.parquet")
                self._writer = pq.ParquetWriter(self._paths[-1], SCHEMA, compression="zstd")
                self._room = self.shard_size
            part, table = table[: self._room], table[self._room :]
            self._writer.write_table(part)
            self.num_rows += len(part)
            self._room -= len(part)
            if not self._room:
                self._end()

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        self._end()
        for number, path in enumerate(self._paths):
            path.rename(self.folder / f"{self.split}-{number:05d}-of-{len(self._paths):05d}.parquet")


class _Workers:
    """Processes that make examples; what they make comes back in order."""

    def __init__(self, num_proc: int, targets: TargetTexts) -> None:
        if num_proc < 1:
            raise ValueError(f"Expected `num_proc` to be at least 1, found {num_proc}.")
        self.num_proc, self.targets = num_proc, targets
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Workers:
        if self.num_proc > 1:
            # Not forked: a forked child of a process with threads can hang.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.num_proc, context, set_targets, (self.targets,))
        else:
            set_targets(self.targets)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        set_targets(TargetTexts())

    def map(
        self, work: Iterator[RowsToRender], function: Callable[[RowsToRender], Rendered] = make_examples
    ) -> Iterator[Rendered]:
        """As `map`, with a few batches ahead of what is taken: memory does not grow with the data."""
        if self._pool is None:
            yield from map(function, work)
            return
        ahead: deque[Any] = deque()
        try:
            for item in work:
                ahead.append(self._pool.submit(function, item))
                if len(ahead) > 2 * self.num_proc:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "A process that made examples died, maybe for want of memory. Run again with fewer processes (`num_proc`): "
                "finished tasks are kept. A script must call this under `if __name__ == '__main__':`."
            ) from error
