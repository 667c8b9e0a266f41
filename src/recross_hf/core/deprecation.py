"""Arguments that were renamed: the old name works for one release and warns."""

from __future__ import annotations

import warnings
from typing import TypeVar

_Value = TypeVar("_Value")


def renamed_argument(old: str, new: str, value: _Value) -> _Value:
    """Returns the value of an argument that was passed by its old name, with a `DeprecationWarning` for the caller's caller."""
    warnings.warn(
        f"The argument `{old}` is now `{new}`. Use the new name: the old one goes with the next release.",
        DeprecationWarning,
        stacklevel=3,
    )
    return value
