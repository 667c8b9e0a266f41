"""Template files: PromptSource's, and a user's own in the same format, are read as data."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from .sandbox_budget import PromptError
from .templates import PromptTemplate

EXACT_METRICS = frozenset({"Accuracy", "Squad"})
"""Metrics of templates whose answers an exact match can judge."""

_TEMPLATES_FILE = "templates.yaml"
_INSTALL = "pip install --no-deps --ignore-requires-python promptsource==0.2.3"


class _Loader(yaml.SafeLoader):
    """Safe YAML in which PromptSource's two tags are plain mappings."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


for _tag in ("!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, _mapping)


def read_templates(path: str | Path) -> list[PromptTemplate]:
    """Reads the templates of one YAML file in PromptSource's format.

    Args:
        path: Path of the file.

    Returns:
        The templates, sorted by name.

    Raises:
        PromptError: The file is no such YAML, or a template in it has fields of the wrong type.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as error:
        raise PromptError(f"Expected templates as YAML in {path}: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("templates"), dict):
        raise PromptError(f"Expected a mapping with `templates` in {path}, found {_type_of(content)}.")
    dataset = "/".join(str(content[key]) for key in ("dataset", "subset") if content.get(key))
    templates = [_template(path, dataset, entry) for entry in content["templates"].values()]
    return sorted(templates, key=lambda template: template.name)


def _template(path: Path, dataset: str, entry: Any) -> PromptTemplate:
    def field(of: dict[str, Any], name: str, kind: type, default: Any) -> Any:
        value = of.get(name)
        if value is not None and not isinstance(value, kind):
            raise PromptError(
                f"Expected `{name}` of a template in {path} to be {kind.__name__}, found {_type_of(value)}."
            )
        return default if value is None else value

    if not isinstance(entry, dict):
        raise PromptError(f"Expected each template in {path} to be a mapping, found {_type_of(entry)}.")
    for name in ("name", "jinja"):
        if entry.get(name) is None:
            raise PromptError(f"Expected `{name}` of each template in {path}, found {', '.join(map(str, entry))}.")
    metadata = field(entry, "metadata", dict, {})
    metrics = field(metadata, "metrics", list, [])
    if not all(isinstance(metric, str) for metric in metrics):
        raise PromptError(f"Expected `metrics` of a template in {path} to be texts.")
    return PromptTemplate(
        name=field(entry, "name", str, ""),
        jinja=field(entry, "jinja", str, ""),
        answer_choices=field(entry, "answer_choices", str, None),
        original_task=field(metadata, "original_task", bool, None),
        choices_in_prompt=field(metadata, "choices_in_prompt", bool, None),
        metrics=tuple(metrics),
        reference=field(entry, "reference", str, ""),
        dataset=dataset,
    )


def _type_of(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


def promptsource_folder() -> Path:
    """The folder of the templates of an installed PromptSource, which is not imported: a current Python cannot.

    Raises:
        ModuleNotFoundError: PromptSource is not installed.
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
    """Loads the templates for a data set.

    ```python
    load_templates("super_glue/cb")  # PromptSource's
    load_templates("tickets", folder="my_templates")  # my_templates/tickets/templates.yaml
    ```

    Args:
        dataset: `name` or `name/configuration` of the data set.
        folder: Folder of templates, laid out as PromptSource's; the installed package's by default.

    Returns:
        The templates, sorted by name.

    Raises:
        FileNotFoundError: There are no templates for this data set.
        ModuleNotFoundError: PromptSource is not installed, and no `folder` was given.
        PromptError: The templates cannot be read.
        ValueError: The data set's name leads out of the folder.
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
    """The data sets that have templates in a folder, by default the installed PromptSource's: `name` or `name/configuration`, sorted."""
    root = promptsource_folder() if folder is None else Path(folder)
    return sorted(path.parent.relative_to(root).as_posix() for path in root.rglob(_TEMPLATES_FILE))


def select_templates(
    templates: Iterable[PromptTemplate],
    *,
    metrics: Collection[str] | None = EXACT_METRICS,
    original_task: bool | None = None,
    has_choices: bool | None = None,
) -> Iterator[PromptTemplate]:
    """Selects the templates that suit a purpose.

    Args:
        templates: Templates to select from.
        metrics: Metrics of which a template must have at least one; None takes any template.
        original_task: Whether templates ask for the task that the data set was made for (True), for another (False), or either (None).
        has_choices: Whether templates have a set of possible answers (True), free text (False), or either (None).

    Returns:
        An iterator over the templates that suit.
    """
    for template in templates:
        if metrics is not None and not set(metrics) & set(template.metrics):
            continue
        if original_task is not None and bool(template.original_task) != original_task:
            continue
        if has_choices is not None and (template.answer_choices is not None) != has_choices:
            continue
        yield template
