"""`Table`: rows under a header, as Markdown, LaTeX, CSV or plain text; and the text of single cells."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MISSING = "-"
"""A missing value, as tables show it."""


class Change(float):
    """A difference: shown with its sign."""


TableCell = str | float | int | None
"""Text, a number, or None for a missing value."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
} | {character: f"\\{character}" for character in "&%$#_{}"}
# An underscore is emphasis at the edge of a word only.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|#~$]|(?<!\w)_|_(?!\w)")
_ENTITY = re.compile(r"&(?=\w+;)")
_HASH = re.compile(r"[0-9a-f]{64}")
# Spreadsheets take text that starts like this for a formula.
_FORMULA = ("=", "+", "-", "@")


@dataclass(frozen=True)
class Table:
    """Rows under a header.

    Args:
        name: Name of the files that the table is written to.
        header: Names of the columns.
        rows: Rows of as many cells as there are columns.
        caption: Sentence on what the table shows.
        notes: Sentences on some of its cells.
        bold: Row and column of each cell to stress.
    """

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    caption: str = ""
    notes: Sequence[str] = ()
    bold: frozenset[tuple[int, int]] = frozenset()

    def texts(self) -> list[list[str]]:
        """The cells of all rows as they are shown: two decimals, a dash for a missing value."""
        return [[_shown(cell) for cell in row] for row in self.rows]

    def is_text(self) -> list[bool]:
        """Whether each column holds text, which stands to the left."""
        return [any(isinstance(row[column], str) for row in self.rows) for column in range(len(self.header))]

    def to_markdown(self) -> str:
        """The table as GitHub reads it, with the caption above and the notes below."""
        texts = [[escape_markdown(text) for text in row] for row in self.texts()]
        for row, column in self.bold:
            texts[row][column] = f"**{texts[row][column]}**"
        rules = ["---" if is_text else "---:" for is_text in self.is_text()]
        table = markdown_rows([[escape_markdown(name) for name in self.header], rules, *texts])
        notes = "\n".join(f"- {escape_markdown(note)}" for note in self.notes)
        return "\n\n".join(block for block in (escape_markdown(self.caption), table, notes) if block) + "\n"

    def to_latex(self) -> str:
        """The table with the rules of the package booktabs."""
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
        """The rows with four decimals, and nothing where a value is missing.

        Text that a spreadsheet would run as a formula gets an apostrophe.
        """
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(_csv, self.header))
        writer.writerows([_csv(cell) for cell in row] for row in self.rows)
        return file.getvalue()

    def to_text(self) -> str:
        """The rows for a terminal: the first column to the left, the others to the right."""
        table = [[_one_line(text) for text in row] for row in (self.header, *self.texts())]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        first, *others = (
            "  ".join(
                text.rjust(width) if column else text.ljust(width)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        )
        return "\n".join([first, "-" * (sum(widths) + 2 * (len(widths) - 1)), *others])


def format_table(header: Sequence[str], rows: Sequence[Sequence[TableCell]]) -> str:
    """[`Table.to_text`] of rows that are not written to a file."""
    return Table("", header, rows).to_text()


def markdown_rows(rows: Iterable[Sequence[str]]) -> str:
    """Rows of a Markdown table; text of others goes through [`escape_markdown`] first."""
    return "\n".join("".join(f"| {text} " if text else "| " for text in row) + "|" for row in rows)


def escape_markdown(text: str) -> str:
    """The text as one line of Markdown that no table, link, markup, formula or header can come of."""
    return _ENTITY.sub("&amp;", _MARKDOWN.sub(r"\\\g<0>", _one_line(text)))


def shortened(value: object, length: int) -> str:
    """A value as text for readers: a list is joined, and a hash is cut to its first characters, other text to `length`."""
    if isinstance(value, list):
        value = ", ".join(shortened(entry, length) for entry in value) or "none"
    text = str(value)
    if _HASH.fullmatch(text):
        return f"{text[:12]}..."
    return text if len(text) <= length else f"{text[:length]}..."


def _one_line(text: str) -> str:
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


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


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in _one_line(text))
