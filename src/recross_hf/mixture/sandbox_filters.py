"""The filters, tests and functions that templates may use; those that could use up too much are bounded here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2.defaults import DEFAULT_FILTERS
from jinja2.filters import (
    do_batch,
    do_indent,
    do_int,
    do_join,
    do_replace,
    do_round,
    do_title,
    do_tojson,
    do_wordcount,
    make_attrgetter,
    pass_environment,
    pass_eval_context,
)
from jinja2.sandbox import safe_range
from jinja2.tests import TESTS as DEFAULT_TESTS
from jinja2.utils import Namespace
from markupsafe import soft_str

from .sandbox_budget import (
    PromptError,
    bounded,
    check_join,
    check_length,
    check_replace,
    counted,
    generator,
    spend,
)

# Filters and tests of Jinja's own that cost no more than the charge for the value that they are given.
_PLAIN_FILTERS = (
    *(
        "abs",
        "capitalize",
        "count",
        "d",
        "default",
        "e",
        "escape",
        "first",
        "float",
        "items",
        "last",
        "length",
        "list",
    ),
    *("lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort", "string"),
    *("trim", "truncate", "unique", "upper"),
)
_PLAIN_TESTS = (
    *("boolean", "defined", "divisibleby", "eq", "equalto", "even", "false", "float", "ge", "greaterthan", "gt"),
    *("integer", "iterable", "le", "lessthan", "lower", "lt", "mapping", "ne", "none", "number", "odd", "sequence"),
    *("string", "true", "undefined", "upper", "==", "!=", "<", "<=", ">", ">="),
)


def _choice(items: Sequence[Any]) -> Any:
    return generator().choice(items)


@pass_environment
def _random(environment: Any, items: Sequence[Any]) -> Any:
    return _choice(items) if items else environment.undefined("No random item, sequence was empty.")


def _int(value: Any, default: int = 0, base: int = 10) -> int:
    return bounded(do_int(value, default, base))


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    if abs(precision) > 30:
        raise PromptError("the template rounds to more than 30 digits")
    return do_round(value, precision, method)


def _zip(*columns: Iterable[Any]) -> list[tuple[Any, ...]]:
    return list(zip(*map(counted, columns), strict=False))


class _PlainNamespace(Namespace):
    """A namespace of plain values: one in another could grow out of sight."""

    # No method of its own: a namespace looks all its attributes up among its values.
    def __init__(self, **values: Any) -> None:
        super().__init__(**{name: _plain(value) for name, value in values.items()})

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, _plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Namespace):
        raise PromptError("a namespace within another is not allowed in a template")
    return bounded(value)


def _most_frequent(items: Sequence[Any]) -> list[Any] | None:
    if not items:
        return None
    counts = Counter(items).most_common()
    return [item for item, count in counts if count == counts[0][1]]


@pass_eval_context
def _join(eval_ctx: Any, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    items = list(counted(value))
    bounded(items)
    check_join(str(d), items)
    return bounded(do_join(eval_ctx, items, d, attribute))


@pass_eval_context
def _replace(eval_ctx: Any, s: str, old: str, new: str, count: int | None = None) -> str:
    check_replace(str(s), str(old), str(new))
    return do_replace(eval_ctx, s, old, new, count)


def _format(value: str, *args: Any, **kwargs: Any) -> str:
    return formatted(value, kwargs or args)


def formatted(text: str, values: Any) -> str:
    """The text that the operator `%` makes of a text and values."""
    text = soft_str(bounded(text))
    if re.search(r"%\((?![^()%]{0,100}\))", text):
        raise PromptError("the template formats with a key that is no plain name")
    if re.search(r"%(\([^()%]{0,100}\))?[^a-zA-Z%]*(\d{4}|\*)", text):
        raise PromptError("the template formats with a width of more than three digits")
    bounded(values)
    parts = values if isinstance(values, tuple) else [values]
    if isinstance(values, dict):
        parts = [values, *values.values()]
    longest = max((len(soft_str(part)) for part in parts), default=0)
    check_length(len(text) + text.count("%") * max(2000, longest))  # a width and a precision of three digits
    return bounded(text % values)


@pass_environment
def _sum(environment: Any, iterable: Iterable[Any], attribute: str | int | None = None, start: float = 0) -> float:
    values = list(counted(iterable))
    if attribute is not None:
        values = [make_attrgetter(environment, attribute)(value) for value in values]
    if not all(isinstance(value, (int, float)) for value in (start, *values)):
        raise PromptError("the template adds up what is no number")
    return bounded(sum(map(bounded, values), start))


def _batch(value: Iterable[Any], linecount: int, fill_with: Any = None) -> list[list[Any]]:
    items = list(counted(value))
    if fill_with is not None:
        spend(max(0, linecount))
    return bounded(list(do_batch(items, linecount, fill_with)))


def _indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    by = len(width) if isinstance(width, str) else width
    check_length(len(s) + (1 + len(s.splitlines())) * by)
    return bounded(do_indent(s, width, first, blank))


@pass_eval_context
def _tojson(eval_ctx: Any, value: Any) -> str:
    return bounded(do_tojson(eval_ctx, value))


def _title(s: str) -> str:
    return do_title(_by_words(s))


def _wordcount(s: str) -> int:
    return do_wordcount(_by_words(s))


def _by_words(value: Any) -> str:
    """Gives the text back, charged for a slow way through it."""
    text = soft_str(bounded(value))
    spend(len(text) // 16)
    return text


FILTERS: dict[str, Any] = {
    **{name: DEFAULT_FILTERS[name] for name in _PLAIN_FILTERS},
    **{"choice": _choice, "random": _random, "most_frequent": _most_frequent},
    **{"int": _int, "round": _round, "join": _join, "replace": _replace, "format": _format},
    **{"batch": _batch, "indent": _indent, "sum": _sum, "title": _title, "tojson": _tojson, "wordcount": _wordcount},
}
"""The filters that templates may use, by name."""

TESTS: dict[str, Any] = {name: DEFAULT_TESTS[name] for name in _PLAIN_TESTS}
"""The tests that templates may use, by name."""

FUNCTIONS: dict[str, Any] = {"dict": dict, "namespace": _PlainNamespace, "range": safe_range, "zip": _zip}
"""The functions that templates may call, by name."""
