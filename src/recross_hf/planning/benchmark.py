"""What a benchmark will take: one cell of each method is computed, in earnest and in a folder of its own, and extrapolated."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..evaluation.methods import Method
from ..evaluation.runner import evaluate_methods, prepare_benchmark
from ..evaluation.tasks import TargetTask
from ..pipeline.pipeline import ReCrossPipeline
from .plan import Plan, Room, Seconds, peak_device_memory, peak_memory, reset_peak_device_memory

# Stages of a cell that take as long as the test set is; the others depend on what is retrieved.
_BY_TEST_SET = ("predict", "rank")


def plan_benchmark(
    pipeline: ReCrossPipeline,
    tasks: Sequence[TargetTask],
    methods: Sequence[Method],
    output_dir: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    on_overlap: str = "refuse",
    show_progress: bool = True,
) -> Plan:
    """What [`evaluate_methods`] with these arguments will take, all cells of it, those that are finished already included.

    Each method is run on one query set of the task whose test set is of middling size. How tasks differ in the length of their texts
    is not known from one, so that half and twice the time are given as its range. Nothing is written below `output_dir`.

    Raises:
        RuntimeError: a method fails on that task.
        OverlapError, CellMismatchError, ValueError, TypeError: as [`evaluate_methods`] raises them, of all tasks.
    """
    run = prepare_benchmark(pipeline, tasks, methods, output_dir, settings=settings, on_overlap=on_overlap)
    keys, tested = run.keys(), list(run.tasks.values())
    task = sorted(tested, key=lambda task: len(task.test))[len(tested) // 2]
    device = run.device
    room = Room.of(output_dir, device)
    reset_peak_device_memory(device)
    with tempfile.TemporaryDirectory() as folder:
        probed = evaluate_methods(
            pipeline,
            [replace(task, query_sets=list(task.query_sets)[:1])],
            methods,
            folder,
            settings=settings,
            on_overlap=on_overlap,
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
    disk = round(written * len(keys))
    return Plan(
        work=f"{len(keys):,} cells: {len(methods)} methods, {len(tested)} tasks, {num_sets} query sets in all",
        probe=f"{len(cells)} cells of {task.name}",
        seconds=Seconds(seconds, seconds / 2, seconds * 2),
        shared=1.0,
        memory=peak_memory(),
        device_memory=peak_device_memory(device),
        disk=disk,
        kept=disk,
        room=room,
        advice={
            "memory": "Use fewer processes, smaller batches or LoRA (--use_peft).",
            "device_memory": "Use smaller batches (--per_device_train_batch_size), --bf16 or LoRA (--use_peft).",
            "disk": "Write to a larger disk, or compare fewer methods.",
        },
    )
