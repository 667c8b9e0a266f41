"""Examples of a task: one schema, and the readers that bring every source to it."""

from __future__ import annotations

import csv
import glob
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, List, Value, load_dataset
from datasets.fingerprint import Hasher
from datasets.table import InMemoryTable

logger = logging.getLogger(__name__)

EXAMPLE_FEATURES = Features(
    {
        "id": Value("string"),
        "task": Value("string"),
        "template": Value("string"),
        "input": Value("string"),
        "references": List(Value("string")),
        "choices": List(Value("string")),
    }
)
"""The schema of an example. Query examples have no `references`; `choices` is there only if the source has it."""

READERS = (".parquet", ".jsonl", ".json", ".csv", ".txt")

Source = str | Path | Dataset | Sequence[str | Path]


class ExampleError(ValueError):
    """Data that cannot be read as examples; the message says what was expected, what was found and what to do."""


def load_examples(
    source: Source,
    *,
    columns: Mapping[str, str] | None = None,
    task: str | None = None,
    split: str = "train",
    drop_invalid: bool = False,
    **load_dataset_kwargs: Any,
) -> Dataset:
    """Reads labelled examples of one or many tasks.

    Args:
        source: a `Dataset`; one or several paths or glob patterns of parquet, jsonl, json or csv files (json also as
            the authors' triples `[input, [outputs], "task|split|template|#n"]`, or as a task of Natural Instructions); a
            folder of such files; or the name of a data set on the Hub.
        columns: where the schema's columns are in the source, e.g. `{"input": "question", "references": "answers"}`.
        task: the task of every example, if the source has no such column.
        split: the split to read of a data set on the Hub.
        drop_invalid: leave out, with a warning, the rows that would raise.
        load_dataset_kwargs: passed to `datasets.load_dataset` for a data set on the Hub (`name`, `revision`, ...).

    Returns:
        A `Dataset` with the columns `id`, `task`, `template`, `input`, `references` and, if the source has it,
        `choices`. A missing `id` is made of the task and the row number, a missing `template` is empty.

    Raises:
        ExampleError: a column is missing or of another type, an input is empty, there are no references, or ids
            repeat.
        FileNotFoundError: a path leads nowhere.
    """
    datasets = _read(source, split, load_dataset_kwargs)
    return _conform(datasets, columns or {}, task or "unknown", labelled=True, drop_invalid=drop_invalid)


def load_queries(
    source: Source | Sequence[str],
    *,
    columns: Mapping[str, str] | None = None,
    task: str | None = None,
    split: str = "train",
    drop_invalid: bool = False,
    **load_dataset_kwargs: Any,
) -> Dataset:
    """Reads the unlabelled inputs of an unseen task.

    Takes what [`load_examples`] takes, `.txt` files with one input a line (blank lines are passed over), and a list
    of strings, which are then the inputs themselves. Labels are not for the method to see: they are dropped with a
    warning.
    """
    if isinstance(source, list | tuple) and not _are_paths(source):
        source = _from_inputs(source)
    elif isinstance(source, str) and not source.endswith(READERS) and (len(source) > 255 or len(source.split()) > 1):
        raise ExampleError(f"Expected a list of inputs or a file, found one text ({source[:40]!r}...). Pass `[text]`.")
    datasets = _read(source, split, load_dataset_kwargs)
    return _conform(datasets, columns or {}, task or "unseen", labelled=False, drop_invalid=drop_invalid)


def _are_paths(source: Sequence[Any]) -> bool:
    return bool(source) and all(
        isinstance(item, Path) or (isinstance(item, str) and item.endswith(READERS) and _expand(item))
        for item in source
    )


def _from_inputs(inputs: Sequence[Any]) -> Dataset:
    wrong = [row for row, text in enumerate(inputs) if not isinstance(text, str)]
    if wrong:
        raise ExampleError(
            f"Expected inputs that are strings, found {type(inputs[wrong[0]]).__name__} in row {wrong[0]} "
            f"({len(wrong)} such of {len(inputs)}). Pass a list of strings, a `Dataset` or a file."
        )
    return Dataset.from_dict({"input": list(inputs)}, features=Features({"input": Value("string")}))


def examples_by_task(
    examples: Dataset, *, max_examples_per_task: int | None = None, seed: int = 0
) -> dict[str, Dataset]:
    """Splits examples by task, in alphabetical order; of a larger task `max_examples_per_task` are drawn, always the same."""
    tasks = np.array(examples["task"][:], dtype=object)
    found = {}
    for task in sorted(set(tasks)):
        rows = np.flatnonzero(tasks == task)
        if max_examples_per_task is not None and len(rows) > max_examples_per_task:
            rows = np.sort(np.random.default_rng(seed).permutation(rows)[:max_examples_per_task])
        found[task] = take_rows(examples, rows)
    return found


def check_plain(dataset: Dataset, path: Path) -> None:
    """Refuses columns that hold more than texts and numbers: those of images or sounds would open files and addresses.

    Raises:
        ExampleError: there is one.
    """
    for name, feature in dataset.features.items():
        inner = feature.feature if isinstance(feature, List) else feature
        if not isinstance(inner, Value):
            raise ExampleError(
                f"Expected columns of texts and numbers in {path}, found {name!r} of the type {type(inner).__name__}. Remove it."
            )


def without_index(dataset: Dataset) -> Dataset:
    """The same rows of the same files, without a FAISS index.

    Nearly every method of `Dataset` makes a deep copy of it first: an index of vectors would be copied into memory, and one
    with memory-mapped lists fails.
    """
    return Dataset(dataset.data, info=dataset.info, indices_table=dataset._indices, fingerprint=dataset._fingerprint)


def take_rows(dataset: Dataset, rows: Sequence[int] | np.ndarray) -> Dataset:
    """Some rows as a `Dataset` in memory; `Dataset.select` refuses a data set that has an index."""
    table = without_index(dataset).with_format("arrow")[np.asarray(rows, dtype=np.int64)]
    return Dataset(InMemoryTable(table.replace_schema_metadata(dataset.features.arrow_schema.metadata)))


# ---- reading -------------------------------------------------------------------------------------------------------


def _read(source: Any, split: str, load_dataset_kwargs: dict[str, Any]) -> list[Dataset]:
    if isinstance(source, Dataset):
        return [source]
    if isinstance(source, Mapping):
        raise ExampleError(
            f"Expected one `Dataset`, found a mapping with the splits {', '.join(source)}. Pass one of them, "
            f"e.g. `dataset[{next(iter(source), 'train')!r}]`."
        )
    if isinstance(source, list | tuple):
        files = [path for pattern in source for path in files_of(pattern)]
    elif isinstance(source, str | Path):
        if isinstance(source, str) and not _expand(source) and not source.endswith(READERS):
            return [_read_hub(source, split, load_dataset_kwargs)]
        files = files_of(source)
    else:
        raise ExampleError(
            f"Expected a `Dataset`, a path, a list of paths or a name on the Hub, found {type(source).__name__}."
        )
    datasets = [_READER_OF[path.suffix](path) for path in files]
    names = set(datasets[0].column_names)
    for dataset, path in zip(datasets, files, strict=True):
        if set(dataset.column_names) != names:
            raise ExampleError(
                f"Expected the same columns in every file, found {sorted(names)} in {files[0]} and "
                f"{sorted(dataset.column_names)} in {path}. Read them one by one and concatenate the results."
            )
    return datasets


def _expand(pattern: str | Path) -> list[Path]:
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
    files = _expand(pattern)
    if not files:
        raise FileNotFoundError(
            f"No file at {pattern}. Expected a file, a folder or a pattern of {', '.join(READERS)}."
        )
    for path in files:
        if path.suffix not in READERS:
            raise ExampleError(f"Expected a file that ends in {', '.join(READERS)}, found {path}.")
    return files


def _read_hub(name: str, split: str, load_dataset_kwargs: dict[str, Any]) -> Dataset:
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"No file or folder at {name}, and this is no name of a data set on the Hub.")
    return load_dataset(name, split=split, **load_dataset_kwargs)


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
    return _from_inputs([line for line in lines if line])


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


_READER_OF = {
    ".parquet": _read_parquet,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".csv": _read_csv,
    ".txt": _read_txt,
}


# ---- bringing to the schema ----------------------------------------------------------------------------------------


def _conform(
    datasets: list[Dataset], columns: Mapping[str, str], task: str, *, labelled: bool, drop_invalid: bool
) -> Dataset:
    """Works on Arrow columns: millions of examples are checked without a Python loop over them, and what the files of a data
    set hold as the schema has it already stays in those files, memory-mapped.
    """
    table = pa.concat_tables([_to_schema(dataset, columns, task, labelled) for dataset in datasets])
    if "id" not in table.column_names:
        numbers = pa.chunked_array([pa.array(range(len(table))).cast(pa.string())])
        table = table.append_column("id", pc.binary_join_element_wise(table["task"], numbers, "/"))
    table = _check_rows(table, labelled, drop_invalid)
    _check_ids(table["id"])
    features = Features({name: EXAMPLE_FEATURES[name] for name in EXAMPLE_FEATURES if name in table.column_names})
    table = table.select(list(features)).cast(features.arrow_schema)
    # Left to itself, `Dataset` hashes the whole table, in a copy; the sources' fingerprints stand for what is in them.
    sources = [dataset._fingerprint for dataset in datasets]
    fingerprint = Hasher.hash([sources, sorted(columns.items()), task, labelled, drop_invalid])
    table = InMemoryTable(table.replace_schema_metadata(features.arrow_schema.metadata))
    return Dataset(table, fingerprint=fingerprint)


def _to_schema(dataset: Dataset, columns: Mapping[str, str], task: str, labelled: bool) -> pa.Table:
    """The columns of the schema that `dataset` has, with the schema's names and types."""
    for name, column in columns.items():
        if name not in EXAMPLE_FEATURES:
            raise ExampleError(f"Expected `columns` to map {', '.join(EXAMPLE_FEATURES)}, found {name!r}.")
        if column not in dataset.column_names:
            raise ExampleError(
                f"Expected the column {column!r} (for {name!r}), found {', '.join(dataset.column_names)}."
            )
    required = ["input", "references"] if labelled else ["input"]
    missing = [name for name in required if columns.get(name, name) not in dataset.column_names]
    if missing:
        raise ExampleError(
            f"Expected the columns {', '.join(required)}, found {', '.join(dataset.column_names) or 'none'}. Say where "
            f"{' and '.join(missing)} can be found, e.g. `columns={{{missing[0]!r}: 'name_in_your_data'}}`."
        )
    if not len(dataset):
        raise ExampleError("Expected at least one example, found none.")
    table = without_index(dataset).with_format("arrow")[:]
    fields: dict[str, pa.ChunkedArray] = {
        "task": pa.chunked_array([pa.repeat(pa.scalar(task), len(table))]),
        "template": pa.chunked_array([pa.repeat(pa.scalar(""), len(table))]),
    }
    for name, feature in EXAMPLE_FEATURES.items():
        column = columns.get(name, name)
        if name == "references" and not labelled and column in table.column_names:
            if _holds_labels(table[column]):
                logger.warning("The query set has references. They are dropped: the method learns from inputs alone.")
        elif column in table.column_names:
            as_type = _string_lists if isinstance(feature, List) else _strings
            fields[name] = as_type(table[column], name)
    fields["template"] = pc.fill_null(fields["template"], "")
    if fields["task"].null_count:
        raise ExampleError(
            f"Expected a task in every row, found {fields['task'].null_count} rows without one. Fill them in, or drop the "
            "column and pass `task`."
        )
    return pa.table(fields)


def _holds_labels(column: pa.ChunkedArray) -> bool:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return bool(pc.sum(pc.list_value_length(column)).as_py())
    return column.null_count < len(column)


def _strings(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_null(column.type):
        return column.cast(pa.string())
    if name == "id" and pa.types.is_integer(column.type):
        return column.cast(pa.string())
    raise ExampleError(f"Expected strings in {name!r}, found {column.type}. Turn the column into text first.")


def _string_lists(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A plain string stands for a list of one, a list written as JSON for that list, a missing value for none."""
    lists = pa.list_(pa.string())
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        if pa.types.is_null(column.type.value_type) or _is_text(column.type.value_type):
            if not column.null_count:
                return column.cast(lists)
            return pc.if_else(pc.is_null(column), pa.scalar([], type=column.type), column).cast(lists)
    elif pa.types.is_null(column.type):
        return pa.chunked_array([pa.array([[]] * len(column), type=lists)])
    elif _is_text(column.type):
        column = column.cast(pa.string())
        if pc.any(pc.starts_with(column, '["')).as_py():
            return pa.chunked_array([pa.array([_parse_list(cell) for cell in column.to_pylist()], type=lists)])
        chunks = [pa.ListArray.from_arrays(pa.array(range(len(c) + 1), type=pa.int32()), c) for c in column.chunks]
        wrapped = pa.chunked_array(chunks, type=lists)
        # An empty cell of a csv file is no answer either.
        return pc.if_else(pc.fill_null(pc.equal(column, ""), True), pa.scalar([], type=lists), wrapped)
    raise ExampleError(
        f"Expected a string or a list of strings in {name!r}, found {column.type}. Write labels as the text that the "
        "model is to answer, e.g. 'positive' and not 1."
    )


def _parse_list(cell: str | None) -> list[str]:
    if not cell:
        return []
    try:
        parsed = json.loads(cell)
    except json.JSONDecodeError:
        return [cell]
    return parsed if isinstance(parsed, list) and all(isinstance(item, str) for item in parsed) else [cell]


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _check_rows(table: pa.Table, labelled: bool, drop_invalid: bool) -> pa.Table:
    # Batch by batch, because what is computed of a column can be as large as the column.
    faults = [_faults(batch, labelled) for batch in table.to_batches()]
    keep = pa.chunked_array([pa.repeat(pa.scalar(True), len(table))])
    for fault in faults[0]:
        is_faulty = pa.chunked_array([found[fault] for found in faults])
        count = pc.sum(is_faulty).as_py()
        if not count:
            continue
        rows = pc.indices_nonzero(is_faulty)[:5].to_pylist()
        message = f"{count} of {len(table)} rows have {fault} (row {', '.join(map(str, rows))}{', ...' * (count > 5)})"
        if not drop_invalid:
            raise ExampleError(f"{message}. Mend them, or leave them out with `drop_invalid=True`.")
        logger.warning("%s: left out.", message)
        keep = pc.and_(keep, pc.invert(is_faulty))
    if pc.all(keep).as_py():
        return table  # as it is: a filter copies
    table = table.filter(keep)
    if not len(table):
        raise ExampleError("Expected at least one valid example, found none: every row was left out.")
    return table


def _faults(batch: pa.RecordBatch, labelled: bool) -> dict[str, pa.BooleanArray]:
    """For each fault that a row can have, which rows have it."""
    stripped = pc.utf8_trim_whitespace(batch["input"])
    faults = {"an empty input": pc.fill_null(pc.equal(pc.utf8_length(stripped), 0), True)}
    if labelled:
        references = batch["references"]
        faults["no references"] = pc.equal(pc.list_value_length(references), 0)
        rows = pc.list_parent_indices(references).filter(pc.is_null(pc.list_flatten(references)))
        has_missing = np.zeros(len(batch), dtype=bool)
        has_missing[rows.to_numpy()] = True
        faults["missing values among the references"] = pa.array(has_missing)
    return faults


def _check_ids(ids: pa.ChunkedArray) -> None:
    if ids.null_count:
        raise ExampleError(f"Expected an id in every row, found {ids.null_count} rows without one.")
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        shown = ", ".join(repr(item["values"]) for item in repeated[:5].to_pylist())
        raise ExampleError(
            f"Expected unique ids, found {len(repeated)} that repeat ({shown}{', ...' * (len(repeated) > 5)}). "
            "Make them unique, or drop the column: ids are then made of the task and the row number."
        )
