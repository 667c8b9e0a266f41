"""What a benchmark will take: one cell of each method is computed, in earnest and in a folder of its own, and extrapolated."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .evaluation import evaluate_methods
from .methods import Method
from .pipeline import ReCrossPipeline
from .plan import Plan, Room, Seconds, existing_folder, peak_memory
from .target_tasks import TargetTask

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
    is not known from one, so that half and twice the time are given as its range.

    Raises:
        RuntimeError: a method fails on that task.
        OverlapError, ValueError, TypeError: as [`evaluate_methods`] raises them.
    """
    task = sorted(tasks, key=lambda task: len(task.test))[len(tasks) // 2]
    with tempfile.TemporaryDirectory(dir=existing_folder(output_dir)) as folder:
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
    tested = len(probed.predictions.filter(lambda row: row["method"] == cells[0].method))
    num_sets = sum(len(other.query_sets) for other in tasks)
    times_tested = sum(len(other.test) * len(other.query_sets) for other in tasks) / tested
    once_tested = sum(len(other.test) for other in tasks) / tested
    seconds, num_cells = [], 0
    for cell in cells:
        is_base = cell.kind == "base"
        by_test_set = sum(cell.seconds.get(stage, 0.0) for stage in _BY_TEST_SET)
        others = sum(cell.seconds.values()) - by_test_set
        number = len(tasks) if is_base else num_sets
        seconds.append(others * number + by_test_set * (once_tested if is_base else times_tested))
        num_cells += number
    disk = round(written * num_cells)
    return Plan(
        work=f"{num_cells:,} cells: {len(methods)} methods, {len(tasks)} tasks, {num_sets} query sets in all",
        probe=f"{len(cells)} cells of {task.name}",
        seconds=Seconds(sum(seconds), sum(seconds) / 2, sum(seconds) * 2),
        shared=1.0,
        memory=peak_memory(),
        device_memory=None,
        disk=disk,
        kept=disk,
        room=Room.of(output_dir),
        advice={
            "memory": "Use fewer processes, smaller batches or LoRA (--use_peft).",
            "disk": "Write to a larger disk, or compare fewer methods.",
        },
    )
