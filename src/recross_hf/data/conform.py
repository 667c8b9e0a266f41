"""Columns of any source brought to the schema, with errors that name row and column."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, List
from datasets.fingerprint import Hasher
from datasets.table import InMemoryTable

from ..core._compat import fingerprint_of
from .schema import COLUMNS, EXAMPLE_FEATURES, MESSAGES, ExampleError
from .text_files import parse_list
from .turns import from_turns

logger = logging.getLogger(__name__)


# ---- bringing to the schema ----------------------------------------------------------------------------------------


def conform(
    datasets: list[Dataset],
    columns: Mapping[str, str],
    task: str,
    *,
    labelled: bool,
    drop_invalid: bool,
    first_row: int = 0,
) -> Dataset:
    """Works on Arrow columns: millions of examples are checked without a Python loop over them, and what the files of a data
    set hold as the schema has it already stays in those files, memory-mapped. Ids that are made count rows from `first_row` on.
    """
    if not isinstance(drop_invalid, bool):
        raise TypeError(f"Expected `drop_invalid` to be True or False, found {drop_invalid!r}.")
    tables = [_to_schema(dataset, columns, task, labelled=labelled, drop_invalid=drop_invalid) for dataset in datasets]
    table = pa.concat_tables(tables, promote_options="default")
    if MESSAGES in table.column_names and table[MESSAGES].null_count == len(table):
        table = table.drop_columns(MESSAGES)  # each input is one user turn
    if "id" not in table.column_names:
        numbers = pa.chunked_array([pa.array(range(first_row, first_row + len(table))).cast(pa.string())])
        table = table.append_column("id", pc.binary_join_element_wise(table["task"], numbers, "/"))
    table = _check_rows(table, labelled, drop_invalid)
    _check_ids(table["id"])
    features = Features({name: COLUMNS[name] for name in COLUMNS if name in table.column_names})
    table = table.select(list(features)).cast(features.arrow_schema)
    # Left to itself, `Dataset` hashes the whole table, in a copy; the sources' fingerprints stand for their contents.
    sources = list(map(fingerprint_of, datasets))
    fingerprint = Hasher.hash([sources, sorted(columns.items()), task, labelled, drop_invalid])
    table = InMemoryTable(table.replace_schema_metadata(features.arrow_schema.metadata))
    return Dataset(table, fingerprint=fingerprint)


def _to_schema(
    dataset: Dataset, columns: Mapping[str, str], task: str, *, labelled: bool, drop_invalid: bool
) -> pa.Table:
    """The columns of the schema that `dataset` has, with the schema's names and types."""
    if not isinstance(columns, Mapping):
        raise TypeError(
            f"Expected `columns` to map names of the schema to those of the data, found {type(columns).__name__}. Write e.g. "
            "`columns={'input': 'question'}`."
        )
    for name, column in columns.items():
        if name not in COLUMNS:
            swapped = column in COLUMNS
            raise ExampleError(
                f"Expected `columns` to map {', '.join(COLUMNS)}, found {name!r}."
                + f" Write it the other way round: `columns={{{column!r}: {name!r}}}` (--columns {column}={name})."
                * swapped
            )
        if column not in dataset.column_names:
            raise ExampleError(
                f"Expected the column {column!r} (for {name!r}), found {', '.join(dataset.column_names)}."
            )
    if not len(dataset):
        raise ExampleError("Expected at least one example, found none.")
    table = from_turns(dataset.with_format("arrow")[:], columns, labelled=labelled, drop_invalid=drop_invalid)
    columns = {name: column for name, column in columns.items() if column in table.column_names}
    required = ["input", "references"] if labelled else ["input"]
    missing = [name for name in required if columns.get(name, name) not in table.column_names]
    if missing:
        raise ExampleError(
            f"Expected the columns {', '.join(required)}, found {', '.join(dataset.column_names) or 'none'}. Say where "
            f"{' and '.join(missing)} can be found, e.g. `columns={{{missing[0]!r}: 'name_in_your_data'}}` "
            f"(--columns {missing[0]}=name_in_your_data)."
        )
    fields: dict[str, pa.ChunkedArray] = {
        "task": pa.chunked_array([pa.repeat(pa.scalar(task), len(table))]),
        "template": pa.chunked_array([pa.repeat(pa.scalar(""), len(table))]),
    }
    if columns.get(MESSAGES, MESSAGES) in table.column_names:
        # By their names: older versions of pyarrow cast no turns whose content comes before their role.
        turns = table[columns.get(MESSAGES, MESSAGES)].to_pylist()
        fields[MESSAGES] = pa.chunked_array([pa.array(turns, COLUMNS.arrow_schema.field(MESSAGES).type)])
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
    return bool(column.null_count < len(column))


def _strings(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_null(column.type):
        return column.cast(pa.string())
    if name == "id" and pa.types.is_integer(column.type):
        return column.cast(pa.string())
    raise ExampleError(f"Expected strings in {name!r}, found {column.type}. Turn the column into text first.")


def _string_lists(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A plain string stands for a list of one, a list that is written out for that list, a missing value for none."""
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
        # `[]` alone may be an answer in words; it is a list where all are lists.
        listed = pc.match_substring_regex(column, _LIKE_A_LIST)
        empty = pc.match_substring_regex(column, r"^\s*(\[\s*\]\s*)?$")
        if pc.any(pc.and_not(listed, empty)).as_py() or (
            pc.any(listed).as_py() and pc.all(pc.or_(listed, empty)).as_py()
        ):
            return pa.chunked_array([pa.array(_lists_in_text(column, name), type=lists)])
        chunks = [pa.ListArray.from_arrays(pa.array(range(len(c) + 1), type=pa.int32()), c) for c in column.chunks]
        wrapped = pa.chunked_array(chunks, type=lists)
        # An empty cell of a csv file is no answer either.
        return pc.if_else(pc.fill_null(pc.equal(column, ""), True), pa.scalar([], type=lists), wrapped)
    raise ExampleError(
        f"Expected a string or a list of strings in {name!r}, found {column.type}. Write labels as the text that the "
        "model is to answer, e.g. 'positive' and not 1."
    )


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


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
            remedy = _WRITE_AN_ANSWER if fault == _EMPTY_REFERENCE else "Mend them"
            raise ExampleError(f"{message}. {remedy}, or leave them out with `drop_invalid=True`.")
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
        has_empty = np.zeros(len(batch), dtype=bool)
        stripped = pc.utf8_trim_whitespace(pc.list_flatten(references))
        empty = pc.fill_null(pc.equal(pc.utf8_length(stripped), 0), False)
        has_empty[pc.list_parent_indices(references).filter(empty).to_numpy()] = True
        faults[_EMPTY_REFERENCE] = pa.array(has_empty)
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


def _lists_in_text(column: pa.ChunkedArray, name: str) -> list[list[str]]:
    """Cells that are lists written out. Beside JSON, plain texts may stand; what NumPy prints is told from text by the others."""
    cells, printed, plain = column.to_pylist(), None, None
    found: list[list[str]] = []
    for row, cell in enumerate(cells):
        if cell is None or cell == "":
            found.append([])
            continue
        if not _LOOKS_LIKE_A_LIST.match(cell):
            plain = (row, cell) if plain is None else plain
            found.append([cell])
            continue
        try:
            texts, is_json = parse_list(cell)
        except ValueError as error:
            raise ExampleError(
                f"Expected a list of texts in {name!r} of row {row}, found {cell[:60]!r}, which begins like one and is {error}. "
                f"{_WRITE_JSON}"
            ) from error
        found.append(texts)
        printed = (row, cell) if printed is None and not is_json else printed
    if printed is not None and plain is not None:
        raise ExampleError(
            f"Expected lists or plain texts in {name!r}, found both: {printed[1][:60]!r} in row {printed[0]} and {plain[1][:60]!r} "
            f"in row {plain[0]}. {_WRITE_JSON}"
        )
    return found


_LIKE_A_LIST = r"""^\s*\[\s*(["']|\]\s*$)"""
_LOOKS_LIKE_A_LIST = re.compile(_LIKE_A_LIST)
_WRITE_JSON = 'Write it as JSON, ["first", "second"]; one text that looks like a list as a list of one; or save as jsonl or parquet.'


_EMPTY_REFERENCE = "an empty text among the references"
# A model that is trained on an empty text learns to answer nothing, and no empty answer is ever scored as right. SQuAD v2 gives
# its unanswerable questions no references at all, which is a fault, too.
_WRITE_AN_ANSWER = "Write what the model is to answer, also where there is no answer, e.g. 'unanswerable'"
