"""Where the rows of upstream tasks come from: files and data sets on the Hub, read as streams."""

from __future__ import annotations

import csv
import difflib
import errno
import fnmatch
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets import Dataset, get_dataset_config_names, load_dataset
from datasets.exceptions import DatasetsError
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from ..data.readers import ExampleError, csv_records, files_of, json_records
from .templates import SEPARATOR, PromptTemplate, load_templates, read_templates

# Of the HTTP client that huggingface_hub uses, whichever that is: no connection, no answer in time.
_HTTPError: type[Exception] = next(base for base in HfHubHTTPError.__bases__ if base is not OSError)

TASKS_FOLDER = Path(__file__).parents[1] / "tasks"
BATCH_ROWS = 1024
CONVERTED = "refs/convert/parquet"
"""The branch on which the Hub keeps data sets, also those whose scripts no longer run, as `config/split/*.parquet`."""

P3 = "bigscience/P3"
_P3_SCORED = "_score_eval"  # configurations of P3 that hold a row for each candidate answer, the wrong ones included
_P3_COLUMNS = {"input": "inputs_pretokenized", "references": "targets_pretokenized", "choices": "answer_choices"}


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
            object.__setattr__(self, "columns", _P3_COLUMNS)

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
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
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


# ---- rows ------------------------------------------------------------------------------------------------------------


UNREADABLE = (csv.Error, UnicodeError, pa.ArrowException)
"""What files raise that are not what their names say."""


class Rows:
    """The rows of a task, in order, a batch at a time.

    Attributes:
        num_rows: how many there are.
        column_names: of all rows; empty where they may differ, as in JSON.
        version: what tells another state of the same source: commits, or a hash of files; None where it is not known.
        license: of the data, where it is known.
        notes: what a reader of the result should know of the source.
    """

    def __init__(
        self,
        num_rows: int,
        column_names: Sequence[str],
        batches: Callable[[], Iterator[RowBatch]],
        *,
        version: str | None,
        license: str | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.num_rows = num_rows
        self.column_names = tuple(column_names)
        self.version = version
        self.license = license
        self.notes = list(notes)
        self._batches = batches

    def batches(self) -> Iterator[RowBatch]:
        """All rows from the first, at most 1,024 a batch."""
        return self._batches()


class RowBatch:
    """Some rows; those that are asked for become Python values.

    Attributes:
        first: the number of the first, from 0 in each configuration.
    """

    def __init__(self, rows: pa.Table | list[dict[str, Any]], first: int, **constants: Any) -> None:
        self.first = first
        self._rows = rows
        self._constants = constants

    def __len__(self) -> int:
        return len(self._rows)

    def column(self, name: str) -> list[Any]:
        """The values of one column; None where a row has none."""
        if isinstance(self._rows, list):
            return [row.get(name) for row in self._rows]
        return self._rows[name].to_pylist() if name in self._rows.column_names else [None] * len(self)

    def take(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Some rows as mappings."""
        if isinstance(self._rows, list):
            rows = [self._rows[position] for position in positions]
        else:
            rows = self._rows.take(pa.array(positions, type=pa.int64())).to_pylist()
        return [self._constants | row for row in rows] if self._constants else rows


def open_rows(source: TaskSource) -> Rows:
    """Opens the rows of a task; a data set on the Hub is downloaded once.

    Raises:
        SourceError: a path leads nowhere or to what is no table; the data set is gone, private or gated, or has no such
            configuration or split.
    """
    if source.files is None:
        return _hub_rows(source)
    try:
        return _file_rows(source)
    except (ExampleError, FileNotFoundError) as error:
        raise SourceError(f"Task {source.task}: {error}") from error
    except UNREADABLE as error:
        raise SourceError(f"Task {source.task}: {source.origin} cannot be read: {error}") from error


def _file_rows(source: TaskSource) -> Rows:
    paths = files_of(source.files or "")
    version = " ".join(map(_fingerprint, paths))
    if all(path.suffix == ".parquet" for path in paths):
        try:
            footers = [pq.read_metadata(path) for path in paths]
        except pa.ArrowInvalid as error:
            raise SourceError(f"Task {source.task}: expected parquet in {source.files}, found: {error}.") from error

        def batches() -> Iterator[RowBatch]:
            first = 0
            for path in paths:
                # Without a buffer a row group is read as a whole, and row groups can be the whole file.
                with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
                    for batch in file.iter_batches(BATCH_ROWS):
                        yield RowBatch(pa.Table.from_batches([batch]), first)
                        first += len(batch)

        names = footers[0].schema.to_arrow_schema().names
        return Rows(
            sum(footer.num_rows for footer in footers), names, batches, version=version, license=source.license
        )

    def records() -> Iterator[dict[str, Any]]:
        for path in paths:
            match path.suffix:
                case ".json" | ".jsonl":
                    yield from json_records(path)
                case ".csv":
                    yield from csv_records(path)
                case ".parquet":
                    for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS):
                        yield from batch.to_pylist()
                case _:
                    raise SourceError(
                        f"Task {source.task}: expected parquet, json, jsonl or csv, found {path}: it has no answers."
                    )

    num_rows, names = 0, []
    for row in records():  # once to count them
        names = names or list(row)
        num_rows += 1
    # Objects of JSON need not have the same names.
    names = names if all(path.suffix == ".csv" for path in paths) else []
    return Rows(num_rows, names, lambda: _batched(records()), version=version, license=source.license)


def _fingerprint(path: Path) -> str:
    """A hash of a file's size and of its two ends: the footer of parquet is at one of them, and a large file is not read for it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(str(size).encode() + file.read(1 << 16))
        file.seek(max(0, size - (1 << 16)))
        digest.update(file.read())
    return digest.hexdigest()[:16]


def _batched(records: Iterator[dict[str, Any]]) -> Iterator[RowBatch]:
    first = 0
    while batch := list(itertools.islice(records, BATCH_ROWS)):
        yield RowBatch(batch, first)
        first += len(batch)


def _hub_rows(source: TaskSource) -> Rows:
    """A data set's own files where it has no script, else the Hub's parquet form of it."""
    try:
        commit, license = _commit_and_license(source)
        parts, notes = _parts(source, commit)
    except (DatasetsError, _HTTPError, OSError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SourceError(f"Task {source.task}: {_explained(source, error)}") from error
    # Of rows that are examples already each configuration is what one template made. Where all are as long, row n of each is
    # row n of the source; else rows are told apart.
    is_template = source.templates is None and (len(parts) > 1 or source.dataset == P3)
    aligned = len({len(dataset) for _, dataset in parts}) == 1
    if not aligned:
        notes.append(
            "configurations differ in length: prompts of one source row cannot be told, and may be in both splits"
        )

    def batches() -> Iterator[RowBatch]:
        first = 0
        for config, dataset in parts:
            first = 0 if aligned else first
            for table in dataset.with_format("arrow").iter(BATCH_ROWS):
                yield RowBatch(table, first, **({"template": config} if is_template else {}))
                first += len(table)

    names = [*parts[0][1].column_names, *(["template"] if is_template else [])]
    return Rows(
        sum(len(dataset) for _, dataset in parts),
        names,
        batches,
        version=commit and f"{source.dataset}@{commit}",
        license=source.license or license,
        notes=notes,
    )


def _commit_and_license(source: TaskSource) -> tuple[str | None, str | None]:
    """The commit, so that all parts are of the same, and the licence; neither is known offline."""
    try:
        info = HfApi().dataset_info(source.dataset or "", revision=source.revision)
    except OfflineModeIsEnabled:
        return None, None
    license = getattr(info.card_data, "license", None)
    return info.sha, ", ".join(license) if isinstance(license, list) else license


def _parts(source: TaskSource, commit: str | None) -> tuple[list[tuple[str | None, Dataset]], list[str]]:
    """The configurations and their rows, and what is to be known of them."""
    name, revision = source.dataset or "", commit or source.revision
    try:
        configs = [source.config]
        if source.config is not None and "*" in source.config:
            configs = _matching(get_dataset_config_names(name, revision=revision), source)
        return [(config, load_dataset(name, config, split=source.split, revision=revision)) for config in configs], []
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
    if source.revision is not None:
        raise ValueError(f"a script, which is not run, and its parquet form has no revision {source.revision}")
    return _converted(source)


def _matching(known: Sequence[str], source: TaskSource) -> list[str]:
    if source.templates is not None:
        raise ValueError(f"a pattern of configurations ({source.config}), which is for rows that are examples already")
    pattern = source.config or ""
    found = sorted(name for name in known if fnmatch.fnmatchcase(name, pattern))
    if source.dataset == P3 and not pattern.endswith(_P3_SCORED):
        found = [name for name in found if not name.endswith(_P3_SCORED)]
    if not found:
        raise ValueError(f"no configuration like {pattern!r}")
    return found


def _converted(source: TaskSource) -> tuple[list[tuple[str | None, Dataset]], list[str]]:
    """The same from the Hub's parquet form, at the commit that it has now."""
    name, api = source.dataset or "", HfApi()
    try:
        commit = api.dataset_info(name, revision=CONVERTED).sha
    except RevisionNotFoundError as error:
        raise ValueError(
            "a script, which is not run, and no parquet form of it. Download the data, and use `files`"
        ) from error

    def entries(folder: str | None) -> list[RepoFile | RepoFolder]:
        try:
            return list(api.list_repo_tree(name, folder, revision=commit, repo_type="dataset"))
        except EntryNotFoundError:
            return []

    configs = [source.config]
    if source.config is None or "*" in source.config:
        known = [entry.path for entry in entries(None) if isinstance(entry, RepoFolder)]
        if source.config is None and len(known) != 1:
            raise ValueError(f"the configurations {', '.join(known)}: say which with `config`")
        configs = known if source.config is None else _matching(known, source)
    parts, notes = [], [f"read in the Hub's parquet form, at {commit}"]
    for config in configs:
        for split in (source.split, f"partial-{source.split}"):  # of large ones the Hub converts the first part
            files = sorted(entry.path for entry in entries(f"{config}/{split}") if entry.path.endswith(".parquet"))
            if files:
                urls = [f"hf://datasets/{name}@{commit}/{path}" for path in files]
                parts.append((config, load_dataset("parquet", data_files=urls, split="train")))
                notes += ["the Hub's parquet form holds the first part of it alone"] * (split != source.split)
                break
        else:
            raise ValueError(f"no {config}/{source.split} in the parquet form of {name}, which has a script")
    return parts, notes


def _explained(source: TaskSource, error: Exception) -> str:
    name = source.dataset
    causes = [error, error.__cause__, error.__context__]
    if any(isinstance(cause, GatedRepoError) for cause in causes) or "a gated dataset" in str(error):
        return (
            f"the data set {name} is gated. Accept its terms on its page on the Hub, and log in with `hf auth login`."
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes) or "doesn't exist on the Hub" in str(error):
        return (
            f"expected the data set {name} on the Hub, found none. It was renamed or removed, or it is private: then log in "
            "with `hf auth login`."
        )
    if isinstance(error, OfflineModeIsEnabled) or "OfflineModeIsEnabled" in str(error):
        return (
            f"expected the data set {name} in the cache, for this is offline, found none. Run once with a connection."
        )
    if isinstance(error, ConnectionError | _HTTPError) and not isinstance(error, HfHubHTTPError):
        return f"expected the data set {name}, found no Hub at {HfApi().endpoint} ({error}). Try again: what is done is kept."
    config = f"{source.config}, " if source.config else ""
    return f"expected {config}split {source.split!r} of the data set {name}, found: {' '.join(str(error).split())}"
