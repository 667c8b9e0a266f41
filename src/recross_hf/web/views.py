"""What the page shows as HTML; whatever comes from a visitor, a model or an index is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined

from ..retrieval.index_map import IndexMap
from .retrieved import Found

_LONGEST_HEAD = 280
_LONGEST_TEXT_IN_PICTURE = 140
_COLOURED_TASKS = 5
YOURS, OTHERS = "your inputs", "other tasks"
# Near to those of Okabe and Ito (2008), which people with any kind of sight tell apart, and as well seen on dark as on light.
COLOURS = ("#2f8fd0", "#00a878", "#d98e00", "#8e7cff", "#a0742a")
COLOUR_OF_YOURS, COLOUR_OF_OTHERS = "#f0308c", "#8a8a96"


def _head(text: str, most: int = _LONGEST_HEAD) -> str | None:
    """The beginning of a text that is too long to be shown at once."""
    return None if len(text) <= most else text[:most].rstrip()


def _parts() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["head"] = _head
    source = resources.files(__package__).joinpath("views.html").read_text(encoding="utf-8")
    return environment.from_string(source).module


_PARTS = _parts()


def shown(part: str, *values: Any) -> str:
    """A part of the page, one of the macros of `views.html`.

    Args:
        part: Name of the macro.
        values: Its arguments.
    """
    return str(getattr(_PARTS, part)(*values))


def picture_of(index_map: IndexMap, found: Found | None, texts: Sequence[str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The points of the picture of the index, and the colours of their groups: the tasks that were found, the others, and the inputs.

    Args:
        index_map: The picture of the index.
        found: What was retrieved, if anything was.
        texts: The inputs.
    """
    coloured = list(found.shares)[:_COLOURED_TASKS] if found is not None else []
    tasks = index_map.examples["task"][:]
    rows = [
        {"group": task if task in coloured else OTHERS, "task": task, "text": _shortened(text)}
        for task, text in zip(tasks, index_map.examples["input"][:], strict=True)
    ]
    places = index_map.points.astype(np.float64)  # which rounds to numbers that are short
    if found is not None:
        rows += [{"group": YOURS, "task": YOURS, "text": _shortened(text)} for text in texts]
        places = np.concatenate([places, found.places])
    frame = pd.DataFrame(rows)
    frame["x"], frame["y"] = places[:, 0].round(3), places[:, 1].round(3)
    # What is drawn later lies above.
    order = {OTHERS: 0, YOURS: 2}
    frame = frame.sort_values("group", key=lambda groups: groups.map(lambda group: order.get(group, 1)), kind="stable")
    colours: Mapping[str, str] = dict(zip(coloured, COLOURS, strict=False))
    return frame, {OTHERS: COLOUR_OF_OTHERS, **colours, YOURS: COLOUR_OF_YOURS}


def _shortened(text: str) -> str:
    return f"{head}…" if (head := _head(text, _LONGEST_TEXT_IN_PICTURE)) is not None else text
