"""Prompt templates in PromptSource's format, rendered byte for byte as PromptSource renders them.

A template is Jinja: an input and the answer to it, separated by `|||`. See Bach et al. 2022, "PromptSource" (arXiv 2202.01279).
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from jinja2 import Template, TemplateSyntaxError, nodes

from .sandbox import ENVIRONMENT
from .sandbox_budget import PromptError, render

SEPARATOR = "|||"
TRUNCATED_TO = 2048  # characters of each value, as in PromptSource
# Stands for the separator where that occurs in the data. PromptSource's own, for its length decides what is truncated.
_ESCAPED_SEPARATOR = "3ed2dface8203c4c9dfb1a5dc58e41e0"


@dataclass(frozen=True)
class PromptTemplate:
    """One way to put a data set's rows as text.

    ```python
    template = PromptTemplate(
        "does it follow",
        "{{premise}} Does it follow that {{hypothesis}}? ||| {{answer_choices[label]}}",
        answer_choices="yes ||| maybe ||| no",
    )
    template.example({"premise": "It rains.", "hypothesis": "It is wet.", "label": 0})
    # {"input": "It rains. Does it follow that It is wet.?", "references": ["yes"], "choices": ["yes", "maybe", "no"]}
    ```

    Templates are data: a sandbox renders them, see `mixture.sandbox`.

    Attributes:
        name: Name, unique within its data set.
        jinja: Jinja source of the input, `|||` and the answer.
        answer_choices: Jinja source of all possible answers, separated by `|||`; None where answers are free text.
        original_task: Whether the template asks for the task that the data set was made for.
        choices_in_prompt: Whether the input names the possible answers.
        metrics: PromptSource's names of the metrics for its answers.
        reference: Author or origin of the template.
        dataset: `name` or `name/configuration` of its data set.
    """

    name: str
    jinja: str
    answer_choices: str | None = None
    original_task: bool | None = None
    choices_in_prompt: bool | None = None
    metrics: tuple[str, ...] = ()
    reference: str = ""
    dataset: str = ""

    # ---- rendering -------------------------------------------------------------------------------------------------

    def apply(self, row: Mapping[str, Any], *, truncate: bool = True, rng: random.Random | None = None) -> list[str]:
        """Renders the input and the answer, as PromptSource's `Template.apply` does.

        Args:
            row: Values of the row, by column.
            truncate: Whether to cut each value to 2,048 characters.
            rng: Generator that the filters `choice` and `random` draw from; by default the same for each row.

        Returns:
            The input and the answer; `[""]` where the template renders nothing.

        Raises:
            PromptError: The template is broken or not allowed, fails on this row or uses up too much.
        """
        return self._rendered(row, truncate, rng)[0]

    def _rendered(
        self, row: Mapping[str, Any], truncate: bool, rng: random.Random | None
    ) -> tuple[list[str], list[str] | None]:
        """The rendered texts, which `|||` separates, and the possible answers."""
        if "answer_choices" in row:
            raise PromptError(
                f"{self._label}: expected no column 'answer_choices', for it is the template's own name."
            )
        rng = rng or random.Random(0)
        # Templates may append to lists: those of the row are not theirs.
        values = {
            name: _escaped(value) if isinstance(value, str) else copy.deepcopy(value) for name, value in row.items()
        }
        choices = None
        compiled = self._truncating if truncate else self._compiled
        try:
            if self._compiled_choices is not None:
                choices = [_unescaped(part.strip()) for part in _split(render(self._compiled_choices, values, rng))]
            parts = _split(render(compiled, values | {"answer_choices": choices}, rng))
        except PromptError as error:
            raise type(error)(f"{self._label}: {error}.") from error
        return [_unescaped(part).strip() for part in parts], choices

    def example(
        self, row: Mapping[str, Any], *, truncate: bool = True, rng: random.Random | None = None
    ) -> dict[str, Any] | None:
        """Renders a row as an upstream example: `input`, `references` (one) and `choices` (empty for free text).

        Args:
            row: Values of the row, by column.
            truncate: Whether to cut each value to 2,048 characters.
            rng: Generator that the filters `choice` and `random` draw from; by default the same for each row.

        Returns:
            The example; None where the template renders nothing, an empty input or an empty answer, as many do on purpose for rows that
            do not suit them.

        Raises:
            PromptError: The row lacks a column that the template names, or the rendered text has no answer or several.
        """
        missing = sorted(self.columns - row.keys())
        if missing:
            raise PromptError(
                f"{self._label}: expected the column {', '.join(map(repr, missing))}, found {', '.join(sorted(row))}."
            )
        parts, choices = self._rendered(row, truncate, rng)
        if not all(parts):
            return None
        if len(parts) != 2:
            raise PromptError(
                f"{self._label}: expected an input and an answer, separated by one {SEPARATOR!r}, found {len(parts)} parts."
            )
        return {"input": parts[0], "references": parts[1:], "choices": choices or []}

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns of a row that the template names."""
        found: set[str] = set()
        for source in (self.jinja, self.answer_choices or ""):
            tree = self._parsed(source)
            found |= _names_read(tree)
            # These names may be missing.
            optional = [node for node in tree.find_all(nodes.Test) if node.name in ("defined", "undefined")]
            optional += [node for node in tree.find_all(nodes.Filter) if node.name in ("d", "default")]
            found -= {node.node.name for node in optional if isinstance(node.node, nodes.Name)}
        return frozenset(found - {"answer_choices"})

    @property
    def fixed_choices(self) -> list[str] | None:
        """The possible answers where all rows have the same; None where they differ or are free text."""
        compiled = self._compiled_choices
        if self.answer_choices is None or compiled is None or _names_read(self._parsed(self.answer_choices)):
            return None
        try:
            return [part.strip() for part in _split(render(compiled, {}, random.Random(0)))]
        except PromptError as error:
            raise type(error)(f"{self._label}: {error}.") from error

    def check(self) -> None:
        """Checks the template without a row.

        Raises:
            PromptError: The template is broken, not allowed, or has not one `|||`.
        """
        _ = self._compiled, self._truncating, self._compiled_choices
        if self.jinja.count(SEPARATOR) != 1:
            raise PromptError(
                f"{self._label}: expected an input and an answer, separated by one {SEPARATOR!r}, found "
                f"{self.jinja.count(SEPARATOR)} of it."
            )

    def __getstate__(self) -> dict[str, Any]:
        # Compiled code stays in its process.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _compiled(self) -> Template:
        return self._compile(self.jinja)

    @cached_property
    def _truncating(self) -> Template:
        return self._compile(self.jinja.replace("}}", f" | string | truncate({TRUNCATED_TO}) }}}}"))

    @cached_property
    def _compiled_choices(self) -> Template | None:
        return None if self.answer_choices is None else self._compile(self.answer_choices)

    def _compile(self, source: str) -> Template:
        return self._with_errors(ENVIRONMENT.from_string, source)

    def _parsed(self, source: str) -> Any:
        return self._with_errors(ENVIRONMENT.parse, source)

    def _with_errors(self, function: Any, source: str) -> Any:
        try:
            return function(source)
        except TemplateSyntaxError as error:
            raise PromptError(f"{self._label}: line {error.lineno}: {error.message}") from error
        except PromptError as error:
            raise type(error)(f"{self._label}: {error}.") from error
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # Jinja made Python that is none
            raise PromptError(f"{self._label}: {type(error).__name__}, nested too deeply or malformed.") from error

    @property
    def _label(self) -> str:
        return f"template {self.name!r}" + f" of {self.dataset}" * bool(self.dataset)


def _names_read(tree: nodes.Template) -> set[str]:
    """The names that a template reads before it can have set them itself."""
    return set(_read(tree, set(ENVIRONMENT.globals)))


def _read(node: nodes.Node, known: set[str]) -> Iterator[str]:
    """The names that are read and not known; names that are set become known."""
    first: list[nodes.Node] = []  # these are evaluated before the rest
    within = known
    match node:
        case nodes.Name(ctx="store"):
            known.add(node.name)
        case nodes.Name():
            yield from {node.name} - known
        case nodes.If():
            yield from _read(node.test, known)
            after = set(known)
            branches: list[Sequence[nodes.Node]] = [node.body, *([other] for other in node.elif_), node.else_]
            for branch in branches:
                inside = set(known)
                for child in branch:
                    yield from _read(child, inside)
                after |= inside  # the name has a value on some paths at least
            known |= after
            return
        case nodes.For():
            first, within = [node.iter], known | {"loop"}
        case nodes.With():
            first, within = [*node.values], set(known)
        case nodes.AssignBlock():
            inside = set(known)
            for child in node.body:
                yield from _read(child, inside)
            yield from _read(node.target, known)
            return
        case nodes.Assign():
            first = [node.node]
    for child in first:
        yield from _read(child, known)
    for child in node.iter_child_nodes():
        # A name that a loop or a block sets has no value after it.
        if not any(child is done for done in first):
            yield from _read(child, within)


def _escaped(text: str) -> str:
    return text.replace(SEPARATOR, _ESCAPED_SEPARATOR)


def _unescaped(text: str) -> str:
    return text.replace(_ESCAPED_SEPARATOR, SEPARATOR)


def _split(rendered: str) -> list[str]:
    return rendered.split(SEPARATOR)
