"""The budget of a rendering: steps, characters and the size of values are bounded, whatever a template asks for.

Loops, values and output are charged to a budget for each rendering and not to a clock: a hostile template ends in an error after the
same steps on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextvars import ContextVar
from typing import Any

from jinja2 import Template, TemplateError
from markupsafe import soft_str

MAX_STEPS = 1_000_000
MAX_CHARACTERS = 1_000_000


class PromptError(ValueError):
    """A template cannot be read, uses what is not allowed, or cannot be rendered for an example."""


class PromptBudgetError(PromptError):
    """A template takes more steps or makes more text than it may, as it would on any row."""


class _Budget:
    """The steps and characters that are left to one rendering, and the random numbers that it draws."""

    def __init__(self, rng: random.Random) -> None:
        self.steps = MAX_STEPS
        self.length = 0  # characters of the text that blocks have made
        self.rng = rng

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise PromptBudgetError(f"the template takes more than {MAX_STEPS:,} steps: an endless loop?")


_budget: ContextVar[_Budget] = ContextVar("budget")


def render(template: Template, values: dict[str, Any], rng: random.Random) -> str:
    """Renders a template of the sandbox's `ENVIRONMENT`.

    Args:
        template: The compiled template.
        values: Values of the names that the template reads.
        rng: Generator that the filters `choice` and `random` draw from.

    Raises:
        PromptError: The template fails on these values.
        PromptBudgetError: The template takes too many steps or makes too much text.
    """
    token = _budget.set(_Budget(rng))
    try:
        parts, length = [], 0
        for part in template.generate(values):
            parts.append(part)
            length += len(part)
            check_length(length)
        return "".join(parts)
    except PromptError:
        raise
    except (RecursionError, MemoryError):
        raise PromptError("the template's values are too large") from None
    except (
        *(TemplateError, ArithmeticError, AttributeError, LookupError),
        *(RuntimeError, TypeError, ValueError),
    ) as error:
        raise PromptError(f"{type(error).__name__}: {error}") from error
    finally:
        _budget.reset(token)


def spend(steps: int) -> None:
    """Charges steps to the budget of the rendering that goes on.

    Raises:
        PromptBudgetError: The budget is used up.
    """
    _budget.get().spend(steps)


def generator() -> random.Random:
    """The generator that the rendering draws from."""
    return _budget.get().rng


def check_length(length: int) -> None:
    """Raises a [`PromptBudgetError`] where a text is longer than a template may make it."""
    if length > MAX_CHARACTERS:
        raise PromptBudgetError(f"the template makes more than {MAX_CHARACTERS:,} characters")


def bounded(value: Any) -> Any:
    """Gives the value back if it is not too large, and charges its size to the budget."""
    if isinstance(value, str):
        check_length(len(value))
        spend(len(value) // 1000)
    elif isinstance(value, int):
        if abs(value) > 10**30:
            raise PromptError("the template makes a number of more than 30 digits")
    elif isinstance(value, (list, tuple, dict)):
        pending: list[Any] = [value]
        while pending:
            # An inner value is counted as often as it is reached, as printing or comparing would reach it.
            item = pending.pop()
            inner = [*item.keys(), *item.values()] if isinstance(item, dict) else item
            spend(1 + len(inner) + sum(len(part) // 16 for part in inner if isinstance(part, str)))
            pending += [part for part in inner if isinstance(part, (list, tuple, dict))]
    return value


def charged(value: Any) -> Any:
    """Gives back a value that a filter, a method or a comparison goes through, and charges its size to the budget."""
    if isinstance(value, Iterator):
        return counted(value)
    if isinstance(value, Sized) and not isinstance(value, (str, list, tuple, dict)):
        spend(len(value))
    return bounded(value)


def itemized(value: Any) -> Any:
    """Does what [`charged`] does, and charges a text for each of its characters, which a filter goes through one by one."""
    if isinstance(value, str):
        spend(len(value))
    return charged(value)


def written(value: Any) -> str:
    """The text that a block prints; all blocks of a rendering together may print as much as the whole template."""
    budget = _budget.get()
    text = soft_str(bounded(value))
    budget.length += len(text)
    check_length(budget.length)
    return text


def counted(items: Iterable[Any]) -> Iterator[Any]:
    """Passes items on, and charges a step for each."""
    charge = _budget.get().spend
    for item in items:
        charge(1)
        yield item


def check_join(separator: str, items: Sequence[Any]) -> None:
    """Raises a [`PromptBudgetError`] where joining would make too long a text, before it is made."""
    check_length(len(separator) * len(items) + sum(len(item) for item in items if isinstance(item, str)))


def check_replace(text: str, old: str, new: str) -> None:
    """Raises a [`PromptBudgetError`] where replacing would make too long a text, before it is made."""
    check_length(len(text) + text.count(old) * max(0, len(new) - len(old)))
