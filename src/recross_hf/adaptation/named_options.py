"""The answers that an input itself names: options in lists, after letters, in quotes, or as the two answers to a yes-no question."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from ..soft_em import answer_key

_LONGEST_NAME = 3
"""Words of an option in running text. Where it begins there is not to be seen: "Is the guest positive or negative about us?" """
_MOST_OPTIONS = 50
_HEADING = re.compile(
    r"\b(?:options|choices|choose from|possible answers|answer choices|labels|categories|classes)\s*(?:are\s*)?[:=]",
    re.IGNORECASE,
)
_BULLET = re.compile(r"(?:^|\s)[-*\u2022]\s+")
_MARK = re.compile(r"(?:^|(?<=\s))(?:\(([A-Za-z]|\d{1,2})\)|([A-Za-z]|\d{1,2})[).:])\s+")
_QUOTED = re.compile(r"[\"\u201c\u2018'`]([^\"\u201c\u201d\u2018\u2019'`\n]{1,60})[\"\u201d\u2019'`]")
_BETWEEN_QUOTED = re.compile(r"\s*(?:[,;/|]|,?\s*\b(?:or|and)\b)\s*", re.IGNORECASE)
_SPLIT = re.compile(r"\s*(?:[,;|/]\s*(?:or|and)\b|[,;|/]|\b(?:or|and)\b)\s*", re.IGNORECASE)
_ALTERNATIVES = re.compile(r"\s*,\s*(?:or\s+)?|\s+or\s+", re.IGNORECASE)
_CLAUSE = re.compile(r"[.:;?!()\[\]\"\n]+(?=\s|$)|[:;()\[\]\"\n]")
_YES_NO = re.compile(
    r"^\W*(?:is|are|was|were|do|does|did|can|could|will|would|should|has|have|had|may|might|must|am)(?:n't)?\s",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^.?!\n]*[.?!\n]?")


def named_options(text: str, choices: Iterable[str] = ()) -> frozenset[str]:
    """The answers that an input names, as [`answer_key`] has them; none where it names no two.

    Lists after a heading ("Options: - a - b", "Choices: a, b or c"), after letters or numbers ("(A) a (B) b", "A. a", of which
    letter, text and both are answers), in quotes ("a" or "b"), alternatives in running text ("a, b or c") and yes-no questions
    are recognised. What is no option but might be one is among them: where an option begins in running text cannot be seen.

    Args:
        text: The input.
        choices: Answers that are known beside it.
    """
    found: set[str] = {answer_key(choice) for choice in choices}
    for options in (_listed(text), _lettered(text), _quoted(text), _alternatives(text)):
        keys = {answer_key(option) for option in options} - {""}
        found |= keys if len(keys) > 1 else set()
    found.discard("")
    if not found and _asks_yes_or_no(text):
        found = {"yes", "no"}
    return frozenset(found) if len(found) > 1 else frozenset()


def _listed(text: str) -> Iterator[str]:
    for heading in _HEADING.finditer(text):
        rest = text[heading.end() :]
        lines = rest.strip("\n").split("\n") if rest.lstrip(" \t").startswith("\n") else [rest.split("\n")[0]]
        # Of a list in lines, those up to a blank one; without bullets, a line is an option.
        lines = [line.strip() for line in itertools.takewhile(str.strip, lines)]
        joined = "\n".join(lines)
        parts = _BULLET.split(joined)[1:] if _BULLET.match(joined) else lines
        if len(parts) == 1:
            parts = _SPLIT.split(parts[0].rstrip("."))
        yield from (part.strip(" \t\n.\"'`") for part in parts[:_MOST_OPTIONS])


def _lettered(text: str) -> Iterator[str]:
    marks = list(_MARK.finditer(text))
    names = [(mark[1] or mark[2]).upper() for mark in marks]
    for first in ("A", "1"):
        row: list[int] = []
        for place, name in enumerate(names):
            follows = _after(first, len(row))
            if name == follows:
                row.append(place)
            elif name == first:  # another list begins
                row = [place]
        if len(row) < 2:
            continue
        for number, place in enumerate(row):
            end = marks[row[number + 1]].start() if number + 1 < len(row) else len(text)
            option = text[marks[place].end() : end].strip().split("\n")[0].strip(" \t,;")
            yield from (names[place], option, f"{names[place]} {option}")


def _after(first: str, number: int) -> str:
    return chr(ord("A") + number) if first == "A" else str(number + 1)


def _quoted(text: str) -> Iterator[str]:
    quotes = list(_QUOTED.finditer(text))
    for one, other in itertools.pairwise(quotes):
        if _BETWEEN_QUOTED.fullmatch(text[one.end() : other.start()]):
            yield from (one[1], other[1])


def _alternatives(text: str) -> Iterator[str]:
    for clause in _CLAUSE.split(text):
        parts = _ALTERNATIVES.split(clause)
        if len(parts) < 2 or not re.search(r"\sor\s", clause, re.IGNORECASE):
            continue
        # The commas of a clause before its list are no alternatives: "In May, Ann asks: is it red, blue or green".
        yield from _ends(parts[0], at_the_end=True)
        for part in parts[1:-1]:
            yield part
            yield from _ends(part, at_the_end=True)
        yield from _ends(parts[-1], at_the_end=False)


def _ends(part: str, *, at_the_end: bool) -> Iterator[str]:
    words = part.split()
    for number in range(1, min(_LONGEST_NAME, len(words)) + 1):
        yield " ".join(words[-number:] if at_the_end else words[:number])


def _asks_yes_or_no(text: str) -> bool:
    sentences: Sequence[str] = _SENTENCE.findall(text)
    return any(sentence.rstrip().endswith("?") and _YES_NO.match(sentence) for sentence in sentences)
