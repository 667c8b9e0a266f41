"""Whether a run goes on with the settings that an earlier run wrote down, and how they differ, in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_LONGEST_VALUE = 80


class ChangedSetting(NamedTuple):
    """A setting that differs; as text it is "`seed` 1 in place of 2".

    Attributes:
        name: Name of the setting; that of a nested one is dotted.
        before: Value that an earlier run wrote down.
        now: Value that is asked for.
    """

    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"`{self.name}` {_shown(self.now)} in place of {_shown(self.before)}"


def changed_settings(
    written: Mapping[str, Any], asked: Mapping[str, Any], *, names: Iterable[str] | None = None
) -> list[ChangedSetting]:
    """Each setting that differs.

    Args:
        written: Settings of the earlier run, read from JSON. A setting that is not among them counts as None.
        asked: Settings of the run that is to go on; they are compared as the JSON values that they would be written as.
        names: Names of the settings to compare, in the order of the answer; by default all that are written or asked for, sorted.
    """
    return list(_changes(written, json.loads(json.dumps(dict(asked), default=str)), names, ""))


def both_values(changed: Iterable[ChangedSetting]) -> str:
    """The settings that differ, in words, each with what it is and what it was."""
    return ", ".join(map(str, changed))


def names_alone(changed: Iterable[ChangedSetting]) -> str:
    """The names of the settings that differ; of nested ones, the name of the setting that they are in."""
    return ", ".join(dict.fromkeys(setting.name.partition(".")[0] for setting in changed))


def refuse_other_settings(
    written: Mapping[str, Any],
    asked: Mapping[str, Any],
    *,
    expected: str,
    remedy: str,
    found: Callable[[Sequence[ChangedSetting]], str] = both_values,
    names: Iterable[str] | None = None,
    error: type[ValueError] = ValueError,
) -> None:
    """Makes sure that a run goes on with the settings of an earlier one.

    Args:
        written: Settings of the earlier run, read from JSON. A setting that is not among them counts as None.
        asked: Settings of the run that is to go on; they are compared as the JSON values that they would be written as.
        expected: Words for the settings that were written, such as "the settings of the run in out/".
        remedy: Sentence that says what to do.
        found: Puts the settings that differ in words.
        names: Names of the settings to compare, in the order of the message; by default all that are written or asked for, sorted.
        error: Class of the error.

    Raises:
        ValueError: A setting differs; the message names it.
    """
    if changed := changed_settings(written, asked, names=names):
        raise error(f"Expected {expected}, found {found(changed)}. {remedy}")


def _changes(
    written: Mapping[str, Any], asked: Mapping[str, Any], names: Iterable[str] | None, prefix: str
) -> Iterator[ChangedSetting]:
    for name in sorted({*written, *asked}) if names is None else names:
        before, now = written.get(name), asked.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _changes(before, now, None, f"{prefix}{name}.")
        elif before != now:
            yield ChangedSetting(f"{prefix}{name}", before, now)


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
