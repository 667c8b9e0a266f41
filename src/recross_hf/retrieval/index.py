"""`UpstreamIndex`: upstream examples and the FAISS index of their vectors."""

from __future__ import annotations

import logging
import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from datasets.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from huggingface_hub import CommitInfo
from numpy.typing import DTypeLike

from ..core.distributed import process_state
from ..core.files import read_json, read_parquet, write_json, write_parquet
from ..core.tables import shortened
from ..data.schema import EXAMPLE_FEATURES, ExampleError, check_plain, column_hash, ids_hash, without_index
from ..hub.fetching import artifact_folder
from ..hub.publishing import Publication, full_name, publish
from ..hub.repository import HubAccess
from .aggregation import Hits
from .dataset_card import index_card
from .encoder import Encoder, IdentifiedEncoder
from .faiss_io import HEADER, empty_index, fill_and_write, reason, search_depths, set_search_depths, train
from .vector_shards import PROBES, IndexMismatchError, VectorShards, same_vectors

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
EXAMPLES_FILE, INDEX_FILE, CONFIG_FILE = "examples.parquet", "index.faiss", "index.json"
SHARDS_FOLDER = "vectors.partial"
MAX_CONFIG_SIZE = 16 << 20
COLUMN = "embeddings"
"""Name of the FAISS index within the `Dataset`, as in `dataset.get_nearest_examples("embeddings", vector)`."""

_DTYPES = ("float32", "bfloat16", "float16")
METRIC_NAMES = {faiss.METRIC_L2: "l2", faiss.METRIC_INNER_PRODUCT: "inner_product"}


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
        self._mapped_file: BinaryIO | None = None

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
        vector_dtype: DTypeLike = np.float32,
        seed: int = 0,
    ) -> UpstreamIndex:
        """Encodes the inputs of `dataset` and writes a folder that [`UpstreamIndex.from_pretrained`] opens.

        Vectors go to disk in shards and from there into the index. In memory is one shard and, of kinds other than Flat and
        SQ, the index. A killed build continues where it stopped when it is called again with the same arguments; `factory`
        and what else concerns the index alone may change. Under `accelerate launch` the shards are spread over the
        processes of all nodes, which share a file system; the result is the same.

        Args:
            dataset: examples of the schema ([`load_examples`]); only `input` is encoded, as in the authors' code.
            encoder: what encodes the inputs.
            output_dir: the folder to write.
            factory: a FAISS factory string: "Flat", "SQ8", "IVF1024,Flat", "HNSW32", ..., and for many millions
                "IVF1024,PQ48np,Refine(SQfp16)", which finds hits among small codes and ranks them again by
                vectors on disk.
            metric_type: `faiss.METRIC_L2` or `faiss.METRIC_INNER_PRODUCT`.
            train_size: how many vectors, drawn at random, an index that needs training is trained on.
            nprobe: lists that an IVF index visits in a search; a sixteenth of them by default.
            shard_size: examples a shard; what a kill can cost.
            vector_dtype: of the shards: `np.float32`, or `np.float16` for half the disk and about three digits.
            seed: of the draw of training vectors.

        Raises:
            ExampleError: `dataset` does not have the schema's columns.
            IndexMismatchError: `output_dir` holds the shards of another build.
            ValueError: the factory string, or the amount of data it needs, is wrong.
        """
        _check_metric(metric_type)
        folder, state = Path(output_dir), process_state()
        data = _describe_data(dataset, encoder)
        shards = _shards(folder, dataset, shard_size, vector_dtype)
        probes = _open_on_all_processes(shards, data, encoder, state)
        # What FAISS does not take is said now and not after hours of encoding.
        faiss_index = empty_index(probes.shape[1], factory, metric_type, nprobe)
        _encode_missing(shards, range(len(shards)), dataset, encoder, state)
        if state.is_main_process:
            shards.check_complete()
            if not faiss_index.is_trained:
                train(faiss_index, shards.sample(train_size, seed), factory)
            config = data | {
                "format_version": FORMAT_VERSION,
                "metric": METRIC_NAMES[metric_type],
                "factory": factory,
                "dimension": faiss_index.d,
                "vector_dtype": shards.dtype.name,
                "probes": probes.tolist(),
            }
            _write(folder, lambda path: fill_and_write(faiss_index, shards, len(dataset), path), dataset, config)
            # Renamed first: half deleted, they would look like those of an unfinished build.
            done = shards.folder.with_suffix(".done")
            shutil.rmtree(done, ignore_errors=True)
            shutil.rmtree(shards.folder.rename(done))
        state.wait_for_everyone()
        return cls.from_pretrained(folder, encoder=encoder)

    @staticmethod
    def encode_part(
        dataset: Dataset,
        encoder: Encoder,
        output_dir: str | Path,
        *,
        part: int,
        num_parts: int,
        shard_size: int = 4096,
        vector_dtype: DTypeLike = np.float32,
    ) -> None:
        """Encodes one part of what [`UpstreamIndex.build`] indexes, and waits for no other.

        For nodes that do not know of one another, as in a job array: each encodes its part, whenever it runs, to a folder that
        they share; a killed one continues when it is called again. `build` with the same arguments, called last, finds
        the vectors there and encodes what is missing.

        Args:
            part: which part, from 0 on.
            num_parts: of how many.

        Raises:
            ValueError: there is no such part. The others are those of `build`, which describes the other arguments.
        """
        if not 0 <= part < num_parts:
            raise ValueError(f"Expected a part from 0 to {num_parts - 1} of {num_parts} parts, found {part}.")
        state, shards = process_state(), _shards(Path(output_dir), dataset, shard_size, vector_dtype)
        _open_on_all_processes(shards, _describe_data(dataset, encoder), encoder, state)
        _encode_missing(shards, range(part, len(shards), num_parts), dataset, encoder, state)

    # ---- saving and loading ----------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the examples (parquet), the vectors (faiss) and what they depend on (JSON).

        What was written is opened before it takes the place of what is there, also where that is this index itself.

        Raises:
            IndexMismatchError: what was written cannot be opened; what was there is left as it was.
        """
        _write(Path(save_directory), self._write_vectors, self.dataset, self.config)

    def _write_vectors(self, path: Path) -> None:
        if self._mapped_file is None:
            faiss.write_index(self.faiss_index, str(path))
            return
        # Of lists that are mapped FAISS writes no more than where they are. The file is still there, replaced or not.
        self._mapped_file.seek(0)
        with path.open("wb") as copied:
            shutil.copyfileobj(self._mapped_file, copied, 16 << 20)
        written = _read_faiss(path, self.config, memory_map=True)
        if search_depths(written) != (depths := search_depths(self.faiss_index)):
            written = _read_faiss(path, self.config, memory_map=False)
            set_search_depths(written, depths)
            faiss.write_index(written, str(path))

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
            dataset = read_parquet(folder / EXAMPLES_FILE)
        except ValueError as error:
            raise IndexMismatchError(
                f"{error} The examples of an index belong there: save or build it again."
            ) from error
        check_plain(dataset, folder / EXAMPLES_FILE)
        if verify:
            _check_encoder(encoder, config, folder)
            _check_examples(dataset, config, folder / EXAMPLES_FILE)
        if not memory_map:
            return cls(dataset, _read_faiss(folder / INDEX_FILE, config, memory_map), encoder, config)
        with ExitStack() as stack:
            # Open as long as the index is: it is what `save_pretrained` copies, whatever becomes of its name.
            file = stack.enter_context((folder / INDEX_FILE).open("rb"))
            index = cls(dataset, _read_faiss(folder / INDEX_FILE, config, memory_map), encoder, config)
            if not os.path.samestat(os.fstat(file.fileno()), (folder / INDEX_FILE).stat()):
                raise IndexMismatchError(f"{folder / INDEX_FILE} was replaced while it was opened. Open it again.")
            stack.pop_all()
        index._mapped_file = file
        return index

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
            ValueError: the vectors are of another dimension, or not finite.
        """
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.faiss_index.d:
            raise ValueError(f"Expected vectors [n, {self.faiss_index.d}], found {list(vectors.shape)}.")
        if k < 1:
            raise ValueError(f"Expected to search for at least 1 example, found k={k}.")
        is_finite = np.isfinite(vectors).all(axis=1)
        if not is_finite.all():
            rows = np.flatnonzero(~is_finite)
            raise ValueError(
                f"Expected finite vectors, found NaN or infinity in {len(rows)} of {len(vectors)}, first in that of query "
                f"{rows[0]}: they have no neighbours. They come from the encoder {type(self.encoder).__name__}: encode in "
                "float32 or bfloat16, for float16 overflows in some models, and check its weights for NaN."
            )
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


def _describe(encoder: Encoder) -> dict[str, Any]:
    if isinstance(encoder, IdentifiedEncoder):
        return {"encoder": encoder.identity()}
    return {"encoder": {"class": type(encoder).__name__}}


def _check_encoder(encoder: Encoder, config: dict[str, Any], folder: Path) -> None:
    expected, found = config["encoder"], _describe(encoder)["encoder"]
    differing = [name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]
    if differing:
        details = "; ".join(
            f"{name}: {shortened(expected.get(name), 40)} != {shortened(found.get(name), 40)}" for name in differing
        )
        remedy = "pass the encoder it was built with, or build the index again with this one."
        dtype = expected.get("dtype")
        # Weights that were read in another precision are others, too.
        if "dtype" in differing and set(differing) <= {"dtype", "weights"} and dtype in _DTYPES:
            remedy = (
                f"load the model, or the pipeline, with `dtype=torch.{dtype}`, as it was when the index was built. If that gives "
                "the same, it is another model: pass the one that the index was built with."
            )
        raise IndexMismatchError(
            f"The index in {folder} was built with another encoder ({details}; index first). Vectors of two encoders "
            f"cannot be compared: {remedy}"
        )
    # Weights of an encoder that cannot name them are known by what they do.
    probes = np.asarray(config["probes"], dtype=np.float32)
    vectors = np.asarray(encoder.encode(list(PROBES)), dtype=np.float32)
    if not same_vectors(probes, vectors):
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


# ---- building: shards of vectors on disk, then the index ---------------------------------------------------------------


def _check_metric(metric_type: int) -> None:
    if metric_type not in METRIC_NAMES:
        raise ValueError(f"Expected faiss.METRIC_L2 or faiss.METRIC_INNER_PRODUCT, found {metric_type}.")


def _describe_data(dataset: Dataset, encoder: Encoder) -> dict[str, Any]:
    """What the vectors depend on."""
    missing = [name for name in ("id", "task", "input", "references") if name not in dataset.column_names]
    if missing:
        raise ExampleError(
            f"Expected the columns id, task, input and references, found {', '.join(dataset.column_names)}. "
            "Read the data with `load_examples`."
        )
    if not len(dataset):
        raise ExampleError("Expected at least one example to index, found none.")
    return _describe(encoder) | {
        "num_examples": len(dataset),
        "ids_sha256": ids_hash(dataset),
        "texts_sha256": column_hash(dataset, "input"),
    }


def _shards(folder: Path, dataset: Dataset, shard_size: int, vector_dtype: DTypeLike) -> VectorShards:
    dtype = np.dtype(vector_dtype)
    if dtype not in (np.float32, np.float16):
        raise ValueError(f"Expected vectors in float32 or float16, found {dtype}. For 8 bits, see the factory SQ8.")
    return VectorShards(folder / SHARDS_FOLDER, len(dataset), shard_size, dtype)


def _open_on_all_processes(
    shards: VectorShards, data: dict[str, Any], encoder: Encoder, state: PartialState
) -> np.ndarray:
    """The probes. Each process compares its data and its encoder: a node may have others than the main process."""
    if state.is_main_process:
        if shards.folder.is_dir():
            logger.warning("Continuing the unfinished build in %s.", shards.folder)
        probes = shards.open(data, encoder)
    state.wait_for_everyone()
    return probes if state.is_main_process else shards.open(data, encoder)


def _encode_missing(
    shards: VectorShards, numbers: Iterable[int], dataset: Dataset, encoder: Encoder, state: PartialState
) -> None:
    """Encodes those of the shards that are missing, spread evenly over the processes, whoever left them."""
    (missing,) = broadcast_object_list([sorted(set(numbers) & set(shards.missing()))])
    mine = missing[state.process_index :: state.num_processes]
    shards.encode(dataset, encoder, mine, show_progress=state.is_main_process)
    state.wait_for_everyone()


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


def _names_another_file(path: Path) -> bool:
    """Whether FAISS would open another file for it, to read and to write: the record of lists on disk, and its two counts."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return re.search(rb"ilod.{4}\x00{4}.{4}\x00{4}", content, re.DOTALL) is not None


def _read_faiss(path: Path, config: dict[str, Any], memory_map: bool) -> faiss.Index:
    size, head = path.stat().st_size, b""
    with path.open("rb") as file:
        head = file.read(HEADER.size)
    if len(head) < HEADER.size:
        raise _malformed(path, f"a file of {size} bytes")
    kind, dimension, number, *_ = HEADER.unpack(head)
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
        # FAISS has one way to map inverted lists and another for the rest; each leaves the other's kind in memory. Of an index
        # with both, what it ranks again by is the larger.
        is_mostly_lists = "IVF" in config["factory"] and kind != b"IxRF"
        flags = faiss.IO_FLAG_MMAP if is_mostly_lists else faiss.IO_FLAG_MMAP_IFC
    # A length within the file may be anything; FAISS would make room for it before it finds the file too short.
    limit = faiss.get_deserialization_vector_byte_limit()
    # Nor for more than the table that it makes of the lists and codebooks of an index with IVF and PQ, which can be 256 times
    # as large as they are and which it makes up to 2 GB.
    faiss.set_deserialization_vector_byte_limit(max(size, min(256 * size, 2 << 30)))
    try:
        index = faiss.read_index(str(path), flags)
    except (RuntimeError, MemoryError) as error:
        raise _malformed(path, f"a malformed file ({reason(error)})") from error
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


def _write(folder: Path, write_index: Callable[[Path], Any], dataset: Dataset, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as name:
        partial = Path(name)
        write_index(partial / INDEX_FILE)
        columns = [name for name in EXAMPLE_FEATURES if name in dataset.column_names]
        write_parquet(without_index(dataset).select_columns(columns), partial / EXAMPLES_FILE)
        write_json(partial / CONFIG_FILE, config)
        _check_written(partial)
        # The configuration goes first and comes last: without it, a folder that was half overwritten is no index.
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        for written in (INDEX_FILE, EXAMPLES_FILE, CONFIG_FILE):
            os.replace(partial / written, folder / written)


def _check_written(folder: Path) -> None:
    try:
        config = _read_config(folder / CONFIG_FILE)
        _read_faiss(folder / INDEX_FILE, config, memory_map=True)
        num_rows = pq.read_metadata(folder / EXAMPLES_FILE).num_rows
        if num_rows != config["num_examples"]:
            raise IndexMismatchError(f"{num_rows} examples in place of {config['num_examples']}")
    except (ValueError, pa.ArrowException) as error:
        raise IndexMismatchError(
            f"Expected an index that can be opened, found that what was written of it cannot: {error} Nothing was replaced. "
            "Build the index again, or open it with `UpstreamIndex.from_pretrained` before it is saved."
        ) from error
