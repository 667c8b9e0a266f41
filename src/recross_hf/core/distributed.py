"""The processes of `accelerate launch`, and a warning where their device is slow."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env

from ._compat import has_process_state

Result = TypeVar("Result")

# Variables that tell a process of `accelerate launch` or `torchrun` of the others.
_OF_THE_GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")

# A thread settles within microseconds where a core is free.
_SETTLING_S = 0.5

logger = logging.getLogger(__name__)


def process_state(timeout: timedelta | None = None) -> PartialState:
    """The number of this process, how many there are, and the device of this one.

    `PartialState()` alone overlooks `ACCELERATE_USE_CPU`, so that each of several CPU processes would think itself alone.

    Args:
        timeout: How long processes wait for one another before they give up, where this is a process's first call; by
            default what torch takes, 10 minutes on GPUs.
    """
    waiting = {} if timeout is None else {"timeout": timeout}
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), **waiting)


def agreed(call: Callable[[], Result]) -> Result:
    """What a call gives in the main process, for all processes; each of them must ask for it.

    Args:
        call: A function that the main process alone calls; what it gives is pickled for the others.

    Raises:
        OSError: The call raised it in the main process; all processes raise it, so that none waits for one that has failed.
    """
    state = process_state()
    if state.num_processes == 1:
        return call()
    outcome: list[Any] = [None, None]
    if state.is_main_process:
        try:
            outcome[0] = call()
        except OSError as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    result: Result = outcome[0]
    return result


def leave_process_group() -> int:
    """Makes a process of `accelerate launch` one of its own, with the GPU that was meant for it.

    Processes that share work out without talking to one another need no group: there is no collective that the end of one of
    them would leave the others waiting in. Call this before anything asks for the device.

    Returns:
        The number of the process in its group; the main process, and one that was started alone, is 0.

    Raises:
        RuntimeError: The process is part of its group already.
    """
    if has_process_state():
        raise RuntimeError(
            "Expected a process that has not asked for its device or its group yet, found one that has. Call "
            "`leave_process_group` first of all."
        )
    group = {name: os.environ.pop(name) for name in _OF_THE_GROUP if name in os.environ}
    if "LOCAL_RANK" in group and torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
        # More processes than GPUs share them.
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[int(group["LOCAL_RANK"]) % len(devices)]
    return int(group.get("RANK", 0))


def end_process_group() -> None:
    """Waits for the other processes and ends their group: the processes of a script call it last. A second call does nothing.

    A thread of a gloo group may still hold tensors of the last collective, and needs the interpreter to let go of them. The
    group ends with its last user, and where that is a `DistributedDataParallel` model, torch waits for the thread without
    giving the interpreter up: both would wait for ever. So the thread is given its time here, before anything ends.
    """
    if not torch.distributed.is_initialized():
        return
    state = process_state()
    state.wait_for_everyone()
    time.sleep(_SETTLING_S)
    state.destroy_process_group()


def bfloat16_slowdown(size: int = 256) -> float:
    """How many times as long a matrix product takes on this CPU in bfloat16 as in float32.

    The product is tried out, which takes some milliseconds: what torch says of a chip changes from version to version, and is
    "supported" also where float32 is faster. Without instructions for bfloat16, torch computes number by number, and the factor
    is ten and more.

    Args:
        size: Rows and columns of the matrix.
    """
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(size, size, dtype=dtype)
        times = []
        for _ in range(4):  # the first one prepares; of the others the fastest was disturbed least
            start = time.perf_counter()
            torch.mm(matrix, matrix)
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times[1:])
    return seconds[torch.bfloat16] / seconds[torch.float32]


@functools.cache
def warn_where_bfloat16_is_slow(device_type: str) -> None:
    """Logs a warning, once and on the main process, where bfloat16 is asked for on a CPU that has no instructions for it."""
    if device_type != "cpu" or not process_state().is_main_process:
        return
    if (slowdown := bfloat16_slowdown()) > 2:
        logger.warning(
            "bfloat16 was asked for on a CPU without instructions for it: a matrix product took %.0f times as long as in float32. "
            "Compute in float32: `bf16=False` (--bf16 false), `autocast_dtype=None`; or hold the weights in it, `dtype` (--dtype float32).",
            slowdown,
        )
