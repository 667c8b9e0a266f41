"""Recipes: YAML files that say what a command line would."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection
from pathlib import Path

import yaml


def recipe_arguments(path: str | Path, known: Collection[str]) -> list[str]:
    """Reads a recipe as the command line that it stands for: `learning_rate: 3e-5` is `--learning_rate 3e-5`.

    Whatever comes after it on a command line overrides it.

    Args:
        path: a YAML file with names and values; lists become several words, `null` is passed over.
        known: the names there are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no YAML, or has a name that is not known; the message says which ones are near.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a recipe, a YAML file, at {path}, found none.")
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"Expected YAML in {path}, found: {error}. Mend the file.") from error
    if not isinstance(recipe, dict):
        raise ValueError(
            f"Expected names and values (`learning_rate: 3e-5`) in {path}, found {type(recipe).__name__}."
        )
    arguments = []
    for name, value in recipe.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=3)
            meant = f"Did you mean {' or '.join(near)}?" if near else "`--help` lists the names there are."
            raise ValueError(f"Expected arguments of the script in {path}, found {name!r}, which is none. {meant}")
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        arguments += [f"--{name}", *(word if isinstance(word, str) else json.dumps(word) for word in values)]
    return arguments
