"""`UpstreamIndex`: upstream examples and the FAISS index of their vectors."""

from __future__ import annotations

import hashlib
import logging
import mmap
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from accelerate import PartialState
from datasets import Dataset
from datasets.exceptions import DatasetGenerationError
from datasets.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from huggingface_hub import CommitInfo
from tqdm.auto import tqdm

from .aggregation import Hits
from .data import EXAMPLE_FEATURES, ExampleError, check_plain
from .encoder import Encoder, IdentifiedEncoder
from .files import read_json, write_atomically, write_json, write_parquet
from .hub import Publication, artifact_folder, full_name, publish
from .part_cards import index_card
from .processes import process_state
from .repository import HubAccess

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
EXAMPLES_FILE, INDEX_FILE, CONFIG_FILE = "examples.parquet", "index.faiss", "index.json"
SHARDS_FOLDER = "vectors.partial"
MAX_CONFIG_SIZE = 16 << 20
COLUMN = "embeddings"
"""Name of the FAISS index within the `Dataset`, as in `dataset.get_nearest_examples("embeddings", vector)`."""

METRIC_NAMES = {faiss.METRIC_L2: "l2", faiss.METRIC_INNER_PRODUCT: "inner_product"}
PROBES = ("What is the capital of this country?", "Is the review positive or negative? It was a long wait.", "yes")
"""Encoded when an index is built and again when it is opened: an encoder that gives other vectors is another one."""


class IndexMismatchError(ValueError):
    """The index, its data or its encoder do not belong together; the message says which, and what to do."""


class UpstreamIndex:
    """A `Dataset` of upstream examples with its FAISS index, and the encoder that made the vectors.

    ```python
    index = UpstreamIndex.build(load_examples("upstream/*.parquet"), encoder, "index")
    index = UpstreamIndex.from_pretrained("index", encoder=encoder)
    hits = index.search(encoder.encode(["..."]), k=32)
    ```

    Attributes:
        dataset: the examples; `dataset.get_nearest_examples("embeddings", vector)` works as in `datasets`.
        encoder: what encodes queries.
        metric_type: `faiss.METRIC_L2` or `faiss.METRIC_INNER_PRODUCT`.
    """

    def __init__(self, dataset: Dataset, faiss_index: faiss.Index, encoder: Encoder, config: dict[str, Any]) -> None:
        if faiss_index.ntotal != len(dataset):
            raise IndexMismatchError(
                f"Expected a vector for each of the {len(dataset)} examples, found {faiss_index.ntotal} vectors."
            )
        # With no array to add, this public call attaches a finished index as it is, memory-mapped or not.
        with _progress_bars_off():
            dataset.add_faiss_index_from_external_arrays(
                np.empty((0, faiss_index.d), dtype=np.float32), COLUMN, custom_index=faiss_index
            )
        self.dataset = dataset
        self.encoder = encoder
        self.config = config

    @property
    def faiss_index(self) -> faiss.Index:
        return self.dataset.get_index(COLUMN).faiss_index

    @property
    def metric_type(self) -> int:
        return self.faiss_index.metric_type

    def __len__(self) -> int:
        return len(self.dataset)

    # ---- building --------------------------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        dataset: Dataset,
        encoder: Encoder,
        output_dir: str | Path,
        *,
        factory: str = "Flat",
        metric_type: int = faiss.METRIC_L2,
        train_size: int = 100_000,
        nprobe: int | None = None,
        shard_size: int = 4096,
        seed: int = 0,
    ) -> UpstreamIndex:
        """Encodes the inputs of `dataset` and writes a folder that [`UpstreamIndex.from_pretrained`] opens.

        Vectors go to disk in shards and from there into the index: in memory are the index and one shard. A killed
        build continues where it stopped when it is called again with the same arguments. Under `accelerate launch`
        the shards are spread over the processes; the result is the same.

        Args:
            dataset: examples of the schema ([`load_examples`]); only `input` is encoded, as in the authors' code.
            encoder: what encodes the inputs.
            output_dir: the folder to write.
            factory: a FAISS factory string: "Flat", "SQ8", "IVF1024,Flat", "IVF1024,PQ48np", "HNSW32", ...
            metric_type: `faiss.METRIC_L2` or `faiss.METRIC_INNER_PRODUCT`.
            train_size: how many vectors, drawn at random, an index that needs training is trained on.
            nprobe: lists that an IVF index visits in a search; a sixteenth of them by default.
            shard_size: examples a shard; what a kill can cost.
            seed: of the draw of training vectors.

        Raises:
            ExampleError: `dataset` does not have the schema's columns.
            IndexMismatchError: `output_dir` holds the shards of another build.
            ValueError: the factory string, or the amount of data it needs, is wrong.
        """
        missing = [name for name in ("id", "task", "input", "references") if name not in dataset.column_names]
        if missing:
            raise ExampleError(
                f"Expected the columns id, task, input and references, found {', '.join(dataset.column_names)}. "
                "Read the data with `load_examples`."
            )
        if metric_type not in METRIC_NAMES:
            raise ValueError(f"Expected faiss.METRIC_L2 or faiss.METRIC_INNER_PRODUCT, found {metric_type}.")
        if not len(dataset):
            raise ExampleError("Expected at least one example to index, found none.")
        folder, state = Path(output_dir), process_state()
        config = _describe(encoder) | {
            "format_version": FORMAT_VERSION,
            "metric": METRIC_NAMES[metric_type],
            "factory": factory,
            "num_examples": len(dataset),
            "ids_sha256": ids_hash(dataset),
            "texts_sha256": column_hash(dataset, "input"),
        }
        shards = folder / SHARDS_FOLDER
        if state.is_main_process:
            _open_shards(shards, config | {"shard_size": shard_size})
            probes = _check_probes(encoder, shards)
            # What FAISS does not take is said now and not after hours of encoding.
            _empty_index(probes.shape[1], factory, metric_type, nprobe)
        state.wait_for_everyone()
        _encode_shards(dataset, encoder, shards, shard_size, state)
        state.wait_for_everyone()
        if state.is_main_process:
            vectors = _Shards(shards, len(dataset), shard_size)
            faiss_index = _assemble(vectors, factory, metric_type, train_size, nprobe, seed)
            config |= {"dimension": faiss_index.d, "probes": probes.tolist()}
            _write(folder, faiss_index, dataset, config)
            del faiss_index, vectors
            # Renamed first: half deleted, they would look like those of an unfinished build.
            done = shards.with_suffix(".done")
            shutil.rmtree(done, ignore_errors=True)
            shutil.rmtree(shards.rename(done))
        state.wait_for_everyone()
        return cls.from_pretrained(folder, encoder=encoder)

    # ---- saving and loading ----------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the examples (parquet), the vectors (faiss) and what they depend on (JSON)."""
        _write(Path(save_directory), self.faiss_index, self.dataset, self.config)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | bool | None = None,
        private: bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
        license: str | None = None,
    ) -> CommitInfo:
        """Publishes the index as a data set: the examples, the vectors and what they depend on, in one commit.

        `datasets.load_dataset` and `load_faiss_index` open it, too. `license`, such as apache-2.0, goes into its card; the other arguments
        are those of [`publish`].
        """
        repo_id = full_name(repo_id, token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            files: dict[str, Path | bytes] = {path.name: path for path in sorted(Path(folder).iterdir())}
            files["README.md"] = str(index_card(repo_id, self.dataset, self.config, license=license)).encode()
            return publish(
                Publication(repo_id, "dataset", files),
                token=token,
                private=private,
                revision=revision,
                create_pr=create_pr,
                commit_message=commit_message,
            )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        encoder: Encoder,
        metric_type: int | None = None,
        memory_map: bool = True,
        verify: bool = True,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> UpstreamIndex:
        """Opens an index that [`UpstreamIndex.build`] or [`UpstreamIndex.save_pretrained`] wrote, or one on the Hub.

        Args:
            name_or_path: the folder, or the name of a data set on the Hub.
            encoder: what encodes queries; it must be what encoded the examples.
            metric_type: the metric that is expected, if it matters to the caller.
            memory_map: leave the vectors on disk and let the system page them in.
            verify: compare encoder and examples with what was indexed; a caller who did may leave it out.
            revision: of the data set: a branch, a tag or a commit. The others are those of [`HubAccess`].

        Raises:
            FileNotFoundError: a file is missing.
            HubError: the data set could not be had.
            IndexMismatchError: the encoder, its pooling, the metric, the ids or the format are not those of the index, or
                a file of it is malformed.
        """
        access = HubAccess(token, cache_dir, local_files_only, force_download)
        folder = artifact_folder(name_or_path, "dataset", revision, access)
        for name in (CONFIG_FILE, INDEX_FILE, EXAMPLES_FILE):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"Expected an index with {CONFIG_FILE}, {INDEX_FILE} and {EXAMPLES_FILE} in {folder}, found no "
                    f"{name}."
                    + (
                        " A build was interrupted here: run it again to finish it."
                        if (folder / SHARDS_FOLDER).is_dir()
                        else ""
                    )
                )
        config = _read_config(folder / CONFIG_FILE)
        if metric_type is not None and METRIC_NAMES.get(metric_type) != config["metric"]:
            raise IndexMismatchError(
                f"Expected the metric {METRIC_NAMES.get(metric_type, metric_type)}, found an index with "
                f"{config['metric']} in {folder}. Build it again with the other `metric_type`, or ask for this one."
            )
        try:
            dataset = Dataset.from_parquet(str(folder / EXAMPLES_FILE))
        except (DatasetGenerationError, pa.ArrowInvalid) as error:
            raise IndexMismatchError(
                f"Expected examples as parquet in {folder / EXAMPLES_FILE}, found a malformed file: {error}. Download or "
                "save the index again."
            ) from error
        check_plain(dataset, folder / EXAMPLES_FILE)
        if verify:
            _check_encoder(encoder, config, folder)
            _check_examples(dataset, config, folder / EXAMPLES_FILE)
        return cls(dataset, _read_faiss(folder / INDEX_FILE, config, memory_map), encoder, config)

    # ---- searching -------------------------------------------------------------------------------------------------

    def search(self, vectors: np.ndarray, k: int, **search_kwargs: Any) -> Hits:
        """The `k` nearest examples of each vector.

        Args:
            vectors: `[n, d]`, from the index's encoder.
            k: how many; more than there are examples gives all of them and then -1.
            search_kwargs: passed to FAISS, e.g. `params=faiss.SearchParametersIVF(nprobe=32)`.

        Returns:
            [`Hits`] `[n, k]`. Distances are squared L2, or the inner product with its sign changed: they fall with
            relevance.

        Raises:
            IndexMismatchError: the vectors name examples that are not there.
        """
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.faiss_index.d:
            raise ValueError(f"Expected vectors [n, {self.faiss_index.d}], found {list(vectors.shape)}.")
        if k < 1:
            raise ValueError(f"Expected to search for at least 1 example, found k={k}.")
        distances, positions = self.faiss_index.search(vectors, k, **search_kwargs)
        if self.metric_type == faiss.METRIC_INNER_PRODUCT:
            distances = -distances
        # An IVF index holds a number with each vector, which a foreign file may choose.
        wrong = positions[(positions < -1) | (positions >= len(self))]
        if len(wrong):
            raise IndexMismatchError(
                f"Expected positions of {len(self)} examples, found {wrong[0]} beside a vector: the FAISS index is damaged, or none "
                "of these examples. Download the index or build it again."
            )
        return Hits(positions, np.where(positions < 0, np.inf, distances))


@contextmanager
def _progress_bars_off() -> Iterator[None]:
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def ids_hash(dataset: Dataset) -> str:
    """SHA-256 of the ids in their order."""
    return column_hash(dataset, "id")


def column_hash(dataset: Dataset, column: str) -> str:
    """SHA-256 of a column of strings, or of lists of them, in their order."""
    digest = hashlib.sha256()
    for batch in dataset.select_columns(column).with_format("arrow").iter(10_000):
        digest.update("".join(f"{len(text)}:{text}" for text in batch[column].to_pylist()).encode())
    return digest.hexdigest()


def _describe(encoder: Encoder) -> dict[str, Any]:
    if isinstance(encoder, IdentifiedEncoder):
        return {"encoder": encoder.identity()}
    return {"encoder": {"class": type(encoder).__name__}}


def _check_encoder(encoder: Encoder, config: dict[str, Any], folder: Path) -> None:
    expected, found = config["encoder"], _describe(encoder)["encoder"]
    differing = [name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]
    if differing:
        details = "; ".join(f"{name}: {_short(expected.get(name))} != {_short(found.get(name))}" for name in differing)
        raise IndexMismatchError(
            f"The index in {folder} was built with another encoder ({details}; index first). Vectors of two encoders "
            "cannot be compared: pass the encoder it was built with, or build the index again with this one."
        )
    # Weights of an encoder that cannot name them are known by what they do.
    probes = np.asarray(config["probes"], dtype=np.float32)
    vectors = np.asarray(encoder.encode(list(PROBES)), dtype=np.float32)
    if not _same_vectors(probes, vectors):
        raise IndexMismatchError(
            f"The index in {folder} was built with another encoder: for the same texts it gave other vectors. Pass the "
            "encoder it was built with, or build the index again with this one."
        )


def _check_examples(dataset: Dataset, config: dict[str, Any], path: Path) -> None:
    if len(dataset) != config["num_examples"] or ids_hash(dataset) != config["ids_sha256"]:
        raise IndexMismatchError(
            f"The ids in {path} are not those that were indexed: the examples were changed, reordered or replaced. Restore "
            "the file or build the index again."
        )
    if column_hash(dataset, "input") != config["texts_sha256"]:
        raise IndexMismatchError(
            f"The inputs in {path} are not those that were indexed. Restore the file or build the index again."
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:12]}..."


# ---- building: shards of vectors on disk, then the index ---------------------------------------------------------------


class _Shards:
    """The vectors of a build, memory-mapped shard by shard."""

    def __init__(self, folder: Path, num_vectors: int, shard_size: int) -> None:
        self.folder, self.num_vectors, self.shard_size = folder, num_vectors, shard_size

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(-(-self.num_vectors // self.shard_size)):
            yield np.load(_shard_path(self.folder, number), mmap_mode="r")

    def sample(self, size: int, seed: int) -> np.ndarray:
        """`size` vectors drawn without replacement from all shards: task-sorted data would mislead a prefix."""
        if size >= self.num_vectors:
            return np.concatenate(list(self))
        rows = np.sort(np.random.default_rng(seed).choice(self.num_vectors, size, replace=False))
        parts = np.split(rows, np.searchsorted(rows, np.arange(self.shard_size, self.num_vectors, self.shard_size)))
        return np.concatenate(
            [
                shard[part - number * self.shard_size]
                for number, (shard, part) in enumerate(zip(self, parts, strict=True))
            ]
        )


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npy"


def _open_shards(folder: Path, build: dict[str, Any]) -> None:
    """Starts a build, or finds one that the same arguments started."""
    path = folder / "build.json"
    if path.is_file():
        found = read_json(path)
        differing = [name for name in build if found.get(name) != build[name] and name != "factory"]
        if differing:
            raise IndexMismatchError(
                f"{folder} holds the vectors of an unfinished build with other data or settings "
                f"({', '.join(differing)}). Finish that build, choose another folder, or delete {folder}."
            )
        logger.warning("Continuing the unfinished build in %s.", folder)
        return
    shutil.rmtree(folder, ignore_errors=True)  # what a build of unknown settings left
    folder.mkdir(parents=True)
    write_json(path, build)


def _check_probes(encoder: Encoder, folder: Path) -> np.ndarray:
    """Keeps what the encoder makes of the probes, or compares it with what the unfinished build kept."""
    probes, path = _encode(encoder, list(PROBES)), folder / "probes.npy"
    if not path.is_file():
        _write_array(path, probes)
    elif not _same_vectors(np.load(path), probes):
        raise IndexMismatchError(
            f"{folder} holds the vectors of an unfinished build with another encoder. Finish it with that one, choose another "
            f"folder, or delete {folder}."
        )
    return probes


def _same_vectors(expected: np.ndarray, found: np.ndarray) -> bool:
    """Whether two encoders agree, up to what another machine or precision of the same weights may change."""
    return expected.shape == found.shape and np.abs(found - expected).max() <= 1e-2 * np.abs(expected).max()


def _encode(encoder: Encoder, texts: list[str]) -> np.ndarray:
    vectors = np.ascontiguousarray(encoder.encode(texts), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise ValueError(
            f"Expected the encoder to give vectors [{len(texts)}, d], found {list(vectors.shape)} from "
            f"{type(encoder).__name__}."
        )
    return vectors


def _encode_shards(dataset: Dataset, encoder: Encoder, folder: Path, shard_size: int, state: PartialState) -> None:
    numbers = range(-(-len(dataset) // shard_size))
    mine = [number for number in numbers if number % state.num_processes == state.process_index]
    sizes = {number: min(shard_size, len(dataset) - number * shard_size) for number in mine}
    progress = tqdm(total=sum(sizes.values()), desc="Encoding", unit="ex", disable=not state.is_main_process)
    for number in mine:
        path = _shard_path(folder, number)
        if not path.is_file():
            start = number * shard_size
            texts = dataset[start : start + shard_size]["input"]
            vectors = _encode(encoder, texts)
            if not np.isfinite(vectors).all():
                row = start + int(np.nonzero(~np.isfinite(vectors).all(axis=1))[0][0])
                raise ValueError(
                    f"Expected finite vectors, found NaN or infinity for the example {dataset[row]['id']!r}. Encode in "
                    "float32 or bfloat16; float16 overflows in some models."
                )
            _write_array(path, vectors)
        progress.update(sizes[number])
    progress.close()


def _assemble(
    vectors: _Shards, factory: str, metric_type: int, train_size: int, nprobe: int | None, seed: int
) -> faiss.Index:
    index = _empty_index(next(iter(vectors)).shape[1], factory, metric_type, nprobe)
    if not index.is_trained:
        try:
            index.train(vectors.sample(min(train_size, vectors.num_vectors), seed))
        except RuntimeError as error:
            raise ValueError(
                f"The index {factory!r} could not be trained on {min(train_size, vectors.num_vectors)} vectors: "
                f"{_reason(error)}. Choose fewer lists or bits, or a larger `train_size`."
            ) from error
    if isinstance(index, faiss.IndexFlatCodes):
        # Room for all vectors at once: growing by doubling would hold the old and the new matrix together.
        index.codes.resize(vectors.num_vectors * index.code_size)
        index.codes.resize(0)
    for shard in tqdm(vectors, desc="Indexing", unit="shard", total=-(-vectors.num_vectors // vectors.shard_size)):
        index.add(np.ascontiguousarray(shard))
    return index


def _empty_index(dimension: int, factory: str, metric_type: int, nprobe: int | None) -> faiss.Index:
    try:
        index = faiss.index_factory(dimension, factory, metric_type)
    except RuntimeError as error:
        raise ValueError(
            f"FAISS takes no index {factory!r} for vectors of {dimension} dimensions: {_reason(error)}. Examples of "
            "factory strings: Flat, SQ8, IVF1024,Flat, HNSW32."
        ) from error
    inverted = faiss.try_extract_index_ivf(index)
    if inverted is not None:
        # FAISS visits one list by default, which finds a third of the neighbours; the choice is saved with the index.
        inverted.nprobe = nprobe or max(1, inverted.nlist // 16)
    elif nprobe is not None:
        raise ValueError(f"`nprobe` is for IVF indexes, found the factory string {factory!r}.")
    return index


def _reason(error: Exception) -> str:
    return str(error).rsplit("Error: ", 1)[-1].strip().rstrip(".")


# ---- files: written whole or not at all ------------------------------------------------------------------------------


def _read_config(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_CONFIG_SIZE:
        raise IndexMismatchError(
            f"Expected at most {MAX_CONFIG_SIZE:,} bytes in {path}, found {path.stat().st_size:,}. It is none that recross_hf "
            "wrote: do not use it."
        )
    config = read_json(path)
    found = config.get("format_version") if isinstance(config, dict) else None
    if found != FORMAT_VERSION:
        raise IndexMismatchError(
            f"Expected an index of format {FORMAT_VERSION}, found {found} in {path.parent}. "
            "Build it again, or install the version of recross_hf that wrote it."
        )
    kinds = {
        "metric": str,
        "factory": str,
        "num_examples": int,
        "dimension": int,
        "ids_sha256": str,
        "texts_sha256": str,
        "encoder": dict,
        "probes": list,
    }
    wrong = [name for name, kind in kinds.items() if not isinstance(config.get(name), kind)]
    if wrong:
        raise IndexMismatchError(
            f"Expected {', '.join(wrong)} of an index in {path}, found something else. Download or save the index again."
        )
    return config


_HEADER = struct.Struct("<4siqqq?i")
"""What every FAISS file begins with: kind, dimension, number of vectors, two fillers, whether it is trained, metric."""


def _names_another_file(path: Path) -> bool:
    """Whether FAISS would open another file for it, to read and to write: the record of lists on disk, and its two counts."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return re.search(rb"ilod.{4}\x00{4}.{4}\x00{4}", content, re.DOTALL) is not None


def _read_faiss(path: Path, config: dict[str, Any], memory_map: bool) -> faiss.Index:
    size, head = path.stat().st_size, b""
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise _malformed(path, f"a file of {size} bytes")
    kind, dimension, number, *_ = _HEADER.unpack(head)
    if (dimension, number) != (config["dimension"], config["num_examples"]):
        raise _malformed(
            path,
            f"{number} vectors of {dimension} dimensions in place of {config['num_examples']} of {config['dimension']}",
        )
    # A byte a vector is the least that any kind takes; flat ones take four a dimension.
    least = number * (4 * dimension if kind.startswith(b"IxF") else 1)
    if size < least:
        raise _malformed(path, f"{size:,} bytes, too few for {number:,} vectors of {dimension} dimensions")
    if not kind.startswith(b"IxF") and _names_another_file(path):
        raise _malformed(path, "inverted lists in a file of their own, which could be any")
    flags = 0
    if memory_map:
        # FAISS has one way to map inverted lists and another for the rest; each leaves the other's kind in memory.
        flags = faiss.IO_FLAG_MMAP if "IVF" in config["factory"] else faiss.IO_FLAG_MMAP_IFC
    # A length within the file may be anything; FAISS would make room for it before it finds the file too short.
    limit = faiss.get_deserialization_vector_byte_limit()
    faiss.set_deserialization_vector_byte_limit(size)
    try:
        index = faiss.read_index(str(path), flags)
    except (RuntimeError, MemoryError) as error:
        raise _malformed(path, f"a malformed file ({_reason(error)})") from error
    finally:
        faiss.set_deserialization_vector_byte_limit(limit)
    inverted = faiss.try_extract_index_ivf(index)
    listed = number if inverted is None else inverted.invlists.compute_ntotal()
    if listed != number:
        raise _malformed(path, f"inverted lists of {listed:,} vectors in place of {number:,}")
    return index


def _malformed(path: Path, found: str) -> IndexMismatchError:
    return IndexMismatchError(
        f"Expected the FAISS index that {CONFIG_FILE} describes in {path}, found {found}. Download or save the index again."
    )


def _write_array(path: Path, array: np.ndarray) -> None:
    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    write_atomically(path, write)


def _write(folder: Path, faiss_index: faiss.Index, dataset: Dataset, config: dict[str, Any]) -> None:
    # The configuration goes first and comes last: without it, a folder that was half overwritten is no index.
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    write_atomically(folder / INDEX_FILE, lambda path: faiss.write_index(faiss_index, str(path)))
    columns = [name for name in EXAMPLE_FEATURES if name in dataset.column_names]
    write_parquet(dataset.select_columns(columns), folder / EXAMPLES_FILE)
    write_json(folder / CONFIG_FILE, config)
