"""Files that are written whole or not at all, read by their content, and a memory of what was verified."""

from __future__ import annotations

import atexit
import functools
import glob
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import MemoryMappedTable
from huggingface_hub import constants

BATCH_ROWS = 1_000
REMEMBERED_SIZE = 16 << 20
"""Files from this size on are remembered once they are verified; reading a smaller one takes some ten milliseconds."""


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write` with a temporary name beside `path` and renames the result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of several machines may share the folder and have the same number.
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON."""
    write_atomically(path, lambda partial: partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8"))


def write_parquet(dataset: Dataset, path: Path) -> None:
    """Writes parquet compressed with zstd, batch by batch (`Dataset.to_parquet` takes no other compression)."""

    def write(partial: Path) -> None:
        schema = dataset.features.arrow_schema
        with pq.ParquetWriter(partial, schema, compression="zstd", compression_level=9) as writer:
            for batch in dataset.with_format("arrow").iter(10_000):
                writer.write_table(batch.cast(schema))

    write_atomically(path, write)


def read_parquet(path: str | Path) -> Dataset:
    """Reads parquet as memory-mapped Arrow: in memory is a batch of rows at a time, however many there are.

    The Arrow is kept in `recross_hf/` below the cache of `datasets`, by the SHA-256 of the parquet: `Dataset.from_parquet`
    goes by path and time, takes the old rows of a file that was replaced under the same two, and takes names with brackets
    for patterns. Where that cache cannot be written, the Arrow goes to a temporary folder that ends with the process.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no parquet.
    """
    path = Path(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        kept = Path(datasets.config.HF_DATASETS_CACHE) / "recross_hf" / f"{digest}.arrow"
        if not kept.is_file():
            try:
                _write_arrow(file, path, kept)
            except OSError:
                kept = _temporary_folder() / kept.name
                if not kept.is_file():
                    _write_arrow(file, path, kept)
    try:
        return Dataset(MemoryMappedTable.from_file(str(kept)), fingerprint=digest[:16])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # `datasets` keeps types of columns as JSON in the metadata of the schema, and believes what stands there.
        raise ValueError(
            f"Expected the columns of a data set in {path}, found metadata that describe none: {type(error).__name__}: {error}. Write "
            "the file again, e.g. by `Dataset.to_parquet`."
        ) from error


def _write_arrow(file: BinaryIO, path: Path, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    file.seek(0)
    # Under a name of its own: processes of several machines may share the folder and have the same number.
    handle, partial = tempfile.mkstemp(prefix=f".{kept.name}.", dir=kept.parent)
    try:
        with os.fdopen(handle, "wb") as arrow:
            batches = _batches_of(file, path)
            schema = next(batches)
            with pa.ipc.new_stream(arrow, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
        os.replace(partial, kept)
    finally:
        Path(partial).unlink(missing_ok=True)


def _batches_of(file: BinaryIO, path: Path) -> Iterator[Any]:
    """The schema, then the rows. An error is of the file that is read, and none of the one that is written."""
    try:
        parquet = pq.ParquetFile(file)
        yield parquet.schema_arrow
        yield from parquet.iter_batches(BATCH_ROWS)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"Expected parquet in {path}, found a malformed file: {error}. Download or write the file again."
        ) from error


@functools.cache
def _temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="recross_hf-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def matching(pattern: str | Path) -> list[Path]:
    """What a path or a glob pattern stands for, sorted; what is there under the name itself, brackets or not, comes first."""
    path = Path(pattern)
    return (
        [path] if os.path.exists(path) else [Path(found) for found in sorted(glob.glob(str(pattern), recursive=True))]
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        ValueError: The file is no JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # a file that is no UTF-8 raises a ValueError, too
        raise ValueError(f"Expected JSON in {path}, found: {error}. Download or write the file again.") from error


def is_intact(path: Path, sha256: str) -> bool:
    """Whether a file has this checksum.

    A large file is read once: as long as its size, its times and its inode stay what they were, it is taken for the same.
    The checksums of such files are kept in `recross_hf/verified.json` below `HF_HOME`.
    """
    path = path.resolve()
    stamp = _stamp(path)
    if stamp["size"] < REMEMBERED_SIZE:
        return sha256_of(path) == sha256
    entry = {**stamp, "sha256": sha256}
    if _remembered("files").get(str(path)) == entry:
        return True
    intact = sha256_of(path) == sha256
    if intact and _stamp(path) == stamp:
        files = {name: value for name, value in _remembered("files").items() if Path(name).is_file()}
        _remember("files", files | {str(path): entry})
    return intact


def was_checked(content: Any) -> bool:
    """Whether [`remember_check`] was called with this JSON value, which stands for contents whose check has one outcome."""
    return _digest(content) in _remembered("checks")


def remember_check(content: Any) -> None:
    """Keeps that a check passed, so that it need not be made again."""
    last = dict(list(_remembered("checks").items())[-99:])
    _remember("checks", last | {_digest(content): True})


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _memory() -> Path:
    return Path(constants.HF_HOME) / "recross_hf" / "verified.json"


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {
        "size": status.st_size,
        "modified": status.st_mtime_ns,
        "changed": status.st_ctime_ns,
        "inode": status.st_ino,
    }


def _remembered(kind: str) -> dict[str, Any]:
    try:
        memory = read_json(_memory())
    except (OSError, ValueError):
        return {}
    entries = memory.get(kind) if isinstance(memory, dict) else None
    return entries if isinstance(entries, dict) else {}


def _remember(kind: str, entries: dict[str, Any]) -> None:
    # Another process may write at the same time: an entry that is lost is computed again. A home that cannot be written
    # costs the same.
    with suppress(OSError):
        write_json(_memory(), {name: _remembered(name) for name in ("files", "checks")} | {kind: entries})
