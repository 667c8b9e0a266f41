"""`TaskSource` says where the rows of a task are and what makes examples of them; a YAML file can list such sources."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ..core.recipes import RecipeLoader
from ..data.files import files_of
from .template_files import load_templates, read_templates
from .templates import SEPARATOR, PromptTemplate

TASKS_FOLDER = Path(__file__).parents[1] / "tasks"

_TASK_NAME = re.compile(r"[\w+-][\w.+-]*")
_RESERVED = frozenset({"default", "README.md", "mixture.json"})


class SourceError(ValueError):
    """A task's data or templates cannot be had; the message names the task and says what to do."""


@dataclass(frozen=True)
class TaskSource:
    """A task: the rows that it is made of, and the templates that make examples of them.

    ```python
    TaskSource("glue-mrpc", dataset="nyu-mll/glue", config="mrpc", templates="glue/mrpc")
    TaskSource("tickets", files="tickets/*.csv", templates="{{text}} Which desk? ||| {{desk}}")
    TaskSource("faq", files="faq.jsonl", columns={"input": "question", "references": "answer"})
    TaskSource("cb", dataset="bigscience/P3", config="super_glue_cb_*")  # already rendered
    ```

    Attributes:
        task: Name of the task, and of its folder.
        dataset: Name of a data set on the Hub. Its script, if there is one, is not run: the Hub's parquet form is read.
        config: Configuration of the data set; for rows that are examples already a pattern stands for several, each a template.
        split: Split of the data set.
        revision: Commit, tag or branch of the data set.
        files: Path, folder or pattern of files in place of a data set, see [`load_examples`]; JSON also as triples or Natural
            Instructions.
        templates: Name of a folder of PromptSource (`glue/mrpc`), a YAML file in its format, or one template as it is, with its
            `|||`. Without templates, rows are examples already.
        answer_choices: Possible answers of one template as it is.
        template_names: Names of the templates to use; all that suit by default.
        columns: Columns of rows that are examples already, by the schema's names.
        license: Licence of the data; the Hub is asked for it by default.
        query_split: Split that the unlabelled queries of a target task come from.

    Raises:
        SourceError: There is neither a data set nor files, or both; or files have what only a data set of the Hub has.
    """

    task: str
    dataset: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    files: str | None = None
    templates: str | None = None
    answer_choices: str | None = None
    template_names: tuple[str, ...] | None = None
    columns: dict[str, str] = field(default_factory=dict)
    license: str | None = None
    query_split: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.task, str) or not _TASK_NAME.fullmatch(self.task) or self.task in _RESERVED:
            raise SourceError(
                f"Expected a task's name of letters, digits and '.', '_', '-', '+', for a folder is named so, found {self.task!r}."
            )
        if (self.dataset is None) == (self.files is None):
            raise SourceError(f"Expected `dataset` or `files` for the task {self.task}, one of them.")
        of_the_hub = {
            "config": self.config,
            "revision": self.revision,
            "split": self.split if self.split != "train" else None,
        }
        if self.files is not None and (ignored := [name for name, value in of_the_hub.items() if value is not None]):
            raise SourceError(
                f"Expected `{'`, `'.join(ignored)}` of a data set on the Hub, found `files` for the task {self.task}, of which all rows are "
                "read. Leave that out, and name the files of a split."
            )
        if self.templates is not None and self.columns:
            raise SourceError(f"Expected `templates` or `columns` for the task {self.task}, found both.")

    @property
    def origin(self) -> str:
        """The rows that are read, in words; a path is cut to its last folder and name, for the rest says nothing elsewhere."""
        if self.files is not None:
            return "/".join(Path(self.files).parts[-2:])
        return f"{self.dataset}{f' ({self.config})' * (self.config is not None)}, {self.split}"

    def load_templates(self, *, folder: str | Path | None = None) -> list[PromptTemplate]:
        """Loads the task's templates; there are none where rows are examples already.

        Args:
            folder: Folder of templates, laid out as PromptSource's; the installed package's by default.

        Returns:
            The templates, sorted by name, or in the order of `template_names`.

        Raises:
            SourceError: There are no templates of this name.
            PromptError: The templates cannot be read.
        """
        if self.templates is None:
            return []
        if SEPARATOR in self.templates:
            return [PromptTemplate("template", self.templates, self.answer_choices, dataset=self.task)]
        try:
            is_file = self.templates.endswith((".yaml", ".yml"))
            templates = read_templates(self.templates) if is_file else load_templates(self.templates, folder=folder)
        except FileNotFoundError as error:
            raise SourceError(f"Task {self.task}: {error}") from error
        if self.template_names is None:
            return templates
        known = {template.name: template for template in templates}
        for name in self.template_names:
            if name not in known:
                raise SourceError(
                    f"Task {self.task}: expected a template of {self.templates}, found {name!r}. There are "
                    f"{', '.join(map(repr, known))}."
                )
        return [known[name] for name in self.template_names]


def read_task_sources(path: str | Path) -> dict[str, list[TaskSource]]:
    """Reads the tasks of a YAML file, which lists the fields of [`TaskSource`] under `upstream` and, optionally, `targets`.

    ```yaml
    upstream:
      - task: glue-mrpc
        dataset: nyu-mll/glue
        config: mrpc
        templates: glue/mrpc
      - task: tickets
        files: tickets/*.csv
        templates: "{{text}} Which desk? ||| {{desk}}"
    ```

    Args:
        path: Path of the file, or `recross` for the paper's tasks, which come with the package.

    Returns:
        The tasks under `upstream` and under `targets`.

    Raises:
        SourceError: The file lists no such tasks; the message says where.
        FileNotFoundError: There is no such file.
    """
    path = Path(path)
    packaged = TASKS_FOLDER / f"{path}.yaml"
    if not path.suffix and packaged.is_file():
        path = packaged
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a YAML file of tasks, found none at {path}. With the package come "
            f"{', '.join(sorted(file.stem for file in TASKS_FOLDER.glob('*.yaml')))}."
        )
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=RecipeLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise SourceError(f"Expected YAML in {path}, found: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict) or not content.get("upstream") or set(content) - {"upstream", "targets"}:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        found = "" if content is None else found
        raise SourceError(f"Expected `upstream` and, optionally, `targets` in {path}, found {found or 'nothing'}.")
    return {key: _sources(content.get(key) or [], key, path) for key in ("upstream", "targets")}


def _sources(entries: Any, key: str, path: Path) -> list[TaskSource]:
    known = {known.name for known in fields(TaskSource)}
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "task" in entry for entry in entries):
        raise SourceError(f"Expected a list of mappings, each with `task`, under `{key}` in {path}.")
    sources = []
    for entry in entries:
        for name in entry.keys() - known:
            near = difflib.get_close_matches(str(name), known, 1)
            raise SourceError(
                f"Expected fields of a task in {path}, found {name!r} in {entry['task']!r}."
                + (f" Did you mean {near[0]!r}?" if near else f" There are {', '.join(sorted(known))}.")
            )
        for name, value in entry.items():
            expected = {"columns": dict, "template_names": list}.get(name, str)
            if value is not None and not isinstance(value, expected):
                raise SourceError(
                    f"Expected `{name}` of {entry['task']!r} in {path} to be {expected.__name__}, found {value!r}."
                )
        if isinstance(entry.get("template_names"), list):
            entry = entry | {"template_names": tuple(entry["template_names"])}
        sources.append(TaskSource(**entry))
    counts = Counter(source.task for source in sources)
    repeated = [task for task, count in counts.items() if count > 1]
    if repeated:
        raise SourceError(f"Expected each task once under `{key}` in {path}, found more of {', '.join(repeated)}.")
    return sources


def sources_of_files(pattern: str, **settings: Any) -> list[TaskSource]:
    """Makes a task of each folder of files, or of each file where all lie in one folder.

    Args:
        pattern: Path, folder or pattern of the files, e.g. `raw/*/train.parquet`.
        settings: Fields of each [`TaskSource`], e.g. `columns`.

    Returns:
        The tasks, in the order of their files.

    Raises:
        SourceError: A folder has several files.
    """
    files = files_of(pattern)
    by_folder = len({file.parent for file in files}) > 1 or "*" in Path(pattern).parent.as_posix()
    sources = [TaskSource(file.parent.name if by_folder else file.stem, files=str(file), **settings) for file in files]
    counts = Counter(source.task for source in sources)
    repeated = [task for task, count in counts.items() if count > 1]
    if repeated:
        raise SourceError(f"Expected one file for each task of {pattern}, found several for {', '.join(repeated)}.")
    return sources
