"""The folder of an index: the examples (parquet), the vectors (FAISS) and the configuration (JSON), written together or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import faiss
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from ..core.files import read_json, read_parquet, write_json, write_parquet
from ..core.output_folders import OF_MODELS
from ..data.schema import COLUMNS, ExampleError, check_plain, check_types
from ..hub.safety import MANIFEST_FILE
from .faiss_io import read_index
from .vector_shards import SHARDS_FOLDER, IndexMismatchError

FORMAT_VERSION = 1
EXAMPLES_FILE, INDEX_FILE, CONFIG_FILE = "examples.parquet", "index.faiss", "index.json"
MAX_CONFIG_SIZE = 16 << 20
METRIC_NAMES: Mapping[int, str] = {faiss.METRIC_L2: "l2", faiss.METRIC_INNER_PRODUCT: "inner_product"}

_TYPES = {
    "metric": str,
    "factory": str,
    "num_examples": int,
    "dimension": int,
    "ids_sha256": str,
    "texts_sha256": str,
    "encoder": dict,
    "probes": list,
}
"""The entries of a configuration that an index is opened by, and their types."""


def check_is_index(folder: Path) -> None:
    """Refuses a folder that lacks a file of an index.

    Raises:
        FileNotFoundError: A file is missing.
    """
    for name in (CONFIG_FILE, INDEX_FILE, EXAMPLES_FILE):
        if not (folder / name).is_file():
            remedy = " A build was interrupted here: run it again to finish it." * (folder / SHARDS_FOLDER).is_dir()
            raise FileNotFoundError(
                f"Expected an index with {CONFIG_FILE}, {INDEX_FILE} and {EXAMPLES_FILE} in {folder}, found no "
                f"{name}.{remedy}"
            )


def read_config(folder: Path) -> dict[str, Any]:
    """Reads the configuration of an index.

    Raises:
        IndexMismatchError: The configuration is malformed, or of another format.
    """
    path = folder / CONFIG_FILE
    if path.stat().st_size > MAX_CONFIG_SIZE:
        raise IndexMismatchError(
            f"Expected at most {MAX_CONFIG_SIZE:,} bytes in {path}, found {path.stat().st_size:,}. recross_hf wrote no such "
            "file: do not use it."
        )
    config = read_json(path)
    version = config.get("format_version") if isinstance(config, dict) else None
    if not isinstance(config, dict) or version != FORMAT_VERSION:
        raise IndexMismatchError(
            f"Expected an index of format {FORMAT_VERSION}, found {version} in {folder}. "
            "Build it again, or install the version of recross_hf that wrote it."
        )
    wrong = [name for name, kind in _TYPES.items() if not isinstance(config.get(name), kind)]
    if wrong:
        raise IndexMismatchError(
            f"Expected {', '.join(wrong)} of an index in {path}, found something else. Download or save the index again."
        )
    return config


def check_metric(config: Mapping[str, Any], metric_type: int | None, folder: Path) -> None:
    """Compares the metric that a caller expects with that of an index; None expects none.

    Raises:
        IndexMismatchError: It is another one.
    """
    if metric_type is not None and METRIC_NAMES.get(metric_type) != config["metric"]:
        raise IndexMismatchError(
            f"Expected the metric {METRIC_NAMES.get(metric_type, metric_type)}, found an index with "
            f"{config['metric']} in {folder}. Build it again with the other `metric_type`, or ask for this one."
        )


def read_examples(folder: Path) -> Dataset:
    """Reads the examples of an index, memory-mapped.

    Raises:
        IndexMismatchError: The file is malformed.
        ExampleError: The file has columns of other things than texts and numbers.
    """
    try:
        dataset = read_parquet(folder / EXAMPLES_FILE)
    except ValueError as error:
        raise IndexMismatchError(f"{error} The examples of an index belong there: save or build it again.") from error
    check_plain(dataset, folder / EXAMPLES_FILE)
    try:
        check_types(dataset)
        missing = [name for name in ("id", "references") if name not in dataset.column_names]
        if missing:
            raise ExampleError(f"Expected the column {missing[0]!r}, found {', '.join(dataset.column_names)}.")
    except ExampleError as error:
        raise malformed_examples(folder / EXAMPLES_FILE, error) from error
    return dataset


def malformed_examples(path: Path, error: Exception) -> IndexMismatchError:
    """The error of examples that are none, or not those of an index."""
    return IndexMismatchError(
        f"{error} Such examples are in {path}: download the index again, or build it with examples of `load_examples`."
    )


def write_index_files(
    folder: Path, write_vectors: Callable[[Path], Any], dataset: Dataset, config: Mapping[str, Any]
) -> None:
    """Writes an index and opens it before it replaces the one in the folder.

    Args:
        folder: The folder to write.
        write_vectors: A function that writes the FAISS file under the name that it is given.
        dataset: The examples, of which the schema's columns are written.
        config: The content of `index.json`.

    Raises:
        IndexMismatchError: The new files cannot be opened; those in the folder are left as they were.
    """
    for name in (MANIFEST_FILE, *OF_MODELS):
        if (folder / name).is_file():
            raise FileExistsError(
                f"Expected a folder for an index, found {name} of a model or a pipeline in {folder.resolve()}, which would no longer "
                "open with an index among its files. Choose another folder."
            )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as name:
        partial = Path(name)
        write_vectors(partial / INDEX_FILE)
        columns = [name for name in COLUMNS if name in dataset.column_names]
        write_parquet(dataset.select_columns(columns), partial / EXAMPLES_FILE)
        write_json(partial / CONFIG_FILE, config)
        _check_written(partial)
        # The configuration goes first and comes last: without it, a folder that was half overwritten is no index.
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        for written in (INDEX_FILE, EXAMPLES_FILE, CONFIG_FILE):
            os.replace(partial / written, folder / written)


def _check_written(folder: Path) -> None:
    try:
        config = read_config(folder)
        read_index(folder / INDEX_FILE, config, memory_map=True)
        num_rows = pq.read_metadata(folder / EXAMPLES_FILE).num_rows
        if num_rows != config["num_examples"]:
            raise IndexMismatchError(f"{num_rows} examples in place of {config['num_examples']}.")
    except (ValueError, pa.ArrowException) as error:
        raise IndexMismatchError(
            f"Expected to write an index that can be opened, found one that cannot: {error} Nothing was replaced. "
            "Build the index again, or open it with `UpstreamIndex.from_pretrained` before it is saved."
        ) from error
