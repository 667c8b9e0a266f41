"""What each of two processes of a launcher does that share a benchmark; run by `tests/evaluation/test_runner.py`."""

import os
from pathlib import Path

from evaluation_cases import ADAPTATION, methods, tasks

from recross_hf import ReCrossPipeline, evaluate_methods
from recross_hf.core.distributed import leave_process_group


def main(rank: int, folder: Path) -> None:
    # Nobody listens at the port: the processes do not talk.
    group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    os.environ.update({name: str(value) for name, value in group.items()})
    assert leave_process_group() == rank
    pipeline = ReCrossPipeline.from_pretrained(folder / "pipeline")
    results = evaluate_methods(
        pipeline, tasks(), methods(pipeline), folder / "shared", settings=ADAPTATION, show_progress=False
    )
    results.save(folder / f"rank-{rank}")
