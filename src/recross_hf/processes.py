"""The processes of `accelerate launch`."""

from __future__ import annotations

from datetime import timedelta

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def process_state(timeout: timedelta | None = None) -> PartialState:
    """Which process this is, of how many, and its device.

    `PartialState()` alone overlooks `ACCELERATE_USE_CPU`, so that each of several CPU processes would think itself alone.

    Args:
        timeout: how long processes wait for one another before they give up, where this is a process's first call; by
            default what torch takes, 10 minutes on GPUs.
    """
    waiting = {} if timeout is None else {"timeout": timeout}
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), **waiting)
