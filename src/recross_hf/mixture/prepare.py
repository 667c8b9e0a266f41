"""Upstream data: examples of many tasks, rendered, split, without repetition or contamination, as parquet on disk."""

from __future__ import annotations

import itertools
import json
import logging
import math
import multiprocessing
import os
import re
import shutil
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import InMemoryTable
from tqdm.auto import tqdm

from ..core.digests import DigestSet, digest_of, spread
from ..core.files import read_json, write_atomically, write_json
from ..data.readers import ExampleError, files_of
from ..training.arguments import MixtureArguments
from .dataset_card import mixture_card
from .decontamination import Overlap, TargetTexts, source_example
from .rendering import SCHEMA, Rendered, RowsToRender, make_examples, set_targets
from .sandbox import PromptError
from .sources import P3, UNREADABLE, RowBatch, Rows, SourceError, TaskSource, open_rows
from .templates import EXACT_METRICS, PromptTemplate, select_templates

logger = logging.getLogger(__name__)

REPORT_FILE = "task.json"
MIXTURE_FILE = "mixture.json"

# Below a number of rows, each is rendered by several templates, so that small tasks weigh more (the authors' choice).
TEMPLATES_BY_ROWS = ((5_000, 10), (10_000, 7), (50_000, 5))
_DEV_SHARE = 0.1
_MAX_SHOWN = 5
# A last pass over the rows for less than this share of the cap is not worth its time.
_SHORTAGE = 0.01
# So many examples of each template of a target tell its wording from content.
_EXAMPLES_A_TEMPLATE = 20
_ROWS_A_WRITE = 10_000


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
    rerun goes on with the others; one process at a time may prepare a task. Examples are in the order of the data. The folder opens with
    `datasets.load_dataset`.

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
        ValueError: `output_dir` holds a task that was prepared with other settings, `targets` have other n-grams than
            `args`, or a task comes twice.
    """
    args = args or MixtureArguments()
    output_dir = Path(output_dir)
    targets = TargetTexts(args.ngram_size) if targets is None else targets  # one of no texts is false
    check_mixture(sources, output_dir, args, targets, num_proc)
    common, before = _common_settings(args, targets), _reports_of(output_dir)
    reports: dict[str, dict[str, Any]] = {}
    with _Workers(num_proc, targets) as workers, tqdm(sources, unit="task", disable=not show_progress) as progress:
        for source in progress:
            progress.set_description(source.task)
            try:
                reports[source.task] = _report(source, args, common, output_dir, template_folder, workers, progress)
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
            task = _Task(source, args, {}, template_folder)
            num_rows = task.rows.num_rows
            per_row = min(len(task.templates), math.ceil(_EXAMPLES_A_TEMPLATE * len(task.templates) / num_rows)) or 1
            with _readable(source):
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


def check_mixture(
    sources: Sequence[TaskSource], output_dir: str | Path, args: MixtureArguments, targets: TargetTexts, num_proc: int
) -> None:
    """Raises a `ValueError` where [`prepare_mixture`] could not begin."""
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
    for report in _reports_of(Path(output_dir)).values():
        _check_settings(report, _common_settings(args, targets), Path(output_dir))


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
        with _readable(source), tempfile.TemporaryDirectory() as folder:
            task = _Task(source, args, {}, template_folder)
            sieve, shards = _Sieve(args), _Shards(Path(folder), "train", args.shard_size)
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
    num_dev = min(args.max_dev_examples_per_task, int(_DEV_SHARE * task.rows.num_rows))
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


def templates_by_rows(num_rows: int) -> int:
    """By how many templates each row is rendered where nothing else is said: 10, 7, 5 or, of large tasks, 1."""
    return next((number for limit, number in TEMPLATES_BY_ROWS if num_rows <= limit), 1)


# ---- one task --------------------------------------------------------------------------------------------------------


class _Task:
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


def _report(
    source: TaskSource,
    args: MixtureArguments,
    common: dict[str, Any],
    output_dir: Path,
    template_folder: str | Path | None,
    workers: _Workers,
    progress: tqdm,
) -> dict[str, Any]:
    """Prepares a task, unless it was prepared before."""
    with _readable(source):
        task = _Task(source, args, common, template_folder)
        return _finished(task, output_dir) or _prepare(task, output_dir, workers, progress)


@contextmanager
def _readable(source: TaskSource) -> Iterator[None]:
    """Names the task where its data turn out to be none, or a template fails."""
    try:
        yield
    except UNREADABLE as error:
        raise SourceError(f"Task {source.task}: {source.origin} cannot be read: {error}") from error
    except (ExampleError, PromptError) as error:
        raise SourceError(f"Task {source.task}: {error}") from error


def _prepare(task: _Task, output_dir: Path, workers: _Workers, progress: tqdm) -> dict[str, Any]:
    source, args = task.source, task.args
    partial = output_dir / f".{source.task}.{os.getpid()}.partial"
    for abandoned in output_dir.glob(".*.partial"):
        if re.fullmatch(rf"\.{re.escape(source.task)}\.\d+\.partial", abandoned.name):
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
        cap, start = args.max_examples_per_task, num_dev
        # Rows come in the order of the data, so that a pass that makes too many would lose the last: the first cannot, and
        # the others ask for what would suffice if the last pass had been unlucky by three standard deviations.
        asked = math.ceil(cap / task.per_row)
        for number_of_pass in itertools.count():
            before, stop = train.num_rows, min(task.rows.num_rows, start + asked)
            for made in workers.map(task.work(start, stop, per_row=task.per_row)):
                train.write(sieve.keep(made, cap - train.num_rows))
                progress.set_postfix_str(f"{train.num_rows:,} examples")
            found, seen, start = train.num_rows - before, stop - start, stop
            short = cap - train.num_rows
            if start == task.rows.num_rows or short <= (_SHORTAGE * cap if number_of_pass else 0):
                break
            asked = math.ceil(short * seen / (found + 3 * math.sqrt(found) + 3))
        train.close()
        report = {
            "task": source.task,
            "source": source.origin,
            "license": task.rows.license,
            "notes": task.rows.notes,
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
    settings = task.settings
    if None in (settings["version"], report["settings"]["version"]):  # offline the commit is not known
        settings = settings | {"version": report["settings"]["version"]}
    _check_settings(report, settings, output_dir)
    return report


def _common_settings(args: MixtureArguments, targets: TargetTexts) -> dict[str, Any]:
    """What all tasks of a mixture depend on."""
    return {"targets": targets.identity(), **asdict(args)}


def _check_settings(report: dict[str, Any], settings: dict[str, Any], output_dir: Path) -> None:
    asked, found = json.loads(json.dumps(settings)), report["settings"]
    different = sorted(name for name in asked if asked[name] != found.get(name))
    if different:
        raise ValueError(
            f"{report['task']} in {output_dir} was prepared with other settings or data ({', '.join(different)}). Choose another "
            f"`output_dir`, or delete {output_dir / report['task']} to prepare the task again."
        )


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
        self._rows, self._ids, self._examples = DigestSet(), DigestSet(), DigestSet()

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
        """Of a row that one prompt shares with a target, no prompt is kept."""
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


class _Shards:
    """Parquet files of one split, named as the Hub's when closed: `train-00000-of-00003.parquet`."""

    def __init__(self, folder: Path, split: str, shard_size: int) -> None:
        self.folder, self.split, self.shard_size = folder, split, shard_size
        self.num_rows = 0
        self._paths: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._room = 0

    def write(self, table: pa.Table) -> None:
        """Keeps rows until they are worth a row group."""
        self.num_rows += len(table)
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= _ROWS_A_WRITE:
            self._flush()

    def _flush(self) -> None:
        table = pa.concat_tables(self._waiting) if self._waiting else SCHEMA.empty_table()
        self._waiting = []
        while len(table):
            if self._writer is None:
                self._paths.append(self.folder / f"{self.split}-{len(self._paths)}.parquet")
                self._writer = pq.ParquetWriter(self._paths[-1], SCHEMA, compression="zstd")
                self._room = self.shard_size
            part, table = table[: self._room], table[self._room :]
            self._writer.write_table(part)
            self._room -= len(part)
            if not self._room:
                self._end()

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        self._flush()
        self._end()
        for number, path in enumerate(self._paths):
            path.rename(self.folder / f"{self.split}-{number:05d}-of-{len(self._paths):05d}.parquet")


class _Workers:
    """Processes that make examples; what they make comes back in order."""

    def __init__(self, num_proc: int, targets: TargetTexts) -> None:
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
