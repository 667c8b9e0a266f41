"""The processes of `accelerate launch`."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env

Result = TypeVar("Result")

# What tells a process of `accelerate launch` or `torchrun` of the others.
_OF_THE_GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


def process_state(timeout: timedelta | None = None) -> PartialState:
    """Which process this is, of how many, and its device.

    `PartialState()` alone overlooks `ACCELERATE_USE_CPU`, so that each of several CPU processes would think itself alone.

    Args:
        timeout: how long processes wait for one another before they give up, where this is a process's first call; by
            default what torch takes, 10 minutes on GPUs.
    """
    waiting = {} if timeout is None else {"timeout": timeout}
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), **waiting)


def agreed(call: Callable[[], Result]) -> Result:
    """What a call gives in the main process, for all processes; each of them must ask for it.

    Raises:
        OSError: what the call raises in the main process, in all of them: none waits for one that has failed.
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
    result, error = outcome
    if error is not None:
        raise error
    return result


def leave_process_group() -> int:
    """Makes a process of `accelerate launch` one of its own, with the GPU that was meant for it.

    For work that processes share out without talking to one another: there is no collective that the end of one of them would
    leave the others waiting in. Call it before anything asks for the device.

    Returns:
        Which process it was; 0 is the main one, and one that was started alone.

    Raises:
        RuntimeError: it is part of its group already.
    """
    if PartialState._shared_state:
        raise RuntimeError(
            "Expected a process that has not asked for its device or its group yet, found one that has. Call "
            "`leave_process_group` first of all."
        )
    found = {name: os.environ.pop(name) for name in _OF_THE_GROUP if name in os.environ}
    if "LOCAL_RANK" in found and torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
        # More processes than GPUs share them.
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[int(found["LOCAL_RANK"]) % len(devices)]
    return int(found.get("RANK", 0))
