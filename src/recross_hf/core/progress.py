"""Progress bars that `TQDM_DISABLE` switches off, also where the library says itself when one is worth showing."""

from __future__ import annotations

import os
from typing import Any

from tqdm.auto import tqdm


def progress_bar(*args: Any, is_shown: bool = True, **settings: Any) -> tqdm:
    """A bar of `tqdm`.

    `tqdm` reads its variables when it is imported, and what a call says overrides them: whoever asks for quiet later, as
    `recross --quiet` does, would still see bars.

    Args:
        args: What to go through, if anything.
        is_shown: Whether a bar is worth showing; where `TQDM_DISABLE=1` none is.
        settings: Passed to `tqdm`.
    """
    return tqdm(*args, disable=not is_shown or os.environ.get("TQDM_DISABLE") == "1", **settings)
