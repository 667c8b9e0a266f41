"""Where the rows of upstream tasks come from: files and data sets on the Hub, read as streams."""

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

P3 = "bigscience/P3"
P3_SCORED = "_score_eval"  # configurations of P3 that hold a row for each candidate answer, the wrong ones included
P3_COLUMNS = {"input": "inputs_pretokenized", "references": "targets_pretokenized", "choices": "answer_choices"}


_TASK_NAME = re.compile(r"[\w+-][\w.+-]*")
_RESERVED = frozenset({"default", "README.md", "mixture.json"})


class SourceError(ValueError):
    """A task whose data or templates cannot be had; the message names the task and says what to do."""


@dataclass(frozen=True)
class TaskSource:
    """A task: where its rows are, and what makes examples of them.

    ```python
    TaskSource("glue-mrpc", dataset="nyu-mll/glue", config="mrpc", templates="glue/mrpc")
    TaskSource("tickets", files="tickets/*.csv", templates="{{text}} Which desk? ||| {{desk}}")
    TaskSource("faq", files="faq.jsonl", columns={"input": "question", "references": "answer"})
    TaskSource("cb", dataset="bigscience/P3", config="super_glue_cb_*")  # already rendered
    ```

    Attributes:
        task: its name; a folder is named so.
        dataset: a data set on the Hub. Its script, if there is one, is not run: the Hub's parquet form is read.
        config: its configuration; for rows that are examples already, as in P3, a pattern stands for several, each a template
            (in P3 without those that hold wrong answers, too, `*_score_eval`).
        split: its split.
        revision: a commit, tag or branch of it.
        files: or files: a path, folder or pattern, see [`load_examples`]; JSON also as triples or Natural Instructions.
        templates: how rows become examples: the name of a folder of PromptSource (`glue/mrpc`), a YAML file in its format, or
            one template as it is, with its `|||`. Without, rows are examples already.
        answer_choices: of one template as it is.
        template_names: which of the templates to use; all that suit by default.
        columns: where the schema's columns are in rows that are examples already.
        license: of the data; asked of the Hub where not given.
        query_split: for a target task, the split that its unlabelled queries come from.

    Raises:
        SourceError: there is neither a data set nor files, or both.
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
        if self.templates is not None and self.columns:
            raise SourceError(f"Expected `templates` or `columns` for the task {self.task}, found both.")
        if self.dataset == P3 and not self.columns:
            object.__setattr__(self, "columns", P3_COLUMNS)

    @property
    def origin(self) -> str:
        """What it reads, in words; of files the last folder and the name, as the rest says nothing elsewhere."""
        if self.files is not None:
            return "/".join(Path(self.files).parts[-2:])
        return f"{self.dataset}{f' ({self.config})' * (self.config is not None)}, {self.split}"

    def load_templates(self, *, folder: str | Path | None = None) -> list[PromptTemplate]:
        """The templates, by name; none where rows are examples already.

        Args:
            folder: of templates, laid out as PromptSource's; that of the installed package by default.

        Raises:
            SourceError: there are none of this name.
            PromptError: they cannot be read.
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
    """The tasks of a YAML file: lists of the fields of [`TaskSource`] under `upstream` and, optionally, `targets`.

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
        path: the file, or `recross` for the paper's tasks, which come with the package.

    Raises:
        SourceError: the file is none such; the message says where.
        FileNotFoundError: there is no such file.
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
        raise SourceError(f"Expected `upstream` and, optionally, `targets` in {path}, found {found or 'nothing'}.")
    return {part: _sources(content.get(part) or [], part, path) for part in ("upstream", "targets")}


def _sources(entries: Any, part: str, path: Path) -> list[TaskSource]:
    known = {known.name for known in fields(TaskSource)}
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "task" in entry for entry in entries):
        raise SourceError(f"Expected a list of mappings, each with `task`, under `{part}` in {path}.")
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
        raise SourceError(f"Expected each task once under `{part}` in {path}, found more of {', '.join(repeated)}.")
    return sources


def sources_of_files(pattern: str, **settings: Any) -> list[TaskSource]:
    """A task for each folder of files; for each file where they all lie in one folder.

    Args:
        pattern: a path, a folder or a pattern, e.g. `raw/*/train.parquet`.
        settings: fields of each [`TaskSource`], e.g. `columns`.
    """
    files = files_of(pattern)
    by_folder = len({file.parent for file in files}) > 1 or "*" in Path(pattern).parent.as_posix()
    sources = [TaskSource(file.parent.name if by_folder else file.stem, files=str(file), **settings) for file in files]
    counts = Counter(source.task for source in sources)
    repeated = [task for task, count in counts.items() if count > 1]
    if repeated:
        raise SourceError(f"Expected one file for each task of {pattern}, found several for {', '.join(repeated)}.")
    return sources
