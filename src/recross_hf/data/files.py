"""Files of examples, parquet, jsonl, json, csv or txt, read as `Dataset`s or as streams of records."""

from __future__ import annotations

import csv
import glob
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, Value

from .schema import ExampleError

READERS = (".parquet", ".jsonl", ".json", ".csv", ".txt")


def from_inputs(inputs: Sequence[Any]) -> Dataset:
    wrong = [row for row, text in enumerate(inputs) if not isinstance(text, str)]
    if wrong:
        raise ExampleError(
            f"Expected inputs that are strings, found {type(inputs[wrong[0]]).__name__} in row {wrong[0]} "
            f"({len(wrong)} such of {len(inputs)}). Pass a list of strings, a `Dataset` or a file."
        )
    return Dataset.from_dict({"input": list(inputs)}, features=Features({"input": Value("string")}))


def expand(pattern: str | Path) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        return sorted(child for child in path.rglob("*") if child.suffix in READERS)
    if path.is_file():
        return [path]
    return [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True)) if Path(match).is_file()]


def files_of(pattern: str | Path) -> list[Path]:
    """The files that a path, a folder or a pattern stands for; at least one.

    Raises:
        ExampleError: one is of a kind that cannot be read.
        FileNotFoundError: there is none.
    """
    files = expand(pattern)
    if not files:
        raise FileNotFoundError(
            f"No file at {pattern}. Expected a file, a folder or a pattern of {', '.join(READERS)}."
        )
    for path in files:
        if path.suffix not in READERS:
            raise ExampleError(f"Expected a file that ends in {', '.join(READERS)}, found {path}.")
    return files


def _read_parquet(path: Path) -> Dataset:
    return Dataset.from_parquet(str(path))


def _read_csv(path: Path) -> Dataset:
    rows = list(csv_records(path))
    if not rows:
        raise ExampleError(f"Expected examples, found no row in {path}.")
    return Dataset.from_dict({name: [row[name] for row in rows] for name in rows[0]})


def csv_records(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a csv file with a header, read as a stream.

    Everything is text: pandas would turn the answer "None" into a missing value and "1" into a number.
    """
    csv.field_size_limit(1 << 30)  # the default is less than some documents
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for number, row in enumerate(reader):
            if None in row or None in row.values():
                raise ExampleError(
                    f"Expected {len(reader.fieldnames or [])} cells in every row of {path}, found another number in row "
                    f"{number}. Quote cells that hold commas."
                )
            yield row


def _read_txt(path: Path) -> Dataset:
    # Not `splitlines`, which also splits at characters that can stand within a text, such as U+2028.
    lines = [line.strip() for line in path.read_text(encoding="utf-8").split("\n")]
    return from_inputs([line for line in lines if line])


def _read_json(path: Path) -> Dataset:
    """Objects, the authors' triples or Natural Instructions' instances.

    Values keep the types that JSON gives them; the reader of `datasets` would make a date of a text that looks like one.
    """
    records = list(json_records(path))
    if not records:
        raise ExampleError(f"Expected examples, found no record in {path}.")
    columns = dict.fromkeys(name for record in records for name in record)
    try:
        return Dataset.from_dict({name: [record.get(name) for record in records] for name in columns})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ExampleError(f"Expected values of one type in each field of {path}, found: {error}.") from error


def json_records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON file: one a line, or all in one array, which is read as a whole.

    The authors' triples and the instances of a Natural Instructions task become objects with the names of the schema.

    Raises:
        ExampleError: a record is none of these.
    """
    for number, record in enumerate(_raw_json_records(path)):
        if isinstance(record, list):
            yield _from_triple(record, path, number)
        elif not isinstance(record, dict):
            raise ExampleError(
                f"Expected objects, found {type(record).__name__} as record {number + 1} of {path}. Write one object a "
                'line, e.g. {"input": "...", "references": ["..."]}.'
            )
        elif "Instances" in record and "Definition" in record:
            yield from _from_natural_instructions(record, path)
        else:
            yield record


def _raw_json_records(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                # One array over many lines, or one object.
                if number == 0 and (line.lstrip().startswith("[") or line.strip() == "{"):
                    file.seek(0)
                    yield from _whole_json(file.read(), path)
                    return
                raise ExampleError(
                    f"Expected a JSON record in line {number + 1} of {path}, found: {error}."
                ) from error
            if isinstance(record, list) and record and isinstance(record[0], list | dict):
                yield from record
            else:
                yield record


def _whole_json(text: str, path: Path) -> list[Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ExampleError(f"Expected JSON in {path}, found: {error}.") from error
    return content if isinstance(content, list) else [content]


def _from_triple(record: Any, path: Path, number: int) -> dict[str, Any]:
    match record:
        case [str(text), [*outputs], str(identity)] if identity.count("|") >= 3:
            task, _, template, _ = identity.split("|", 3)
            return {"id": identity, "task": task, "template": template, "input": text, "references": outputs}
    raise ExampleError(
        f'Expected triples [input, [outputs], "task|split|template|#n"], found {str(record)[:80]!r} as record '
        f"{number + 1} of {path}."
    )


def _from_natural_instructions(record: dict[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    """The instances of a task of Natural Instructions (Wang et al. 2022, arXiv 2204.07705): the definition, then the input."""
    definition = record["Definition"]
    definition = " ".join(definition) if isinstance(definition, list) else definition
    for number, instance in enumerate(record["Instances"]):
        match instance:
            case {"input": str(text), "output": [*outputs]}:
                pass
            case {"input": str(text), "output": str(output)}:
                outputs = [output]
            case _:
                raise ExampleError(
                    f"Expected `input` and `output` in each of the instances in {path}, found "
                    f"{str(instance)[:80]!r} as number {number}."
                )
        yield {
            "id": str(instance.get("id", f"{path.stem}-{number}")),
            "task": path.stem,
            "template": "definition",
            "input": f"{definition}\n\n{text}",
            "references": outputs,
        }


READER_OF = {
    ".parquet": _read_parquet,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".csv": _read_csv,
    ".txt": _read_txt,
}
