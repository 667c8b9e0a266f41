"""The identity of an index: how its configuration describes the encoder and the examples, and whether others are the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from ..core.tables import shortened
from ..data.schema import MESSAGES, ExampleError, check_rows, check_types, column_hash, ids_hash
from ..models.chat import SYSTEM_PROMPT
from .encoder import Encoder, IdentifiedEncoder, MeanPooledEncoder
from .index_files import malformed_examples
from .upstream_rows import column
from .vector_shards import IndexMismatchError, probes_for, same_vectors

_DTYPES = ("float32", "bfloat16", "float16")


def describe(dataset: Dataset, encoder: Encoder) -> dict[str, Any]:
    """All that the vectors of an index depend on, as JSON values.

    Raises:
        ExampleError: The examples do not have the schema's columns, ids repeat, or there are none.
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"Expected examples as a `Dataset`, found {type(dataset).__name__}. Read them with `load_examples`."
        )
    if not callable(getattr(encoder, "encode", None)) or isinstance(encoder, str):
        raise TypeError(
            f"Expected an encoder with the method `encode(texts)`, found {type(encoder).__name__}. For a model and its tokenizer, pass "
            "`MeanPooledEncoder(model, tokenizer)`."
        )
    missing = [name for name in ("id", "task", "input", "references") if name not in dataset.column_names]
    if missing:
        raise ExampleError(
            f"Expected the columns id, task, input and references, found {', '.join(dataset.column_names)}. "
            "Read the data with `load_examples`."
        )
    if not len(dataset):
        raise ExampleError("Expected at least one example to index, found none.")
    check_types(dataset)
    check_rows(dataset)
    _check_ids(dataset)
    return {
        "encoder": describe_encoder(encoder),
        "num_examples": len(dataset),
        "ids_sha256": ids_hash(dataset),
        **_texts_hashes(dataset),
    }


def check_encoder(encoder: Encoder, config: Mapping[str, Any], folder: Path | str) -> None:
    """Compares an encoder with the one that an index was built with.

    Raises:
        IndexMismatchError: The encoder is another one.
    """
    expected, actual = config["encoder"], describe_encoder(encoder)
    differing = [name for name in sorted({*expected, *actual}) if expected.get(name) != actual.get(name)]
    if differing:
        details = "; ".join(
            f"{name}: {shortened(expected.get(name), 40)} != {shortened(actual.get(name), 40)}" for name in differing
        )
        remedy = "pass the encoder it was built with, or build the index again with this one."
        dtype = expected.get("dtype")
        # Weights that were read in another precision differ, too.
        if "dtype" in differing and set(differing) <= {"dtype", "weights"} and dtype in _DTYPES:
            remedy = (
                f"load the model, or the pipeline, with `dtype=torch.{dtype}`, as it was when the index was built. If that gives "
                "the same, it is another model: pass the one that the index was built with."
            )
        raise IndexMismatchError(
            f"The index in {folder} was built with another encoder ({details}; index first). Vectors of two encoders "
            f"cannot be compared: {remedy}"
        )
    # The vectors of an encoder that has no identity tell what it is.
    probes = np.asarray(config["probes"], dtype=np.float32)
    # Indexes of earlier versions have the short ones alone.
    vectors = np.asarray(encoder.encode(probes_for(encoder)[: len(probes)]), dtype=np.float32)
    if not same_vectors(probes, vectors):
        raise IndexMismatchError(
            f"The index in {folder} was built with another encoder: for the same texts it gave other vectors. Pass the "
            "encoder it was built with, or build the index again with this one."
        )


def check_reading(encoder: Encoder, config: Mapping[str, Any]) -> None:
    """Makes sure, at little cost, that the tokenizer of a model's own encoder reads inputs as it did when the index was built.

    Whoever has the tokenizer may change its chat template, system prompt or side long after the index was opened.

    Raises:
        IndexMismatchError: It reads them otherwise: vectors of queries would be those of other texts.
    """
    if not isinstance(encoder, MeanPooledEncoder):
        return
    tokenizer, built = encoder.processing_class, {"truncation_side": "right"} | config["encoder"]
    read = encoder.architecture.reading(tokenizer) | {"truncation_side": tokenizer.truncation_side}
    # A system prompt that was dropped is not there to be read.
    differing = [name for name in sorted({*read, SYSTEM_PROMPT}) if read.get(name) != built.get(name)]
    if differing:
        raise IndexMismatchError(
            f"Expected queries to be read as the index's examples were, found another {', '.join(differing)}: how the tokenizer reads inputs "
            "was changed since (`set_chat_format`, `truncation_side`). Put that back, or build the index again."
        )


def check_examples(dataset: Dataset, config: Mapping[str, Any], path: Path) -> None:
    """Compares examples with those that were indexed.

    Raises:
        IndexMismatchError: The ids or the inputs are others.
    """
    try:
        check_rows(dataset)
    except ExampleError as error:
        raise malformed_examples(path, error) from error
    if len(dataset) != config["num_examples"] or ids_hash(dataset) != config["ids_sha256"]:
        raise IndexMismatchError(
            f"The ids in {path} are not those that were indexed: the examples were changed, reordered or replaced. Restore "
            "the file or build the index again."
        )
    if any(config.get(name) != digest for name, digest in _texts_hashes(dataset).items()):
        raise IndexMismatchError(
            f"The inputs in {path} are not those that were indexed: they were changed. Restore the file or build the index again."
        )


def _texts_hashes(dataset: Dataset) -> dict[str, str]:
    hashes = {"texts_sha256": column_hash(dataset, "input")}
    if MESSAGES in dataset.column_names:
        hashes["messages_sha256"] = column_hash(dataset, MESSAGES)
    return hashes


def check_count(dataset: Dataset, faiss_index: faiss.Index) -> None:
    """Makes sure that there are as many examples as vectors.

    Raises:
        IndexMismatchError: There are more, or fewer.
    """
    if faiss_index.ntotal != len(dataset):
        raise IndexMismatchError(
            f"Expected a vector for each of the {len(dataset)} examples, found {faiss_index.ntotal} vectors. Build the index anew of the "
            "examples that it is to have."
        )


def check_replacement(dataset: Dataset, indexed: Dataset) -> None:
    """Makes sure that examples can take the place of those that were indexed: hits are found by their rows.

    Raises:
        IndexMismatchError: They are others, more, fewer or in another order.
    """
    is_alike = isinstance(dataset, Dataset) and {"id", "input"} <= {*dataset.column_names}
    if is_alike and all(column_hash(dataset, name) == column_hash(indexed, name) for name in ("id", "input")):
        return
    raise IndexMismatchError(
        f"Expected the {len(indexed)} examples that were indexed, in their order, found others: hits would be rows of the wrong examples. "
        "Build an index of these with `UpstreamIndex.build`; to leave some out, pass `exclude_ids` or `exclude_tasks` to the retriever."
    )


def _check_ids(dataset: Dataset) -> None:
    """Refuses ids that repeat: what is excluded, left out or counted by its id would be another example, too."""
    ids = column(dataset, "id")
    if len(pc.unique(ids)) == len(ids):
        return
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    rows = pc.indices_nonzero(pc.equal(ids, repeated[0]))[:2].to_pylist()
    raise ExampleError(
        f"Expected unique ids, found {len(repeated)} that repeat, first {repeated[0].as_py()!r} in the rows {rows[0]} and {rows[1]}. Make "
        "them unique, or read the data with `load_examples` without that column: ids are then made of the task and the row number."
    )


def describe_encoder(encoder: Encoder) -> dict[str, Any]:
    """The identity of an encoder, or the name of its class where it has none."""
    return encoder.identity() if isinstance(encoder, IdentifiedEncoder) else {"class": type(encoder).__name__}
