"""Figures that need no display."""

from __future__ import annotations

from typing import Any


def new_figure(width: float, height: float) -> Any:
    """Makes a figure of matplotlib that needs no display and is no part of pyplot's state.

    Args:
        width: Width in inches.
        height: Height in inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib, which is not installed: pip install 'recross_hf[plot]'."
        ) from error
    return Figure(figsize=(width, height), layout="constrained")
