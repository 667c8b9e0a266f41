"""Regular expressions of a foreign tokenizer: those whose time grows without measure with a text are refused."""

from __future__ import annotations

import re

LONGEST = 4_000
"""Characters that an expression may have; those of known tokenizers have some hundred."""
MOST_REPEATED = 4
"""Parts of one alternative that may each be repeated without end: they try all ways of sharing a text."""

_QUANTIFIER = re.compile(r"[*+?][?+]?|\{(\d*)(,?)(\d*)\}[?+]?")
_FEW = 3
# Characters that stand for themselves, some of them optional, as in `\r?\n`.
_LITERAL = re.compile(r"(\\[rntfv\W_]|[^\\()\[\]{}|?*+.^$])(\??)")


def runs_away(expression: str) -> bool:
    """Whether an expression repeats what can itself match in several ways, as `(a+)+` does, or repeats too much in a row.

    Expressions of known tokenizers repeat characters and sets of them.
    """
    if len(expression) > LONGEST:
        return True
    # Of each open group: whether something in it can match in several ways, and the endless parts of its alternatives so far.
    varies, endless, most, starts = [False], [0], [0], [0]
    place = 0
    while place < len(expression):
        character = expression[place]
        closed = False
        if character == "\\":
            place += _escaped(expression, place)
        elif character == "[":
            place = _end_of_set(expression, place)
        elif character == "(":
            start = re.compile(r"\(\?(?:[imsxn-]*[:)]|<?[=!]|>|<\w+>)|\(\?#[^)]*\)|\(").match(expression, place)
            place = start.end() if start else place + 1
            if start and not start[0].endswith(")"):
                varies.append(False)
                endless.append(0)
                most.append(0)
                starts.append(place)
            continue
        elif character == "|":
            varies[-1] = True
            most[-1], endless[-1] = max(most[-1], endless[-1]), 0
            place += 1
            continue
        elif character == ")" and len(varies) > 1:
            closed, inner, body = True, varies.pop(), expression[starts.pop() : place]
            within = max(most.pop(), endless.pop())
            endless[-1] += within
            varies[-1] |= inner
            place += 1
        else:
            place += 1
        found = _QUANTIFIER.match(expression, place)
        while found:
            # A `{` that is no quantifier is a character.
            low, comma, high = found[1], found[2], found[3]
            count: float = float("inf") if found[0][0] in "*+" or (comma and not high) else int(high or low or 1)
            count = 1 if found[0][0] == "?" else count
            is_fixed = found[0][0] == "{" and (not comma or low == high)
            if closed and inner and count > _FEW and not _matches_in_one_way(body):
                return True
            if count == float("inf"):
                endless[-1] += 1
            varies[-1] |= not is_fixed
            place = found.end()
            found = _QUANTIFIER.match(expression, place)
        if endless[-1] > MOST_REPEATED:
            return True
    return max(*most, *endless) > MOST_REPEATED


def _matches_in_one_way(body: str) -> bool:
    """Whether a body is characters that differ, one of them not optional: however often it is repeated, a text shares out in one way."""
    literals = list(_LITERAL.finditer(body))
    characters = [literal[1].lower() for literal in literals]
    is_whole = "".join(literal[0] for literal in literals) == body
    return is_whole and len({*characters}) == len(characters) and not all(literal[2] for literal in literals)


def _escaped(expression: str, place: int) -> int:
    """The length of an escape, such as `\\s`, `\\p{L}` or `\\x{4e00}`."""
    found = re.compile(r"\\(?:[pP]\{[^}]*\}|x\{[^}]*\}|.)", re.DOTALL).match(expression, place)
    return len(found[0]) if found else 1


def _end_of_set(expression: str, place: int) -> int:
    """The place behind a set of characters, which may hold sets."""
    depth = 0
    while place < len(expression):
        if expression[place] == "\\":
            place += _escaped(expression, place)
            continue
        depth += (expression[place] == "[") - (expression[place] == "]")
        place += 1
        # The first character of a set may be a bracket that stands for itself.
        if depth == 0:
            return place
    return place
