"""Files that are written whole or not at all, and what identifies their content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from datasets import Dataset


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write` with a temporary name beside `path` and renames the result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
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


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_hash(module: torch.nn.Module) -> str:
    """SHA-256 of a module's weights and their names, in hexadecimal."""
    digest = hashlib.sha256()
    for name, weight in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        ValueError: the file is no JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"Expected JSON in {path}, found: {error}. Download or write the file again.") from error
