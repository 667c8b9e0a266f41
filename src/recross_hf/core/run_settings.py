"""Whether a run goes on with the settings that an earlier run wrote down, and how they differ, in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_LONGEST_VALUE = 80


def changed_settings(
    written: Mapping[str, Any], asked: Mapping[str, Any], *, names: Iterable[str] | None = None
) -> list[str]:
    """Each setting that differs, in words: "`seed` 1 in place of 2". A nested setting has a dotted name.

    Args:
        written: Settings of the earlier run, read from JSON. A setting that is not among them counts as None.
        asked: Settings of the run that is to go on; they are compared as the JSON values that they would be written as.
        names: Names of the settings to compare, in the order of the answer; by default all that are written or asked for, sorted.
    """
    return list(_changes(written, json.loads(json.dumps(dict(asked), default=str)), names, ""))


def refuse_other_settings(
    written: Mapping[str, Any],
    asked: Mapping[str, Any],
    *,
    expected: str,
    remedy: str,
    names: Iterable[str] | None = None,
    error: type[ValueError] = ValueError,
) -> None:
    """Makes sure that a run goes on with the settings of an earlier one.

    Args:
        written, asked, names: Settings to compare, see [`changed_settings`].
        expected: Words for the settings that were written, such as "the settings of the run in out/".
        remedy: Sentence that says what to do.
        error: Class of the error.

    Raises:
        ValueError: A setting differs; the message names it with both values.
    """
    if changed := changed_settings(written, asked, names=names):
        raise error(f"Expected {expected}, found {', '.join(changed)}. {remedy}")


def _changes(
    written: Mapping[str, Any], asked: Mapping[str, Any], names: Iterable[str] | None, prefix: str
) -> Iterator[str]:
    for name in sorted({*written, *asked}) if names is None else names:
        before, now = written.get(name), asked.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _changes(before, now, None, f"{prefix}{name}.")
        elif before != now:
            yield f"`{prefix}{name}` {_shown(now)} in place of {_shown(before)}"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
