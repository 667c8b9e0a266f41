"""Recipes: YAML files that say what a command line would, and options of names with values."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection, Hashable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml


class RecipeLoader(yaml.SafeLoader):
    """YAML in which `no`, `off` and dates are words, as on a command line, and no name comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in names:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} a second time", key.start_mark)
            names.add(key.value)
        return super().construct_mapping(node, deep)


_OTHERWISE = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"}
RecipeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _OTHERWISE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def recipe_arguments(path: str | Path, known: Collection[str]) -> list[str]:
    """Reads a recipe as the command line that it stands for: `learning_rate: 3e-5` is `--learning_rate 3e-5`.

    Whatever comes after it on a command line overrides it.

    Args:
        path: a YAML file with names and values; lists become several words, `null` is passed over. `true` and `false` alone are
            truth values: `save_strategy: no` is the word.
        known: the names that a recipe may set.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no YAML, has a name twice, or one that is not known (the message says which ones are near), or a
            value that no command line could have.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a recipe, a YAML file, at {path}, found none.")
    try:
        text = path.read_text(encoding="utf-8")
        recipe, node = yaml.load(text, Loader=RecipeLoader), yaml.compose(text, Loader=RecipeLoader)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected YAML in {path}, found bytes that are no text in UTF-8. Name another file."
        ) from error
    except yaml.YAMLError as error:
        said = str(error).replace("<unicode string>", path.name)
        raise ValueError(f"Expected YAML in {path}, found: {said}. Mend the file.") from error
    if not isinstance(recipe, dict):
        raise ValueError(
            f"Expected names and values (`learning_rate: 3e-5`) in {path}, found {type(recipe).__name__}."
        )
    lines = {key.value: key.start_mark.line + 1 for key, _ in (node.value if node else [])}
    arguments = []
    for name, value in recipe.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=3)
            meant = f"Did you mean {' or '.join(near)}?" if near else "`--help` lists the names there are."
            raise ValueError(
                f"Expected arguments that a recipe can set in {path}, line {lines.get(str(name), '?')}, found {name!r}, which is "
                f"none. {meant}"
            )
        if value is not None:
            arguments += _words(path, name, value)
    return arguments


def named_values(
    option: str, words: Sequence[str], fail: Callable[[str], NoReturn], *, known: Sequence[str] | None = None
) -> dict[str, str]:
    """Reads the values of an option that takes several, each with its name: `--columns references=outputs id=example_id`.

    Args:
        option: such as `--columns`, for messages.
        words: what was given to it.
        fail: what a wrong one is told to, such as the `error` of an `ArgumentParser`, which ends the program.
        known: the names that there are.
    """
    found: dict[str, str] = {}
    for word in words:
        name, is_pair, value = word.partition("=")
        if not (name and is_pair and value):
            fail(
                f"argument {option}: expected names with values, such as {(known or ['name'])[0]}=value, found {word!r}"
            )
        if known is not None and name not in known:
            fail(f"argument {option}: expected one of the names {', '.join(known)}, found {name!r}")
        if name in found:
            fail(f"argument {option}: expected each name once, found {name!r} twice ({found[name]!r} and {value!r})")
        found[name] = value
    return found


def _words(path: Path, name: str, value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    try:
        words = [word if isinstance(word, str) else json.dumps(word) for word in values]
    except TypeError as error:
        raise ValueError(
            f"Expected text, a number or a list of them as `{name}` in {path}, found {value!r}."
        ) from error
    if not words or None in values:
        raise ValueError(f"Expected values of `{name}` in {path}, found {value!r}. Leave it out for its default.")
    if len(words) == 1 and words[0].startswith("-"):
        return [f"--{name}={words[0]}"]
    if options := [word for word in words if word.startswith("-")]:
        raise ValueError(
            f"Expected values of `{name}` in {path} that do not begin with '-', found {options}: among several they would "
            "be taken for arguments."
        )
    return [f"--{name}", *words]
