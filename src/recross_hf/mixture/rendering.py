"""Rows become examples: what each process of `prepare_mixture` does, a batch at a time."""

from __future__ import annotations

import random
from collections import Counter
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa

from ..core.hashing import digest_of
from ..data.schema import EXAMPLE_FEATURES
from .decontamination import Overlap, TargetTexts
from .sandbox import PromptBudgetError, PromptError
from .sources import SourceError
from .templates import PromptTemplate

SCHEMA = EXAMPLE_FEATURES.arrow_schema
# A template that takes more than it may would on most rows, each time as long: after so many in a batch it is passed over.
_MAX_EXCESSES = 2


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
    excesses: Counter[str] = Counter()
    examples: list[dict[str, Any]] = []
    templates = [_compiled_once(template) for template in work.templates]
    # A row is what templates show of it: many data sets number their rows in a column.
    shown = sorted(frozenset().union(*(template.columns for template in templates)))
    for row, number in zip(work.rows, work.numbers, strict=True):
        if not templates:
            example = _plain_example(row, number, work)
            if isinstance(example, str):
                dropped[example] += 1
            else:
                texts = [example[name] for name in ("template", "input", "references")]
                examples.append(example | {"row": number, "row_digest": digest_of([example["id"], *texts])})
            continue
        # Their order and what they draw depend on the row alone, so that processes may share the rows as they like.
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
            examples.append(names | example | {"row": number, "row_digest": digest})
    sound = [example for example in examples if _is_unicode(example)]
    if len(sound) < len(examples):
        dropped["with characters that are none"] += len(examples) - len(sound)
    columns = {name: [example[name] for example in sound] for name in SCHEMA.names}
    digests = {
        "row": [example["row"] for example in sound],
        "row_digest": [example["row_digest"] for example in sound],
        "digest": [digest_of([example["input"], *example["references"]]) for example in sound],
    }
    table = pa.table(columns, schema=SCHEMA)
    for name, values in digests.items():
        table = table.append_column(name, pa.array(values, type=pa.uint64()))
    # The id that the data have is compared, and not the one that was made of it.
    overlaps = _TARGETS.find(
        [example.get("own_id", example["id"]) for example in sound], columns["input"], columns["references"]
    )
    return Rendered(table, dropped, failures, overlaps)


def _is_unicode(example: dict[str, Any]) -> bool:
    """Half of a surrogate pair, as JSON can hold it, has no place in any file."""
    try:
        for text in (example["id"], example["input"], *example["references"], *example["choices"]):
            text.encode()
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(maxsize=4096)
def _compiled_once(template: PromptTemplate) -> PromptTemplate:
    """The same object for equal templates: what it compiled is kept in it, and does not travel between processes."""
    return template


def _plain_example(row: dict[str, Any], number: int, work: RowsToRender) -> dict[str, Any] | str:
    """A row that is an example already, or why it is none."""

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
        return [item.strip() for item in values] if work.strips else values

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


def set_targets(targets: TargetTexts) -> None:
    """Sets what `make_examples` compares with: once a process, for it is large."""
    global _TARGETS
    _TARGETS = targets
