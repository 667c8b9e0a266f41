"""FAISS files: written without holding their vectors, and read with a check of all that FAISS would believe.

All knowledge of FAISS's binary format stands here. It is that of FAISS 1.15; `tests/retrieval/test_faiss_io.py` compares it with the
files of the installed version.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np

from ..core.progress import progress_bar
from .faiss_indexes import reason, search_depths, set_search_depths
from .vector_shards import IndexMismatchError

HEADER = struct.Struct("<4siqqq?i")
"""The beginning of every FAISS file: kind, dimension, number of vectors, two fillers, whether the index is trained, metric."""

_LISTS_ON_DISK = re.compile(rb"ilod.{4}\x00{4}.{4}\x00{4}", re.DOTALL)
"""The record of inverted lists that are in another file: its name in the format, and the numbers of lists and of bytes a code."""

_FLAT_KINDS = b"IxF"


# ---- writing ---------------------------------------------------------------------------------------------------------


def fill_and_write(index: faiss.Index, shards: Iterable[np.ndarray], num_vectors: int, path: Path) -> None:
    """Writes the file that `faiss.write_index` writes of a trained index once all shards are added to it.

    Where each vector is a code of its own, as in Flat, SQ8 and the vectors that `Refine` ranks by, the codes go from the
    shards to the file, and one shard is in memory. Other kinds order the vectors: they are held in memory, as the index
    stores them, until all are there. The index is empty afterwards, as it was.
    """
    with path.open("wb") as file:
        _fill_and_write(index, shards, num_vectors, file)


def _fill_and_write(index: faiss.Index, shards: Iterable[np.ndarray], num_vectors: int, file: BinaryIO) -> None:
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        # The header is followed by the index that finds hits, the one that ranks them, and the factor between their numbers.
        empty = faiss.serialize_index(index).tobytes()
        file.write(_counting(empty[: HEADER.size], num_vectors))
        for inner in (index.base_index, index.refine_index):
            _fill_and_write(inner, shards, num_vectors, file)
        file.write(empty[-4:])
        return
    progress = progress_bar(shards, desc="Indexing", unit="shard")
    head = _head_before_codes(index, num_vectors)
    if head is None:
        for shard in progress:
            index.add(np.ascontiguousarray(shard))
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
        index.reset()
        return
    file.write(head)
    for shard in progress:
        file.write(index.sa_encode(np.ascontiguousarray(shard)))


def _head_before_codes(index: faiss.Index, num_vectors: int) -> bytes | None:
    """The bytes before the codes in the file of an index with so many vectors; `None` where codes do not stand last.

    The file of one vector tells them: it ends in the length of the codes, in a unit that differs with the kind, and the codes.
    """
    if not isinstance(index, faiss.IndexFlatCodes):
        return None
    vector = np.zeros((1, index.d), dtype=np.float32)
    index.add(vector)
    content = faiss.serialize_index(index).tobytes()
    index.reset()
    head, code = content[: -index.code_size], content[-index.code_size :]
    (length,) = struct.unpack("<Q", head[-8:])
    if code != index.sa_encode(vector).tobytes() or length not in (index.code_size, index.code_size // 4):
        return None
    return _counting(head[:-8], num_vectors) + struct.pack("<Q", length * num_vectors)


def _counting(head: bytes, num_vectors: int) -> bytes:
    kind, dimension, _, *others = HEADER.unpack_from(head)
    return HEADER.pack(kind, dimension, num_vectors, *others) + head[HEADER.size :]


def copy_mapped(file: BinaryIO, index: faiss.Index, config: Mapping[str, Any], path: Path) -> None:
    """Writes an index that is mapped, with the search depths that it has now.

    Of lists that are mapped, FAISS itself writes no more than where they are.

    Args:
        file: The open file that the index is mapped from; it is still there where its name is not.
        index: The index.
        config: The content of `index.json`.
        path: The file to write.
    """
    file.seek(0)
    with path.open("wb") as copied:
        shutil.copyfileobj(file, copied, 16 << 20)
    depths = search_depths(index)
    if search_depths(read_index(path, config, memory_map=True)) != depths:
        written = read_index(path, config, memory_map=False)
        set_search_depths(written, depths)
        faiss.write_index(written, str(path))


def read_into_memory(file: BinaryIO, index: faiss.Index, config: Mapping[str, Any]) -> faiss.Index:
    """Reads an index that is mapped as one that needs no file, for a copy or another process.

    Args:
        file: The open file that the index is mapped from.
        index: The index; the search depths that it has now are those of the result.
        config: The content of `index.json`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.faiss"
        copy_mapped(file, index, config, path)
        return read_index(path, config, memory_map=False)


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_mapped(path: Path, config: Mapping[str, Any]) -> tuple[faiss.Index, BinaryIO]:
    """Maps an index, and gives the open file that it is mapped from for [`copy_mapped`].

    Raises:
        IndexMismatchError: The file is not the one that [`read_index`] expects, or was replaced meanwhile.
    """
    file = path.open("rb")
    try:
        index = read_index(path, config, memory_map=True)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise IndexMismatchError(f"{path} was replaced while it was opened. Open it again.")
    except BaseException:
        file.close()
        raise
    return index, file


def read_index(path: Path, config: Mapping[str, Any], *, memory_map: bool) -> faiss.Index:
    """Reads an index, which may be from anybody: it opens no other file, and takes no more memory than the file accounts for.

    Args:
        path: The FAISS file.
        config: The content of `index.json`: `dimension`, `num_examples` and `factory` count here.
        memory_map: Whether the vectors stay on disk, for the system to page in.

    Raises:
        IndexMismatchError: The file is malformed, or not the one that the configuration describes.
    """
    kind = _check_header(path, config)
    # A length within the file may be anything; FAISS would make room for it before it finds the file too short. The limit
    # also allows the table that FAISS makes of the lists and codebooks of an index with IVF and PQ: it can be 256 times as
    # large as they are, and FAISS makes it up to 2 GB.
    size, limit = path.stat().st_size, faiss.get_deserialization_vector_byte_limit()
    faiss.set_deserialization_vector_byte_limit(max(size, min(256 * size, 2 << 30)))
    try:
        index = faiss.read_index(str(path), _mapping_flags(kind, config["factory"]) if memory_map else 0)
    except (RuntimeError, MemoryError) as error:
        raise _malformed(path, f"a malformed file ({reason(error)})") from error
    finally:
        faiss.set_deserialization_vector_byte_limit(limit)
    number, inverted = config["num_examples"], faiss.try_extract_index_ivf(index)
    listed = number if inverted is None else inverted.invlists.compute_ntotal()
    if listed != number:
        raise _malformed(path, f"inverted lists of {listed:,} vectors in place of {number:,}")
    return index


def _check_header(path: Path, config: Mapping[str, Any]) -> bytes:
    """The kind of the index, once the size of its file can be that of its vectors."""
    size, (expected, dimension) = path.stat().st_size, (config["num_examples"], config["dimension"])
    with path.open("rb") as file:
        head = file.read(HEADER.size)
    if len(head) < HEADER.size:
        raise _malformed(path, f"a file of {size} bytes")
    kind, length, number, *_ = HEADER.unpack(head)
    if (length, number) != (dimension, expected):
        raise _malformed(path, f"{number} vectors of {length} dimensions in place of {expected} of {dimension}")
    # Every kind takes at least a byte a vector; flat ones take four a dimension.
    if size < number * (4 * dimension if kind.startswith(_FLAT_KINDS) else 1):
        raise _malformed(path, f"{size:,} bytes, too few for {number:,} vectors of {dimension} dimensions")
    if not kind.startswith(_FLAT_KINDS) and names_another_file(path):
        raise _malformed(path, "inverted lists in a file of their own, which could be any")
    return bytes(kind)


def _mapping_flags(kind: bytes, factory: str) -> int:
    # FAISS has one way to map inverted lists and another for the rest; each leaves the other's kind in memory. Of an index
    # with both, the vectors that it ranks again by are larger.
    is_mostly_lists = "IVF" in factory and kind != b"IxRF"
    return int(faiss.IO_FLAG_MMAP if is_mostly_lists else faiss.IO_FLAG_MMAP_IFC)


def names_another_file(path: Path) -> bool:
    """Whether FAISS would open another file, to read and to write, because a FAISS file says that its lists are there."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _LISTS_ON_DISK.search(content) is not None


def _malformed(path: Path, found: str) -> IndexMismatchError:
    return IndexMismatchError(
        f"Expected the FAISS index that index.json describes in {path}, found {found}. Download or save the index again."
    )
