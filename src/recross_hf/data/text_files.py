"""Files of text with examples, as records: txt, csv and JSON in UTF-8, whichever system wrote them."""

from __future__ import annotations

import ast
import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .schema import ExampleError
from .text_encoding import open_text

# A quoted text as Python writes it. What NumPy prints of an array of texts has spaces or line ends between them, a list commas.
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_PRINTED_LIST = re.compile(rf"\s*\[\s*{_QUOTED}(?:(?:\s*,\s*|\s+){_QUOTED})*\s*\]\s*", re.DOTALL)
_HALF_A_PAIR = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


def txt_lines(path: Path) -> list[str]:
    """The lines of a file that are not blank, without space around them.

    A line ends at a newline, a carriage return, or both; `str.splitlines` also splits at characters that can stand within a text,
    such as U+2028 and form feeds.
    """
    with open_text(path) as file:
        lines = [line.strip() for line in file.read().split("\n")]
    if (row := next((number for number, line in enumerate(lines, start=1) if "\0" in line), None)) is not None:
        raise ExampleError(
            f"Expected a file of text at {path}, found a zero byte in line {row}, as in programs and UTF-16. Save the texts as UTF-8."
        )
    return [line for line in lines if line]


# ---- csv -----------------------------------------------------------------------------------------------------------


def csv_records(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a csv file with a header, read as a stream.

    Everything is text: pandas would turn the answer "None" into a missing value and "1" into a number.

    Raises:
        ExampleError: a column is named twice, a quote is not closed, or a row has another number of cells.
    """
    csv.field_size_limit(1 << 30)  # the default is less than some documents
    with open_text(path, newline="") as file:
        ends_in_newline = file.readline().endswith("\n")
    # Else a carriage return that pandas left without quotes would end a row, of which the rest would be another.
    with open_text(path, newline="\n" if ends_in_newline else "") as file:
        # Not strict, a quote that is never closed would take all the rest of the file into one cell.
        reader = csv.DictReader(file, strict=True)
        try:
            names = list(reader.fieldnames or [])
            if len(names) == 1 and (other := next((mark for mark in ";\t" if mark in names[0]), None)):
                raise ExampleError(
                    f"Expected commas between the cells of {path}, found {other!r} in its header, {names[0][:60]!r}. Save the file with "
                    "commas, or read it with pandas: `pd.read_csv(path, sep=...)`."
                )
            repeated = [name for name, count in Counter(names).items() if count > 1 and name]
            if repeated:
                raise ExampleError(
                    f"Expected each column of {path} once, found {', '.join(map(repr, repeated))} several times in its header. "
                    "Name them apart, or remove those that are not meant."
                )
            for number, row in enumerate(reader):
                if None in row or None in row.values():
                    raise ExampleError(
                        f"Expected {len(names)} cells in every row of {path}, found another number in row {number}. Quote cells "
                        "that hold commas."
                    )
                yield row
        except csv.Error as error:
            raise ExampleError(
                f"Expected csv in {path}, found in the row that begins in line {reader.line_num + 1}: {error}. Close each quote, "
                "double those within a quoted cell, and quote cells that hold line ends."
            ) from error


def parse_list(cell: str) -> tuple[list[str], bool]:
    """The texts of a list that is written in one cell, and whether it is JSON; else NumPy or Python printed it, as `Dataset.to_csv`.

    Raises:
        ValueError: it is neither.
    """
    is_json = True
    try:
        found = json.loads(cell)
    except ValueError:
        is_json = False
        if not _PRINTED_LIST.fullmatch(cell):
            raise ValueError("neither JSON nor a printed list of texts") from None
        try:
            found = [ast.literal_eval(text) for text in re.findall(_QUOTED, cell, re.DOTALL)]
        except SyntaxError as error:
            raise ValueError(f"no text as Python prints it: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("lists within lists without end") from error
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError("no list of texts")
    "".join(found).encode()  # half a surrogate pair raises a ValueError, too
    return found, is_json


# ---- JSON ----------------------------------------------------------------------------------------------------------


def json_records(path: Path, *, whole_characters: bool = True) -> Iterator[dict[str, Any]]:
    """The objects of a JSON file: one a line, or all in one array, which is read as a whole.

    The authors' triples and the instances of a Natural Instructions task become objects with the names of the schema.

    Args:
        whole_characters: refuse halves of surrogate pairs; False for a caller that leaves such records out and counts them.

    Raises:
        ExampleError: a record is none of these, has a name twice, or text that is no text.
    """
    for number, record in enumerate(_raw_json_records(path, whole_characters)):
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


def columns_of_records(records: list[dict[str, Any]], path: Path) -> dict[str, list[Any]]:
    """Records as columns; a field that a record lacks is None there.

    Raises:
        ExampleError: a field has values of several types.
    """
    columns = {name: [record.get(name) for record in records] for name in dict.fromkeys(n for r in records for n in r)}
    for name, values in columns.items():
        first: dict[bool, tuple[int, str]] = {}  # of the field itself, and of what its lists hold
        for number, value in enumerate(values, start=1):
            for inner, item in [
                (False, value),
                *((True, item) for item in (value if isinstance(value, list) else ())),
            ]:
                if item is None:
                    continue
                kind = _KIND_OF.get(type(item), type(item).__name__)
                row, expected = first.setdefault(inner, (number, kind))
                if kind != expected:
                    raise ExampleError(
                        f"Expected values of one type in each field of {path}, found {expected} in {name!r} of record {row} and "
                        f"{kind} in record {number} ({str(item)[:40]!r}). Write all of them as text."
                    )
    return columns


_KIND_OF = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}


class _RepeatedNameError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise _RepeatedNameError(f"the name {name!r} twice in one object, of which one value would be lost")
    return record


def _parsed(text: str, place: str, whole_characters: bool, first_line: int = 1) -> Any:
    """A JSON value; `json.JSONDecodeError` is left to the caller.

    Args:
        place: where `text` begins, for messages.
        first_line: the number of its first line in the file.
    """
    try:
        content = json.loads(text, object_pairs_hook=_object)
    except _RepeatedNameError as error:
        raise ExampleError(f"Expected each name once in {place}, found {error}. Remove or rename one.") from error
    except RecursionError as error:
        raise ExampleError(
            f"Expected a record in {place}, found lists within lists without end. Remove it."
        ) from error
    half = _HALF_A_PAIR.search(text) if whole_characters else None
    if half:
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            line = first_line + text.count("\n", 0, half.start())
            raise ExampleError(
                f"Expected text in {place}, found {half[0]} in line {line}: half of a surrogate pair, and no character. Write the "
                "character itself, or both halves."
            ) from error
    return content


def _raw_json_records(path: Path, whole_characters: bool) -> Iterator[Any]:
    with open_text(path) as file:
        for number, line in enumerate(file):
            if not line.strip():
                continue
            try:
                record = _parsed(line, f"line {number + 1} of {path}", whole_characters, number + 1)
            except json.JSONDecodeError as error:
                # One array over many lines, or one object.
                if number == 0 and (line.lstrip().startswith("[") or line.strip() == "{"):
                    file.seek(0)
                    yield from _whole_json(file.read(), path, whole_characters)
                    return
                raise ExampleError(
                    f"Expected a JSON record in line {number + 1} of {path}, found: {error}."
                ) from error
            if isinstance(record, list) and record and isinstance(record[0], list | dict):
                yield from record
            else:
                yield record


def _whole_json(text: str, path: Path, whole_characters: bool) -> list[Any]:
    try:
        content = _parsed(text, str(path), whole_characters)
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
