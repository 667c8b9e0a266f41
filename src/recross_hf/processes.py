"""The processes of `accelerate launch`."""

from __future__ import annotations

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def process_state() -> PartialState:
    """Which process this is, of how many, and its device.

    `PartialState()` alone overlooks `ACCELERATE_USE_CPU`, so that each of several CPU processes would think itself alone.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
