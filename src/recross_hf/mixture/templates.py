"""Prompt templates in PromptSource's format: YAML files read as data, rendered byte for byte as PromptSource does.

A template is Jinja: an input and the answer to it, separated by `|||`. See Bach et al. 2022, "PromptSource" (arXiv 2202.01279).
"""

from __future__ import annotations

import copy
import importlib.util
import random
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Template, TemplateSyntaxError, nodes

from .sandbox import ENVIRONMENT, PromptError, render

SEPARATOR = "|||"
TRUNCATED_TO = 2048  # characters of each value, as in PromptSource
EXACT_METRICS = frozenset({"Accuracy", "Squad"})
"""Metrics of templates whose answers an exact match can judge."""

_TEMPLATES_FILE = "templates.yaml"
_INSTALL = "pip install --no-deps --ignore-requires-python promptsource==0.2.3"
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

    Templates are data: they are rendered in a sandbox, see `prompt_sandbox`.

    Attributes:
        name: unique within its data set.
        jinja: the input, `|||` and the answer.
        answer_choices: all possible answers, separated by `|||`; None where answers are free text.
        original_task: whether it asks for what the data set was made for.
        choices_in_prompt: whether the input names the possible answers.
        metrics: PromptSource's names of metrics for its answers.
        reference: who wrote it, or where it comes from.
        dataset: `name` or `name/configuration` of the data set it is for.
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
        """The rendered parts, as PromptSource's `Template.apply`: the input and the answer; `[""]` where nothing is rendered.

        Args:
            truncate: cut each value to 2,048 characters.
            rng: what the filters `choice` and `random` draw from; by default the same for each row.

        Raises:
            PromptError: the template is broken or not allowed, fails on this row or uses up too much.
        """
        return self._rendered(row, truncate, rng)[0]

    def _rendered(
        self, row: Mapping[str, Any], truncate: bool, rng: random.Random | None
    ) -> tuple[list[str], list[str] | None]:
        """The parts and the possible answers."""
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
        """A row as an upstream example: `input`, `references` (one) and `choices` (empty for free text).

        Returns:
            The example; None where the template renders nothing, an empty input or an empty answer, as many do on purpose for rows that
            do not suit them.

        Raises:
            PromptError: the row lacks a column that the template names, or what is rendered has no answer or several.
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
            # Names that may be missing.
            optional = [node for node in tree.find_all(nodes.Test) if node.name in ("defined", "undefined")]
            optional += [node for node in tree.find_all(nodes.Filter) if node.name in ("d", "default")]
            found -= {node.node.name for node in optional if isinstance(node.node, nodes.Name)}
        return frozenset(found - {"answer_choices"})

    @property
    def fixed_choices(self) -> list[str] | None:
        """The possible answers where they are the same for all rows; None where they differ or are free text."""
        if self.answer_choices is None or _names_read(self._parsed(self.answer_choices)):
            return None
        try:
            return [part.strip() for part in _split(render(self._compiled_choices, {}, random.Random(0)))]
        except PromptError as error:
            raise type(error)(f"{self._label}: {error}.") from error

    def check(self) -> None:
        """Raises a [`PromptError`] if the template is broken, not allowed, or has not one `|||`."""
        _ = self._compiled, self._truncating, self._compiled_choices
        if self.jinja.count(SEPARATOR) != 1:
            raise PromptError(
                f"{self._label}: expected an input and an answer, separated by one {SEPARATOR!r}, found "
                f"{self.jinja.count(SEPARATOR)} of it."
            )

    def __getstate__(self) -> dict[str, Any]:
        # What is compiled stays in the process.
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
        except (
            SyntaxError,
            ValueError,
            RecursionError,
            MemoryError,
        ) as error:  # what Jinja makes Python of is no Python
            raise PromptError(f"{self._label}: {type(error).__name__}, nested too deeply or malformed.") from error

    @property
    def _label(self) -> str:
        return f"template {self.name!r}" + f" of {self.dataset}" * bool(self.dataset)


def _names_read(tree: nodes.Template) -> set[str]:
    """The names that a template reads before it can have set them itself."""
    return set(_read(tree, set(ENVIRONMENT.globals)))


def _read(node: nodes.Node, known: set[str]) -> Iterator[str]:
    """The names read that are not known; those that are set become so."""
    first: list[nodes.Node] = []  # what is evaluated before the rest
    within = known
    match node:
        case nodes.Name(ctx="store"):
            known.add(node.name)
        case nodes.Name():
            yield from {node.name} - known
        case nodes.If():
            yield from _read(node.test, known)
            after = set(known)
            for branch in (node.body, *([other] for other in node.elif_), node.else_):
                inside = set(known)
                for child in branch:
                    yield from _read(child, inside)
                after |= inside  # it has a value on some paths at least
            known |= after
            return
        case nodes.For():
            first, within = [node.iter], known | {"loop"}
        case nodes.With():
            first, within = node.values, set(known)
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
        # What a loop or a block sets has no value after it.
        if not any(child is done for done in first):
            yield from _read(child, within)


def _escaped(text: str) -> str:
    return text.replace(SEPARATOR, _ESCAPED_SEPARATOR)


def _unescaped(text: str) -> str:
    return text.replace(_ESCAPED_SEPARATOR, SEPARATOR)


def _split(rendered: str) -> list[str]:
    return rendered.split(SEPARATOR)


# ---- files -----------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Safe YAML in which PromptSource's two tags are plain mappings."""


for _tag in ("!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, lambda loader, node: loader.construct_mapping(node, deep=True))


def read_templates(path: str | Path) -> list[PromptTemplate]:
    """The templates of one YAML file in PromptSource's format, by name.

    Raises:
        PromptError: the file is no such YAML, or a template in it has fields of the wrong type.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as error:
        raise PromptError(f"Expected templates as YAML in {path}: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("templates"), dict):
        raise PromptError(f"Expected a mapping with `templates` in {path}, found {_type_of(content)}.")
    dataset = "/".join(str(content[key]) for key in ("dataset", "subset") if content.get(key))
    templates = [_template(path, dataset, found) for found in content["templates"].values()]
    return sorted(templates, key=lambda template: template.name)


def _template(path: Path, dataset: str, found: Any) -> PromptTemplate:
    def field(of: dict[str, Any], name: str, kind: type, default: Any) -> Any:
        value = of.get(name)
        if value is not None and not isinstance(value, kind):
            raise PromptError(
                f"Expected `{name}` of a template in {path} to be {kind.__name__}, found {_type_of(value)}."
            )
        return default if value is None else value

    if not isinstance(found, dict):
        raise PromptError(f"Expected each template in {path} to be a mapping, found {_type_of(found)}.")
    for name in ("name", "jinja"):
        if found.get(name) is None:
            raise PromptError(f"Expected `{name}` of each template in {path}, found {', '.join(map(str, found))}.")
    metadata = field(found, "metadata", dict, {})
    metrics = field(metadata, "metrics", list, [])
    if not all(isinstance(metric, str) for metric in metrics):
        raise PromptError(f"Expected `metrics` of a template in {path} to be texts.")
    return PromptTemplate(
        name=field(found, "name", str, ""),
        jinja=field(found, "jinja", str, ""),
        answer_choices=field(found, "answer_choices", str, None),
        original_task=field(metadata, "original_task", bool, None),
        choices_in_prompt=field(metadata, "choices_in_prompt", bool, None),
        metrics=tuple(metrics),
        reference=field(found, "reference", str, ""),
        dataset=dataset,
    )


def _type_of(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


def promptsource_folder() -> Path:
    """The templates of an installed PromptSource; it is not imported, for it does not import on a current Python.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    spec = importlib.util.find_spec("promptsource")
    for location in (spec.submodule_search_locations or []) if spec else []:
        if (Path(location) / "templates").is_dir():
            return Path(location) / "templates"
    raise ModuleNotFoundError(
        f"Expected the templates of PromptSource, found no installed package. Install it with `{_INSTALL}`, or pass a "
        "`folder` of templates."
    )


def load_templates(dataset: str, *, folder: str | Path | None = None) -> list[PromptTemplate]:
    """The templates for a data set, by name.

    ```python
    load_templates("super_glue/cb")  # PromptSource's
    load_templates("tickets", folder="my_templates")  # my_templates/tickets/templates.yaml
    ```

    Args:
        dataset: `name` or `name/configuration`.
        folder: of templates, laid out as PromptSource's; that of the installed package by default.

    Raises:
        FileNotFoundError: there are none for this data set.
        ModuleNotFoundError: PromptSource is not installed, and no `folder` was given.
        PromptError: they cannot be read.
    """
    root = promptsource_folder() if folder is None else Path(folder)
    path = root / dataset / _TEMPLATES_FILE
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"Expected `name` or `name/configuration` of a data set, found {dataset!r}.")
    if not path.is_file():
        name = dataset.split("/")[0]
        near = [known for known in datasets_with_templates(root) if known.split("/")[0] == name]
        raise FileNotFoundError(
            f"Expected templates for {dataset!r} in {path}, found none."
            + (f" There are some for {', '.join(near)}." if near else "")
        )
    return read_templates(path)


def datasets_with_templates(folder: str | Path | None = None) -> list[str]:
    """The data sets that there are templates for: `name` or `name/configuration`, sorted."""
    root = promptsource_folder() if folder is None else Path(folder)
    return sorted(path.parent.relative_to(root).as_posix() for path in root.rglob(_TEMPLATES_FILE))


def select_templates(
    templates: Iterable[PromptTemplate],
    *,
    metrics: Collection[str] | None = EXACT_METRICS,
    original_task: bool | None = None,
    has_choices: bool | None = None,
) -> Iterator[PromptTemplate]:
    """The templates that suit a purpose.

    Args:
        metrics: at least one of these must be among a template's; None for any.
        original_task: those that ask for what the data set was made for (True), for something else (False), or all (None).
        has_choices: those with a set of possible answers (True), free text (False), or all (None).
    """
    for template in templates:
        if metrics is not None and not set(metrics) & set(template.metrics):
            continue
        if original_task is not None and bool(template.original_task) != original_task:
            continue
        if has_choices is not None and (template.answer_choices is not None) != has_choices:
            continue
        yield template
