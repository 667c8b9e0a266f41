"""Devices and data types as a caller names them: those that there are, said before anything is loaded."""

from __future__ import annotations

import torch

from .distributed import process_state

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def device_of(device: str | int | torch.device | None) -> torch.device:
    """The device of this name; None stands for Accelerate's choice.

    Raises:
        ValueError: There is no such device here.
    """
    if device is None:
        chosen: torch.device = process_state().device
        return chosen
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise ValueError(
            f"Expected `device` to be one that is here, such as {', '.join(here)}, found {device!r}: {str(error).partition(chr(10))[0]}. "
            "Name one of those, or leave `device` out."
        ) from error
    return found


def dtype_of(dtype: str | torch.dtype) -> torch.dtype:
    """The data type of a model's weights: one of torch's, or its name, such as "bfloat16".

    Raises:
        ValueError: There is no such type, or weights cannot have it.
    """
    named = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(named, torch.dtype) or named not in _DTYPES:
        raise ValueError(
            f"Expected `dtype` to be {', '.join(map(str, _DTYPES[:-1]))} or {_DTYPES[-1]}, found {dtype!r}. Leave it out for "
            "torch.float32."
        )
    return named
