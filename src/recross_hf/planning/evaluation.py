"""The plan of an evaluation: one cell of each method is computed, in earnest and in a folder of its own, and extrapolated."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..evaluation.methods import Method
from ..evaluation.run import prepare_evaluation
from ..evaluation.runner import evaluate_methods
from ..evaluation.tasks import TargetTask
from ..pipeline.pipeline import ReCrossPipeline
from .plan import Plan, TimeEstimate
from .resources import reset_peak_device_memory

# These stages of a cell take as long as the test set is; the others depend on the examples that are retrieved.
_BY_TEST_SET = ("predict", "rank")


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

    Each method is run on one query set of the task whose test set is of middling size. The lengths of other tasks' texts are not
    known from one, so that half and twice the time are given as the range. Nothing is written below `output_dir`.

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
    seconds = 0.0
    for cell in cells:
        to_test = [len(run.tasks[key.task].test) for key in keys if key.method == cell.method]
        by_test_set = sum(cell.seconds.get(stage, 0.0) for stage in _BY_TEST_SET)
        others = sum(cell.seconds.values()) - by_test_set
        seconds += others * len(to_test) + by_test_set * sum(to_test) / len(task.test)
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
