"""What a worker of a Ray cluster does: it loads the encoder once, and encodes and writes one chunk after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..._version import __version__
from ...core.batching import chunks
from ...core.run_settings import names_alone, refuse_other_settings
from ...data.conversations import texts_of
from ...data.schema import MESSAGES
from ..encoder import Encoder
from ..index_identity import describe_encoder
from ..lance.layout import stored_schema, to_table, write_fragment
from ..lance.location import Location
from ..vector_shards import SHARD_SIZE, IndexMismatchError, as_stored, encode, encode_shard, probes_for, same_vectors
from .sources import Chunk, ParquetSource


class EncoderDescription(NamedTuple):
    """What tells an encoder from others.

    Attributes:
        identity: Its identity, as an index keeps it.
        probes: Vectors `[3 or 4, d]` that it gives a few texts.
        version: Version of this package that it runs with.
    """

    identity: dict[str, Any]
    probes: np.ndarray
    version: str

    @property
    def dimension(self) -> int:
        """Dimension of its vectors."""
        return int(self.probes.shape[1])


class ChunkWorker:
    """Encodes chunks and writes them to the storage, as files that no version of the index names yet.

    Two threads may call it: one chunk is read or written while another one is encoded.

    Args:
        source: The files of the examples.
        make_encoder: Loads the encoder on the worker's node: a function that can be imported there, or a `functools.partial` of one. Paths
            in it must lead to the same model on all nodes.
        storage: Where the index will be.
        vector_dtype: Type of the vectors, "float32" or "float16".
    """

    def __init__(
        self, source: ParquetSource, make_encoder: Callable[[], Encoder], storage: Location, vector_dtype: str
    ) -> None:
        self.source, self.make_encoder, self.storage = source, make_encoder, storage
        self.dtype = np.dtype(vector_dtype)
        self._encoding = Lock()

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder, which is loaded when it is first used: Ray tells an error of a call better than one of a start."""
        return self.make_encoder()

    @cached_property
    def description(self) -> EncoderDescription:
        """What tells this worker's encoder from others."""
        probes = encode(self.encoder, probes_for(self.encoder))
        return EncoderDescription(describe_encoder(self.encoder), probes, __version__)

    def describe(self) -> EncoderDescription:
        """What tells this worker's encoder from others."""
        with self._encoding:
            return self.description

    def write(self, chunk: Chunk, expected: EncoderDescription) -> str:
        """Encodes a chunk and writes it.

        Args:
            chunk: The rows.
            expected: The encoder that the chunks of this build are encoded with.

        Returns:
            The fragment, as JSON.

        Raises:
            ExampleError: A row is none of an example.
            IndexMismatchError: The encoder on this node is another one.
            OSError: The storage cannot be written.
            ValueError: A vector is not finite, or too large for the type; the message names the file, the row and the id.
        """
        examples = self.source.read(chunk)
        names = [name for name in ("input", MESSAGES) if name in examples.column_names]
        texts = texts_of({name: examples[name].to_pylist() for name in names})
        with self._encoding:
            self._check(expected)
            shards = [encode_shard(self.encoder, [*shard], _ignored) for shard in chunks(texts, SHARD_SIZE)]
        vectors = as_stored(np.concatenate(shards), self.dtype, partial(_name_of, examples, chunk))
        schema = stored_schema(examples.schema, vectors.shape[1], self.dtype)
        return write_fragment(self.storage, to_table(examples, vectors, schema))

    def _check(self, expected: EncoderDescription) -> None:
        """A worker that is started again may come up on a node that has another model at the same path."""
        remedy = "Put the same model, and the same version of this package, on all nodes, and run the build again."
        refuse_other_settings(
            expected.identity | {"version": expected.version},
            self.description.identity | {"version": self.description.version},
            expected="the same encoder on every worker",
            found=lambda changed: f"another on one of them ({names_alone(changed)})",
            remedy=remedy,
            error=IndexMismatchError,
        )
        if not same_vectors(expected.probes, self.description.probes):
            raise IndexMismatchError(
                f"Expected the same encoder on every worker, found one that gives other vectors for the same texts. {remedy}"
            )


def _ignored(_: int) -> None:
    """The bar moves with each chunk, and needs no report of each batch."""


def _name_of(examples: pa.Table, chunk: Chunk, row: int) -> str:
    """The id of an example, and where it is."""
    left = row
    for piece in chunk.pieces:
        if left < piece.stop - piece.start:
            return f"{examples['id'][row].as_py()} (row {piece.start + left} of {piece.address})"
        left -= piece.stop - piece.start
    raise IndexError(row)
