"""What a command shows: how much of it, and tables and colour where somebody looks at a terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

# Their news is for those who write programs with them.
_OF_THE_STACK = ("transformers", "accelerate", "datasets", "evaluate", "huggingface_hub", "peft", "torch")
_LEVELS_OF = {"TRANSFORMERS_VERBOSITY": "error", "DATASETS_VERBOSITY": "error", "HF_HUB_VERBOSITY": "error"}


class Volume(Enum):
    """How much a command says besides its result."""

    QUIET = "nothing"
    NORMAL = "bars of what takes time, and what the library warns of"
    VERBOSE = "what the stack has to say, too"

    @classmethod
    def of(cls, *, is_quiet: bool, is_verbose: bool) -> Volume:
        """The volume that flags ask for; of both, the louder."""
        return cls.VERBOSE if is_verbose else cls.QUIET if is_quiet else cls.NORMAL


@contextlib.contextmanager
def set_up(volume: Volume) -> Iterator[None]:
    """Keeps the stack quiet, unless it was asked for or its own variables (`TRANSFORMERS_VERBOSITY`, ...) say otherwise.

    Logging stays as it was set: a process runs one command. The filters of warnings are put back.
    """
    logging.basicConfig(format="%(message)s")
    if volume is Volume.VERBOSE:
        yield
        return
    asked = {name for name in _LEVELS_OF if os.environ.get(name, "error") != "error"}
    os.environ.update({name: level for name, level in _LEVELS_OF.items() if name not in asked})
    for name in _OF_THE_STACK:
        if f"{name.upper().removeprefix('HUGGINGFACE_')}_VERBOSITY" not in asked:
            logging.getLogger(name).setLevel(logging.ERROR)
    if volume is Volume.QUIET:
        logging.getLogger("recross_hf").setLevel(logging.ERROR)
        os.environ["TQDM_DISABLE"] = "1"
    _silence_bars(is_quiet=volume is Volume.QUIET)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(?!recross_hf)")
        yield


def is_quiet() -> bool:
    """Whether nothing but the result is to be shown."""
    return os.environ.get("TQDM_DISABLE") == "1"


def _silence_bars(*, is_quiet: bool) -> None:
    """Bars of the stack that last a moment are switched off; those of the library, and of trainings, are off where it is to be quiet."""
    if (transformers := sys.modules.get("transformers")) is not None:
        transformers.utils.logging.disable_progress_bar()
    if (hub := sys.modules.get("huggingface_hub")) is not None:
        if is_quiet:
            hub.utils.disable_progress_bars()
        elif hub.constants.HF_HUB_DISABLE_PROGRESS_BARS is None:  # which nobody can override
            hub.utils.enable_progress_bars()  # transformers has switched off those of the Hub, too: gigabytes take long
    if is_quiet and (datasets := sys.modules.get("datasets")) is not None:
        datasets.disable_progress_bars()


def show(text: str) -> None:
    """Prints a report: as it is, or with its tables drawn and its numbers coloured where standard output is a terminal."""
    if not sys.stdout.isatty():
        print(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(highlight=False)
    blocks = [block.strip("\n") for block in text.split("\n\n")]
    for number, block in enumerate(block for block in blocks if block):
        if number or text.startswith("\n"):
            console.print()
        shown = Markdown(block) if block.startswith("| ") else _table(block) or block
        console.print(shown, markup=False)


def _table(block: str) -> Table | None:
    """A block of text as a table of `rich`, where it is a table: a header, a line of dashes, and rows."""
    header, *rows = block.splitlines()
    if len(rows) < 2 or set(rows[0]) != {"-"}:
        return None
    from rich import box
    from rich.table import Table
    from rich.text import Text

    names = re.split(r"\s{2,}", header.rstrip())  # that of the first column may be empty
    cells = [re.split(r"\s{2,}", row.strip()) for row in rows[1:]]
    if any(len(row) > len(names) for row in cells):
        return None
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False)
    for number, name in enumerate(names):
        is_text = any(len(row) > number and not re.match(r"[+-]?[\d,.]", row[number]) for row in cells)
        table.add_column(name, justify="left" if is_text else "right")
    for row in cells:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    return table


def _style(cell: str) -> str:
    """A gain is green, and a loss is red."""
    return {"+": "green", "-": "red"}[cell[0]] if re.match(r"[+-]\d", cell) else ""
