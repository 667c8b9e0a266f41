"""What was adapted, mined or trained, for people to read: shares by task, tables, pictures."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of text under a header, the first column to the left and the others to the right."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = []
    for row in table:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])


MISSING = "-"


class Change(float):
    """A difference: shown with its sign."""


TableCell = str | float | int | None
"""Text, a number, or None for what is missing."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
} | {character: f"\\{character}" for character in "&%$#_{}"}
_MARKDOWN = re.compile(r"([\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_]))")
# What spreadsheets take for a formula.
_FORMULA = ("=", "+", "-", "@")


@dataclass(frozen=True)
class Table:
    """Rows under a header.

    Args:
        name: of its files.
        header: of each column.
        rows: of as many cells.
        caption: what it shows.
        notes: what to know about some of its cells.
        bold: row and column of cells to stress.
    """

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    caption: str = ""
    notes: Sequence[str] = ()
    bold: frozenset[tuple[int, int]] = frozenset()

    def texts(self) -> list[list[str]]:
        """The cells of all rows as they are shown: two decimals, a dash for what is missing."""
        return [[_shown(cell) for cell in row] for row in self.rows]

    def is_text(self) -> list[bool]:
        """Of each column, whether it holds text, which stands to the left."""
        return [any(isinstance(row[column], str) for row in self.rows) for column in range(len(self.header))]

    def to_markdown(self) -> str:
        """As GitHub reads it, the caption above and the notes below."""
        texts = [[_markdown(text) for text in row] for row in self.texts()]
        for row, column in self.bold:
            texts[row][column] = f"**{texts[row][column]}**"
        rules = ["---" if is_text else "---:" for is_text in self.is_text()]
        rows = [[_markdown(name) for name in self.header], rules, *texts]
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        notes = [f"- {_markdown(note)}" for note in self.notes]
        blocks = [_markdown(self.caption), "\n".join(lines), "\n".join(notes)]
        return "\n\n".join(block for block in blocks if block) + "\n"

    def to_latex(self) -> str:
        """With the rules of the package booktabs."""
        texts = [[_latex(text) for text in row] for row in self.texts()]
        for row, column in self.bold:
            texts[row][column] = rf"\textbf{{{texts[row][column]}}}"
        columns = "".join("l" if is_text else "r" for is_text in self.is_text())
        rows = [" & ".join(row) + r" \\" for row in texts]
        notes = [rf"\par\footnotesize {_latex(note)}" for note in self.notes]
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{_latex(self.caption)}}}",
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                " & ".join(map(_latex, self.header)) + r" \\",
                r"\midrule",
                *rows,
                r"\bottomrule",
                r"\end{tabular}",
                *notes,
                r"\end{table}",
                "",
            ]
        )

    def to_csv(self) -> str:
        """With four decimals; empty where something is missing. Text that a spreadsheet would run is quoted by an apostrophe."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(_csv, self.header))
        writer.writerows([_csv(cell) for cell in row] for row in self.rows)
        return file.getvalue()


def _shown(cell: TableCell) -> str:
    if cell is None:
        return MISSING
    if isinstance(cell, Change):
        return f"{cell:+.2f}"
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)


def _csv(cell: TableCell) -> str:
    if isinstance(cell, str):
        return f"'{cell}" if cell.startswith(_FORMULA) else cell
    if cell is None:
        return ""
    return f"{cell:.4f}" if isinstance(cell, float) else str(cell)


def _markdown(text: str) -> str:
    text = _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
