"""The comparison of methods: methods x target tasks x query sets, computed cell by cell."""

from __future__ import annotations

import gc
import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils.memory import clear_device_cache

from ..core.progress import progress_bar
from ..pipeline.pipeline import ReCrossPipeline
from .cells import CellKey
from .collection import collect_results
from .computation import compute_cell
from .methods import Method
from .results import EvaluationResults
from .run import EvaluationRun, prepare_evaluation
from .tasks import TargetTask

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 1.0
_PROGRESS = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


def evaluate_methods(
    pipeline: ReCrossPipeline,
    tasks: Sequence[TargetTask],
    methods: Sequence[Method],
    output_dir: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    on_overlap: str = "refuse",
    signals: bool = False,
    show_progress: bool = True,
) -> EvaluationResults:
    """Adapts by every method to every query set of every task, and scores the answers of the adapted models.

    ```python
    tasks = [load_target_task(folder) for folder in ("target/anli_r3", "target/piqa")]
    results = evaluate_methods(pipeline, tasks, paper_methods(pipeline), "benchmark")
    results.save("benchmark")
    ```

    Every cell is a file below `output_dir`. A killed run continues when it is called again. Processes that call it with the same
    arguments at the same time share the cells, and each call returns when all are finished. A cell that fails is tried again by the
    next run. Query set comes after query set, so that a run that is cut short has all tasks.

    Args:
        pipeline: Pipeline that adapts; it must not be adapted already.
        tasks: Target tasks with the test examples and query sets to use ([`TargetTask.limited`]).
        methods: Methods to compare, see [`paper_methods`]. A method without a retriever is the model as it is, which all query sets
            share.
        output_dir: Folder of the cells.
        settings: Fields of [`AdaptationArguments`] for all methods, beside those of the pipeline. The query set's number is added to
            `seed`. `gate` is "off" unless they, the pipeline's or a method's own say otherwise: what adapting does is measured.
        on_overlap: Handling of test examples that are queries or upstream, see [`Overlaps`]: "refuse"; "drop", which leaves queries
            out of the test set and test examples out of retrieval; or "report", which lists them in the cells' details.
        signals: Whether what can be said of each adaptation without labels is recorded, as `signals` of the cells' details
            ([`AdaptationSignals`]); it changes nothing else.
        show_progress: Whether a bar shows the time left.

    Returns:
        The results, with the floors of [`floor_answers`]. A failed cell has an `error` and no predictions.

    Raises:
        OverlapError: Test examples are queries or upstream, and `on_overlap` is "refuse".
        CellMismatchError: `output_dir` has a cell of other settings.
        ValueError: Names repeat, the pipeline is adapted already, or settings are out of range.
        TypeError: There is no such setting.
    """
    run = prepare_evaluation(
        pipeline, tasks, methods, output_dir, settings=settings, on_overlap=on_overlap, signals=signals
    )
    for name in run.tasks:
        if run.overlaps[name].is_upstream:
            logger.warning("Target task %s is an upstream task, too: nothing is retrieved from it here.", name)
    with _quick_collection():
        _compute_cells(run, show_progress)
    return collect_results(run)


def _compute_cells(run: EvaluationRun, show_progress: bool) -> None:
    """Computes cells that no other process has or computes, until all are finished or have failed."""
    started, keys = time.time(), run.keys()
    timing = _Timing(started)
    for key in keys:
        if run.files.is_finished(key):
            timing.before[key] = _seconds_of(run, key)
    pending = [key for key in keys if key not in timing.before]
    with progress_bar(total=len(keys), desc="Cells", bar_format=_PROGRESS, is_shown=show_progress) as progress:
        progress.update(len(timing.before))
        while pending:
            held = []
            for place, key in enumerate(pending):
                if not _is_done_or_computed(run, key, started):
                    held.append(key)
                    continue
                progress.update()
                if run.files.is_finished(key):
                    timing.since[key] = _seconds_of(run, key)
                if text := timing.left([*held, *pending[place + 1 :]]):
                    progress.set_postfix_str(text)
            if len(held) == len(pending):
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            pending = held


def compute_free_cells(run: EvaluationRun, keys: Sequence[CellKey], *, until: float = math.inf) -> None:
    """Computes cells in their order that no other process has or computes, and waits for none.

    [`evaluate_methods`] goes on where this stopped. Several processes may call it, each with an order of its own.

    Args:
        run: Evaluation that the cells are of, as [`prepare_evaluation`] gives it.
        keys: Keys of cells, the most important first.
        until: Time (seconds since the epoch) from which on no cell is begun.
    """
    started = time.time()
    with _quick_collection():
        for key in keys:
            if time.time() >= until:
                return
            _is_done_or_computed(run, key, started)


def _is_done_or_computed(run: EvaluationRun, key: CellKey, started: float) -> bool:
    """Computes a cell if it is free; returns whether it is finished, or failed since the start."""
    files = run.files
    if files.is_finished(key) or files.failed_since(key, started):
        return True
    with files.claimed(key) as is_mine:
        if not is_mine or files.failed_since(key, started):
            return files.is_finished(key) or files.failed_since(key, started)
        try:
            files.write(key, compute_cell(run, key))
        except Exception as error:  # whatever it is, the other cells can do without this one
            files.write_failure(key, error)
            logger.warning("The cell %s failed: %s", "/".join(map(str, key)), files.failure(key))
        finally:
            gc.collect()  # trainers are cycles, and hold a copy of the model
            # PyTorch keeps what a cell used in pieces of its sizes, which fit no other cell and no other process.
            clear_device_cache()
    return True


def _seconds_of(run: EvaluationRun, key: CellKey) -> float:
    content = run.files.read(key)
    return 0.0 if content is None else sum(content["cell"]["seconds"].values())


@contextmanager
def _quick_collection() -> Iterator[None]:
    """Keeps `gc.collect` from looking at older objects, so that it takes milliseconds in place of half a second."""
    if gc.get_freeze_count():  # the application keeps its own objects from it, and what it froze stays so
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Timing:
    """Seconds of work by cell: of the cells that were finished before the start, and of those finished since."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.before: dict[CellKey, float] = {}
        self.since: dict[CellKey, float] = {}

    def left(self, pending: Sequence[CellKey]) -> str:
        """The time that the pending cells will take, for people; nothing where no cell says how long one takes."""
        worked = sum(self.since.values())
        if not worked:
            return ""
        # Cells of other processes count, too: the more processes work, the sooner all is done.
        rate = worked / (time.time() - self.started)
        seconds = self._expected(pending) / rate
        if seconds < 100:
            return f"about {seconds:.0f} s left"
        return f"about {seconds / 60:.0f} min left" if seconds < 6000 else f"about {seconds / 3600:.1f} h left"

    def _expected(self, pending: Sequence[CellKey]) -> float:
        """Seconds of the pending cells, as finished ones of the same method and task took, else of the method, else of any."""
        samples: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for key, seconds in {**self.before, **self.since}.items():
            for group in _groups(key):
                samples[group].append(seconds)
        total = 0.0
        for key in pending:
            group = next(group for group in _groups(key) if group in samples)
            total += sum(samples[group]) / len(samples[group])
        return total


def _groups(key: CellKey) -> tuple[tuple[str, ...], ...]:
    return (key.method, key.task), (key.method,), ()
