"""The plan of an evaluation: one cell of each method is computed, in earnest and in a folder of its own, and extrapolated."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..evaluation.cells import CellKey
from ..evaluation.methods import Method
from ..evaluation.results import Cell
from ..evaluation.run import prepare_evaluation
from ..evaluation.runner import evaluate_methods
from ..evaluation.tasks import TargetTask
from ..pipeline.pipeline import ReCrossPipeline
from .plan import Plan, TimeEstimate
from .resources import reset_peak_device_memory
from .text_lengths import TextLengths

_SHARE_OF_LOOKING = 0.25
"""Of the time of trying out, the share that retrieving for the other tasks may take, to see how long the texts are that they learn from."""


def plan_evaluation(
    pipeline: ReCrossPipeline,
    tasks: Sequence[TargetTask],
    methods: Sequence[Method],
    output_dir: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    on_overlap: str = "refuse",
    signals: bool = False,
    show_progress: bool = True,
) -> Plan:
    """Plans [`evaluate_methods`] with the same arguments, in all its cells: those that are finished already are included.

    Each method is run on one query set of the task whose test set is of middling size. Elsewhere a training takes as much longer as the examples
    retrieved for that task are, and predictions as the test inputs are. Half and twice the time are given as the range, for one cell of each method
    is little to go by. Nothing is written below `output_dir`.

    Args:
        pipeline: The pipeline.
        tasks: Target tasks, with the test examples and query sets to use.
        methods: Methods to compare.
        output_dir: Folder that the evaluation writes to.
        settings: Fields of [`AdaptationArguments`] for all methods, beside those of the pipeline.
        on_overlap: Handling of test examples that are queries or upstream: "refuse", "drop" or "report".
        signals: Whether the signals of each adaptation are recorded.
        show_progress: Whether to show a progress bar.

    Returns:
        The plan.

    Raises:
        RuntimeError: A method fails on that task.
        OverlapError: Test examples are queries or upstream, and `on_overlap` is "refuse".
        CellMismatchError: `output_dir` has a cell of other settings.
        ValueError: Names repeat, the pipeline is adapted already, or settings are out of range.
        TypeError: There is no such setting.
    """
    run = prepare_evaluation(
        pipeline, tasks, methods, output_dir, settings=settings, on_overlap=on_overlap, signals=signals
    )
    keys, tested = run.keys(), list(run.tasks.values())
    task = sorted(tested, key=lambda task: len(task.test))[len(tested) // 2]
    reset_peak_device_memory(run.device)
    with tempfile.TemporaryDirectory() as folder:
        probed = evaluate_methods(
            pipeline,
            [replace(task, query_sets=list(task.query_sets)[:1])],
            methods,
            folder,
            settings=settings,
            on_overlap=on_overlap,
            signals=signals,
            show_progress=show_progress,
        )
        cells = [cell for cell in probed.cells if cell.kind != "floor"]
        if failed := next((cell for cell in cells if cell.error is not None), None):
            raise RuntimeError(f"The method {failed.method} fails on {failed.task}: {failed.error}")
        written = sum(path.stat().st_size for path in Path(folder).rglob("*.json")) / len(cells)
    lengths = TextLengths(run, _SHARE_OF_LOOKING * sum(sum(cell.seconds.values()) for cell in cells))
    seconds = sum(_seconds(lengths, cell, [key for key in keys if key.method == cell.method]) for cell in cells)
    num_sets = sum(len(task.query_sets) for task in tested)
    return Plan.after_probe(
        output_dir,
        run.device,
        work=f"{len(keys):,} cells: {len(methods)} methods, {len(tested)} tasks, {num_sets} query sets in all",
        probe=f"{len(cells)} cells of {task.name}",
        seconds=TimeEstimate(seconds, seconds / 2, seconds * 2),
        disk=round(written * len(keys)),
        advice={
            "memory": "Use fewer processes, smaller batches or LoRA (--use_peft).",
            "device_memory": "Use smaller batches (--per_device_train_batch_size), --bf16 or LoRA (--use_peft).",
            "disk": "Write to a larger disk, or compare fewer methods.",
        },
    )


def _seconds(lengths: TextLengths, tried: Cell, keys: Sequence[CellKey]) -> float:
    """Seconds of all cells of a method, by those of one of them."""
    own = CellKey(tried.method, tried.task, tried.query_set)
    found = 0.0
    for stage, seconds in tried.seconds.items():
        length = {"train": lengths.learned, "predict": lengths.answered, "rank": lengths.ranked}.get(stage)
        if length is None or not (of_own := length(own)):
            found += seconds * len(keys)
        else:
            found += seconds * sum(length(key) for key in keys) / of_own
    return found
