"""Processes forked from the tests' own, which has imported what they need; those of a launcher take seconds to do that."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.multiprocessing import start_processes


def fork(function: Callable[..., None], *arguments: object, number: int = 1, timeout: float = 300) -> None:
    """Waits for `function(rank, *arguments)` in so many processes.

    Raises:
        ProcessRaisedException: one of them raised; the others were ended.
        ProcessExitedException: one of them ended otherwise, by a signal for one; the others were ended.
    """
    started = start_processes(_begin, (function, arguments), nprocs=number, join=False, start_method="fork")
    deadline = time.monotonic() + timeout
    while not started.join(timeout=1):
        if time.monotonic() > deadline:
            for process in started.processes:
                process.kill()
            pytest.fail(f"The processes did not end in {timeout} seconds.")


def fork_group(function: Callable[..., None], *arguments: object) -> None:
    """Waits for `function(*arguments)` in two processes of one group, as a launcher starts them on a CPU."""
    with tempfile.TemporaryDirectory() as folder:
        fork(_join_group, function, Path(folder) / "rendezvous", arguments, number=2)


def _begin(rank: int, function: Callable[..., None], arguments: tuple) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # what the tests' process found is not so here
    function(rank, *arguments)


def _join_group(rank: int, function: Callable[..., None], rendezvous: Path, arguments: tuple) -> None:
    number = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ.update({name: str(value) for name, value in number.items()}, ACCELERATE_USE_CPU="true")
    # A file, and no port that other tests could take at the same time.
    store = torch.distributed.FileStore(str(rendezvous), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    function(*arguments)
