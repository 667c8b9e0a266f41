"""The vectors of examples in shards on disk, which many processes write and a killed build continues."""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..core.batching import chunks
from ..core.files import read_json, write_atomically, write_json
from ..core.progress import progress_bar
from ..core.run_settings import names_alone, refuse_other_settings
from ..data.conversations import texts_of
from ..data.schema import MESSAGES
from ..hub.errors import ArtifactError
from .encoder import Encoder, MeanPooledEncoder, ReportingEncoder

logger = logging.getLogger(__name__)

SHARDS_FOLDER = "vectors.partial"
"""Folder of the vectors, in that of an index that is being built."""
BUILD_FILE = "build.json"
SHARD_SIZE = 4096
"""Examples that are encoded at a time by default: they are sorted by length, so that batches have next to no padding."""
TEXTS_A_MOVE = 64
"""Texts that an encoder which does not report is given at once, so that the bar moves every few seconds."""
PROBES = ("What is the capital of this country?", "Is the review positive or negative? It was a long wait.", "yes")
"""Texts that are encoded when an index is built and again when it is opened: an encoder that gives other vectors is another one."""
LONG_PROBE = " ".join(
    f"In the year {1900 + number} the bridge over the river was closed for {number} days." for number in range(60)
)
"""A text beyond what most sentence encoders take, which tells whether two cut alike; the hash of a model's own weights says that already."""


class IndexMismatchError(ArtifactError):
    """The index, its data or its encoder do not belong together; the message says which, and what to do."""


class VectorShards:
    """A file of vectors for every `shard_size` examples; iterating gives float32 arrays `[shard_size, d]` in order.

    A shard is written whole or not at all, whichever process encodes it, and is mapped when it is read: one of them is in
    memory at a time.

    Args:
        folder: Folder of the shards.
        num_vectors: Number of examples.
        shard_size: Examples a shard; the last one may have fewer.
        dtype: Type of the numbers on disk, `np.float32` or `np.float16`.
    """

    def __init__(self, folder: Path, num_vectors: int, shard_size: int, dtype: np.dtype) -> None:
        self.folder, self.num_vectors, self.shard_size, self.dtype = folder, num_vectors, shard_size, dtype

    def __len__(self) -> int:
        return -(-self.num_vectors // self.shard_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(len(self)):
            yield np.load(self.path(number), mmap_mode="r").astype(np.float32, copy=False)

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{number:06d}.npy"

    def missing(self) -> list[int]:
        """The numbers of the shards that are still to be encoded."""
        return [number for number in range(len(self)) if not self.path(number).is_file()]

    def open(self, build: dict[str, Any], encoder: Encoder) -> np.ndarray:
        """Starts a build, or continues one that the same data, encoder and settings started.

        Args:
            build: All that the vectors depend on, as JSON values.
            encoder: Encoder of the inputs.

        Returns:
            The vectors of [`probes_for`] the encoder, `[3 or 4, d]`.

        Raises:
            IndexMismatchError: The folder holds another build.
        """
        build = build | {"shard_size": self.shard_size, "vector_dtype": self.dtype.name}
        probes, path = encode(encoder, probes_for(encoder)), self.folder / BUILD_FILE
        if self.folder.is_dir() and not path.is_file():
            shutil.rmtree(self.folder)  # the settings of these shards are unknown
        if not path.is_file():
            # The folder comes into being together with its settings: builds of the same index may begin at the same time.
            started = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex}")
            write_json(started / BUILD_FILE, build | {"probes": probes.tolist()})
            try:
                started.rename(self.folder)
                return probes
            except OSError:  # another was first
                shutil.rmtree(started)
        started_with = read_json(path)
        refuse_other_settings(
            started_with,
            build,
            names=build,
            expected="vectors of this build",
            found=lambda changed: (
                f"that {self.folder} holds the vectors of an unfinished build with other data or settings "
                f"({names_alone(changed)})"
            ),
            remedy=f"Finish that build, choose another folder, or delete {self.folder}.",
            error=IndexMismatchError,
        )
        # The vectors of an encoder that has no identity tell what it is.
        if not same_vectors(
            np.asarray(started_with["probes"], dtype=np.float32), probes[: len(started_with["probes"])]
        ):
            raise IndexMismatchError(
                f"{self.folder} holds the vectors of an unfinished build with another encoder. Finish it with that one, choose "
                f"another folder, or delete {self.folder}."
            )
        return probes

    def encode(self, dataset: Dataset, encoder: Encoder, numbers: Iterable[int], *, show_progress: bool) -> None:
        """Encodes the inputs of some shards and writes each shard as soon as it is done.

        Args:
            dataset: All examples.
            encoder: Encoder of the inputs.
            numbers: Numbers of the shards.
            show_progress: Whether to show a progress bar.

        Raises:
            ValueError: A vector is not finite, or too large for the type of the shards.
        """
        inputs = dataset.select_columns([name for name in ("input", MESSAGES) if name in dataset.column_names])
        starts = {number: number * self.shard_size for number in numbers}
        sizes = {number: min(self.shard_size, self.num_vectors - start) for number, start in starts.items()}
        with progress_bar(total=sum(sizes.values()), desc="Encoding", unit="ex", is_shown=show_progress) as progress:
            for number, start in starts.items():
                before = progress.n
                vectors = encode_shard(encoder, texts_of(inputs[start : start + sizes[number]]), progress.update)
                stored = as_stored(vectors, self.dtype, partial(_id_of, dataset, start))
                write_atomically(self.path(number), partial(_save, stored))
                progress.update(before + sizes[number] - progress.n)  # texts that are repeated are encoded once

    def check_complete(self) -> None:
        """Refuses shards some of which no process has written.

        Raises:
            FileNotFoundError: A shard is missing.
        """
        missing = self.missing()
        if missing:
            raise FileNotFoundError(
                f"Expected {len(self)} shards of vectors in {self.folder}, found {len(self) - len(missing)} (number "
                f"{missing[0]} is missing). All processes write to one folder: put it on a file system that all nodes share "
                "and run the build again, which encodes what is missing."
            )

    def sample(self, size: int, seed: int) -> np.ndarray:
        """At most `size` vectors, drawn without replacement from all shards: a prefix of task-sorted data would mislead."""
        size = min(size, self.num_vectors)
        rows = np.sort(np.random.default_rng(seed).choice(self.num_vectors, size, replace=False))
        parts = np.split(rows, np.searchsorted(rows, np.arange(1, len(self)) * self.shard_size))
        sample, filled = np.empty((size, 0), dtype=np.float32), 0
        for number, (shard, part) in enumerate(zip(self, parts, strict=True)):
            if not filled:
                sample = np.empty((size, shard.shape[1]), dtype=np.float32)
            sample[filled : filled + len(part)] = shard[part - number * self.shard_size]
            filled += len(part)
        return sample


def probes_for(encoder: Encoder) -> list[str]:
    """The texts that tell an encoder from others: short ones and, unless it is a model's own, a long one."""
    return [*PROBES] if isinstance(encoder, MeanPooledEncoder) else [*PROBES, LONG_PROBE]


def encode(encoder: Encoder, texts: list[str]) -> np.ndarray:
    """The vectors that an encoder gives texts, as float32 `[n, d]`.

    Raises:
        ValueError: The encoder gives an array of another shape.
    """
    vectors = np.ascontiguousarray(encoder.encode(texts), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise ValueError(
            f"Expected the encoder to give vectors [{len(texts)}, d], found {list(vectors.shape)} from "
            f"{type(encoder).__name__}. Its `encode` must give a row for each text."
        )
    return vectors


def encode_shard(encoder: Encoder, texts: list[str], report: Callable[[int], object]) -> np.ndarray:
    """The vectors of a shard; `report` hears of some texts at a time. Texts of like length go together, which spares padding."""
    if isinstance(encoder, ReportingEncoder):
        with encoder.reporting(report):
            return encode(encoder, texts)
    if len(texts) <= TEXTS_A_MOVE:
        return encode(encoder, texts)
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    parts = []
    for rows in chunks(order, TEXTS_A_MOVE):
        parts.append(encode(encoder, [texts[row] for row in rows]))
        report(len(rows))
    return np.concatenate(parts)[np.argsort(order)]


def as_stored(vectors: np.ndarray, dtype: np.dtype, name_of: Callable[[int], str]) -> np.ndarray:
    """Vectors in the type that they are stored in.

    Args:
        vectors: Array `[n, d]`.
        dtype: Type of the numbers, `np.float32` or `np.float16`.
        name_of: A function that gives the id of the example of a row, for an error.

    Raises:
        ValueError: A vector is not finite, or too large for the type.
    """
    with np.errstate(over="ignore"):
        stored = vectors.astype(dtype, copy=False)
    is_finite = np.isfinite(stored).all(axis=1)
    if is_finite.all():
        return stored
    row = int(np.flatnonzero(~is_finite)[0])
    name = name_of(row)
    if np.isfinite(vectors[row]).all():
        raise ValueError(
            f"Expected vectors that float16 can hold, found {np.abs(vectors[row]).max():.3g} for the example {name!r}. "
            "Keep them in float32."
        )
    raise ValueError(
        f"Expected finite vectors, found NaN or infinity for the example {name!r}. Encode in float32 or bfloat16; "
        "float16 overflows in some models."
    )


def _id_of(dataset: Dataset, start: int, row: int) -> str:
    return str(dataset[start + row]["id"])


def same_vectors(expected: np.ndarray, actual: np.ndarray) -> bool:
    """Whether two encoders agree, up to the change that another machine or precision of the same weights may make."""
    return bool(expected.shape == actual.shape and np.abs(actual - expected).max() <= 1e-2 * np.abs(expected).max())


def _save(array: np.ndarray, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
