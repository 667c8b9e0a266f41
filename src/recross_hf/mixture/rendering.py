"""Rows become examples: `Renderer` does it a batch at a time, in this process or in several."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from ..core.hashing import digest_of
from ..data.schema import EXAMPLE_FEATURES
from .decontamination import Decontaminator, Overlap
from .sandbox_budget import PromptBudgetError, PromptError
from .sources import SourceError
from .templates import PromptTemplate

SCHEMA = EXAMPLE_FEATURES.arrow_schema
# A template that takes more than it may would on most rows, each time as long: after so many in a batch it is passed over.
_MAX_EXCESSES = 2


class RowsToRender(NamedTuple):
    """Some rows of a task, and all that their examples depend on.

    Attributes:
        task: Name of the task.
        split: Split that the rows are from.
        templates: Templates to render by; without any, rows are examples already.
        columns: Columns of rows that are examples already, by the schema's names.
        is_padded: Whether texts of rows that are examples already have white space around them, which is no content.
        rows: The rows, as mappings.
        numbers: Number of each row in the data.
        per_row: Templates to render each row by.
        seed: Seed for drawing templates.
        truncate: Whether to cut each value to 2,048 characters.
    """

    task: str
    split: str
    templates: tuple[PromptTemplate, ...]
    columns: Mapping[str, str]
    is_padded: bool
    rows: list[dict[str, Any]]
    numbers: list[int]
    per_row: int
    seed: int
    truncate: bool


class Rendered(NamedTuple):
    """The examples of some rows, and what became of the others.

    Attributes:
        table: Examples in the schema's columns, and the columns `row` (its number), `row_digest` and `digest` (of the example), by
            which repetitions are told.
        dropped: Number of examples that were not made, by reason.
        failures: First failure of each template that failed, by its name.
        overlaps: Overlap of each example with a target task, or None.
    """

    table: pa.Table
    dropped: Counter[str]
    failures: dict[str, str]
    overlaps: list[Overlap | None]


class Renderer:
    """Makes examples of rows, and compares them with target tasks.

    It keeps the templates that it has compiled. It can be pickled; what is compiled stays behind.

    Args:
        targets: Texts of target tasks to compare with; by default none.
    """

    def __init__(self, targets: Decontaminator | None = None) -> None:
        self.targets = Decontaminator() if targets is None else targets  # an empty Decontaminator is falsy
        self._compiled: dict[PromptTemplate, PromptTemplate] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"targets": self.targets, "_compiled": {}}

    def render(self, work: RowsToRender) -> Rendered:
        """Makes the examples of some rows.

        Raises:
            SourceError: A row that should be an example already lacks a column, or holds no text in it.
        """
        dropped: Counter[str] = Counter()
        failures: dict[str, str] = {}
        made = self._by_templates(work, dropped, failures) if work.templates else _plain_examples(work, dropped)
        examples = []
        for example in made:
            if _is_unicode(example):
                examples.append(example)
            else:
                dropped["with characters that are none"] += 1
        columns = {name: [example[name] for example in examples] for name in SCHEMA.names}
        table = pa.table(columns, schema=SCHEMA)
        digests = [digest_of([example["input"], *example["references"]]) for example in examples]
        for name in ("row", "row_digest"):
            table = table.append_column(name, pa.array([example[name] for example in examples], type=pa.uint64()))
        table = table.append_column("digest", pa.array(digests, type=pa.uint64()))
        # The id that the data have is compared, and not the one that was made of it.
        ids = [example.get("own_id", example["id"]) for example in examples]
        return Rendered(table, dropped, failures, self.targets.find(ids, columns["input"], columns["references"]))

    def _by_templates(
        self, work: RowsToRender, dropped: Counter[str], failures: dict[str, str]
    ) -> Iterator[dict[str, Any]]:
        """The examples that templates make of rows."""
        # Equal templates are one object, in which the compiled code is kept.
        templates = [self._compiled.setdefault(template, template) for template in work.templates]
        excesses: Counter[str] = Counter()
        # A row is what templates show of it: many data sets number their rows in a column.
        shown = sorted(frozenset().union(*(template.columns for template in templates)))
        for row, number in zip(work.rows, work.numbers, strict=True):
            # The order of templates and their random numbers depend on the row alone, so that processes may share the rows as they like.
            rng = random.Random(f"{work.seed}|{work.task}|{number}")
            digest = digest_of([row.get(name) for name in shown] if shown else row)
            rendered = 0
            for template in rng.sample(templates, len(templates)):
                if rendered == work.per_row:
                    break
                if excesses[template.name] == _MAX_EXCESSES:
                    dropped["a template failed"] += 1
                    continue
                try:
                    example = template.example(row, truncate=work.truncate, rng=rng)
                except PromptError as error:
                    failures.setdefault(template.name, f"{error} (row {number})")
                    dropped["a template failed"] += 1
                    excesses[template.name] += isinstance(error, PromptBudgetError)
                    continue
                if example is None:
                    dropped["rendered to nothing"] += 1
                    continue
                rendered += 1
                identity = f"{work.task}|{work.split}|{template.name}|#{number}"
                names = {"id": identity, "task": work.task, "template": template.name}
                yield names | example | {"row": number, "row_digest": digest}


def _is_unicode(example: dict[str, Any]) -> bool:
    """Whether all texts can be written to a file: half of a surrogate pair, as JSON can hold it, cannot."""
    try:
        for text in (example["id"], example["input"], *example["references"], *example["choices"]):
            text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain_examples(work: RowsToRender, dropped: Counter[str]) -> Iterator[dict[str, Any]]:
    """The rows that are examples already."""
    for row, number in zip(work.rows, work.numbers, strict=True):
        example = _plain_example(row, number, work)
        if isinstance(example, str):
            dropped[example] += 1
        else:
            texts = [example[name] for name in ("template", "input", "references")]
            yield example | {"row": number, "row_digest": digest_of([example["id"], *texts])}


def _plain_example(row: dict[str, Any], number: int, work: RowsToRender) -> dict[str, Any] | str:
    """A row that is an example already, or the reason why it is none."""

    def column(name: str) -> str:
        return work.columns.get(name, name)

    def texts(name: str) -> list[str]:
        value = row.get(column(name))
        values = [item for item in (value if isinstance(value, list) else [value]) if item is not None]
        wrong = next((item for item in values if not isinstance(item, str)), None)
        if wrong is not None:
            raise SourceError(
                f"Task {work.task}: expected text in {column(name)!r}, found {type(wrong).__name__} in row {number} "
                f"({wrong!r}). Write labels as the text that the model is to answer, or use a template."
            )
        return [item.strip() for item in values] if work.is_padded else values

    for name in ("input", "references"):
        if column(name) not in row:
            raise SourceError(
                f"Task {work.task}: expected the column {column(name)!r} (for {name!r}), found {', '.join(row)} in row "
                f"{number}. Say where it is with `columns`, or use a template."
            )
    inputs, references = texts("input"), [text for text in texts("references") if text.strip()]
    if len(inputs) > 1:
        raise SourceError(
            f"Task {work.task}: expected one text in {column('input')!r}, found {len(inputs)} in row {number}."
        )
    if not inputs or not inputs[0].strip():
        return "without an input"
    if not references:
        return "without an answer"
    template = next(iter(texts("template")), "")
    own = row.get(column("id"))
    own = None if own is None else str(own)
    # Ids need to be unique over all tasks: those that do not name their task come to.
    if own is not None and len(own.split("|")) >= 4:
        identity = own
    else:
        identity = f"{work.task}|{work.split}|{template}|#{number if own is None else own}"
    return {
        "id": identity,
        "own_id": identity if own is None else own,
        "task": work.task,
        "template": template,
        "input": inputs[0],
        "references": references,
        "choices": texts("choices"),
    }
