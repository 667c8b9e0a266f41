"""Rows become examples: what each process of `prepare_mixture` does, a batch at a time."""

from __future__ import annotations

import random
from collections import Counter
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa

from .contamination import Overlap, TargetTexts
from .data import EXAMPLE_FEATURES
from .digests import digest_of
from .prompts import PromptError, PromptTemplate
from .sources import SourceError

SCHEMA = EXAMPLE_FEATURES.arrow_schema
# A template that fails on so many rows of a batch, and on all before, is not tried on the others: one that never ends is
# stopped late, and would be on every row.
_MAX_FAILURES = 10


class RowsToRender(NamedTuple):
    """Some rows of a task, and all that their examples depend on."""

    task: str
    split: str
    templates: tuple[PromptTemplate, ...]
    columns: dict[str, str]
    strips: bool
    rows: list[dict[str, Any]]
    numbers: list[int]
    per_row: int
    seed: int
    truncate: bool


class Rendered(NamedTuple):
    """Examples with digests, and what became of the rest."""

    table: pa.Table
    dropped: Counter[str]
    failures: dict[str, str]
    overlaps: list[Overlap | None]


_TARGETS = TargetTexts()


def make_examples(work: RowsToRender) -> Rendered:
    """The examples of some rows, with digests of row and example to tell repetitions by."""
    dropped: Counter[str] = Counter()
    failures: dict[str, str] = {}
    failed: Counter[str] = Counter()
    examples: list[dict[str, Any]] = []
    templates = [_compiled_once(template) for template in work.templates]
    for row, number in zip(work.rows, work.numbers, strict=True):
        if not templates:
            example = _plain_example(row, number, work)
            if isinstance(example, str):
                dropped[example] += 1
            else:
                examples.append(example | {"row": number, "row_digest": digest_of(example["id"])})
            continue
        # Their order and what they draw depend on the row alone, so that processes may share the rows as they like.
        rng = random.Random(f"{work.seed}|{work.task}|{number}")
        digest = digest_of(row)
        rendered = 0
        for template in rng.sample(templates, len(templates)):
            if rendered == work.per_row:
                break
            if failed[template.name] == _MAX_FAILURES:
                dropped["a template failed"] += 1
                continue
            try:
                example = template.example(row, truncate=work.truncate, rng=rng)
            except PromptError as error:
                failures.setdefault(template.name, f"{error} (row {number})")
                dropped["a template failed"] += 1
                failed[template.name] += 1
                continue
            failed[template.name] = -len(work.rows)  # it works
            if example is None:
                dropped["rendered to nothing"] += 1
                continue
            rendered += 1
            identity = f"{work.task}|{work.split}|{template.name}|#{number}"
            names = {"id": identity, "task": work.task, "template": template.name}
            examples.append(names | example | {"row": number, "row_digest": digest})
    columns = {name: [example[name] for example in examples] for name in SCHEMA.names}
    digests = [digest_of([example["input"], *example["references"]]) for example in examples]
    table = pa.table(columns, schema=SCHEMA)
    for name, values in (
        ("row", [example["row"] for example in examples]),
        ("row_digest", [example["row_digest"] for example in examples]),
        ("digest", digests),
    ):
        table = table.append_column(name, pa.array(values, type=pa.uint64()))
    overlaps = _TARGETS.find(columns["id"], columns["input"], columns["references"])
    return Rendered(table, dropped, failures, overlaps)


@lru_cache(maxsize=4096)
def _compiled_once(template: PromptTemplate) -> PromptTemplate:
    """The same object for equal templates: what it compiled is kept in it, and does not travel between processes."""
    return template


def _plain_example(row: dict[str, Any], number: int, work: RowsToRender) -> dict[str, Any] | str:
    """A row that is an example already, or why it is none."""

    def texts(name: str) -> list[str]:
        column = work.columns.get(name, name)
        value = row.get(column)
        if value is None:
            return []
        values = value if isinstance(value, list) else [value]
        wrong = next((item for item in values if not isinstance(item, str)), None)
        if wrong is not None:
            raise SourceError(
                f"Task {work.task}: expected text in {column!r}, found {type(wrong).__name__} in row {number} ({wrong!r}). "
                "Write labels as the text that the model is to answer, or use a template."
            )
        return [item.strip() for item in values] if work.strips else values

    for name in ("input", "references"):
        column = work.columns.get(name, name)
        if column not in row:
            raise SourceError(
                f"Task {work.task}: expected the column {column!r} (for {name!r}), found {', '.join(row)} in row {number}. Say "
                "where it is with `columns`, or use a template."
            )
    inputs, references = texts("input"), texts("references")
    if len(inputs) != 1 or not inputs[0].strip():
        return "without an input"
    if not any(references):
        return "without an answer"
    template = next(iter(texts("template")), "")
    identity = next(iter(_as_text(row.get(work.columns.get("id", "id")))), None)
    return {
        "id": identity or f"{work.task}|{work.split}|{template}|#{number}",
        "task": work.task,
        "template": template,
        "input": inputs[0],
        "references": references,
        "choices": texts("choices"),
    }


def _as_text(value: Any) -> list[str]:
    return [] if value is None else [str(value)]


def set_targets(targets: TargetTexts) -> None:
    """Sets what `make_examples` compares with: once a process, for it is large."""
    global _TARGETS
    _TARGETS = targets
