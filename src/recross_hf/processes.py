"""The processes of `accelerate launch`, and what their device is slow at."""

from __future__ import annotations

import functools
import logging
import time

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

logger = logging.getLogger(__name__)


def process_state() -> PartialState:
    """Which process this is, of how many, and its device.

    `PartialState()` alone overlooks `ACCELERATE_USE_CPU`, so that each of several CPU processes would think itself alone.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def bfloat16_slowdown(size: int = 256) -> float:
    """How many times as long a matrix product takes on this CPU in bfloat16 as in float32.

    It is tried out, which takes some milliseconds: what torch says of a chip changes from version to version, and is "supported" also
    where float32 is faster. Without instructions for it, torch computes number by number, and the factor is ten and more.
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
            "Compute in float32: `bf16=False` (--bf16 false), `autocast_dtype=None`.",
            slowdown,
        )
