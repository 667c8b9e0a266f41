"""The processes of `accelerate launch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env

Result = TypeVar("Result")


def process_state() -> PartialState:
    """Which process this is, of how many, and its device.

    `PartialState()` alone overlooks `ACCELERATE_USE_CPU`, so that each of several CPU processes would think itself alone.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


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
