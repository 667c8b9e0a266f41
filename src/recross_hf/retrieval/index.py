"""`UpstreamIndex`: upstream examples beside the FAISS index of their vectors."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
from datasets import Dataset
from huggingface_hub import CommitInfo
from numpy.typing import DTypeLike

from ..core.output_folders import check_not_within, folder_to_write
from ..hub.fetching import artifact_folder
from ..hub.publishing import Publication, full_name, publish
from ..hub.repository import HubAccess
from .aggregation import Hits
from .dataset_card import index_card
from .encoder import Encoder
from .faiss_io import copy_mapped, read_index, read_into_memory, read_mapped
from .index_build import build_index_files
from .index_files import (
    EXAMPLES_FILE,
    INDEX_FILE,
    check_is_index,
    check_metric,
    read_config,
    read_examples,
    write_index_files,
)
from .index_identity import check_count, check_encoder, check_examples, check_reading, check_replacement
from .index_search import nearest

FAISS_INDEX_NAME = "embeddings"
"""Name of the FAISS index of a `Dataset`, as in `dataset.get_nearest_examples("embeddings", vector)`."""


class UpstreamIndex:
    """Upstream examples, the FAISS index of their vectors, and the encoder that made the vectors.

    ```python
    index = UpstreamIndex.build(load_examples("upstream/*.parquet"), encoder, "index")
    index = UpstreamIndex.from_pretrained("index", encoder=encoder)
    hits = index.search(encoder.encode(["..."]), k=32)
    index.dataset.select(hits.positions[0])
    ```

    The examples are a plain `Dataset`; [`UpstreamIndex.with_faiss_index`] gives one that has the FAISS index attached.

    Attributes:
        dataset: Examples, row `i` for vector `i`.
        faiss_index: FAISS index of the vectors.
        encoder: Encoder of the queries, which must be the one that encoded the examples.
        config: Content of `index.json`: what the vectors depend on.

    Raises:
        IndexMismatchError: There are more or fewer examples than vectors.
    """

    def __init__(self, dataset: Dataset, faiss_index: faiss.Index, encoder: Encoder, config: dict[str, Any]) -> None:
        check_count(dataset, faiss_index)
        self._dataset = dataset
        self.faiss_index = faiss_index
        self.encoder = encoder
        self.config = config
        self._mapped_file: BinaryIO | None = None
        self._home: Path | None = None

    @property
    def metric_type(self) -> int:
        """The metric: `faiss.METRIC_L2` or `faiss.METRIC_INNER_PRODUCT`."""
        return int(self.faiss_index.metric_type)

    @property
    def dataset(self) -> Dataset:
        """The examples. Others may be assigned that have the same ids and inputs in the same order, as with a column more."""
        return self._dataset

    @dataset.setter
    def dataset(self, dataset: Dataset) -> None:
        check_replacement(dataset, self._dataset)
        self._dataset = dataset

    def __getstate__(self) -> dict[str, Any]:
        if self._mapped_file is None:
            return self.__dict__
        in_memory = read_into_memory(self._mapped_file, self.faiss_index, self.config)
        return self.__dict__ | {"faiss_index": in_memory, "_mapped_file": None}

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

        Vectors go to disk in shards and from there into the index: one shard is in memory and, of kinds other than Flat and
        SQ, the index. A killed build continues where it stopped when it is called again with the same arguments; `factory`
        and the other arguments of the index alone may change. Under `accelerate launch` the shards are spread over the
        processes of all nodes, which share a file system; the result is the same.

        Args:
            dataset: Examples of the schema ([`load_examples`]); `input` alone is encoded, as in the authors' code.
            encoder: Encoder of the inputs.
            output_dir: Folder to write.
            factory: FAISS factory string: "Flat", "SQ8", "IVF1024,Flat", "HNSW32", ..., and for many millions
                "IVF1024,PQ48np,Refine(SQfp16)", which finds hits among small codes and ranks them again by
                vectors on disk.
            metric_type: Metric, `faiss.METRIC_L2` or `faiss.METRIC_INNER_PRODUCT`.
            train_size: Number of vectors, drawn at random, that an index which needs training is trained on.
            nprobe: Lists that an IVF index visits in a search; a sixteenth of them by default.
            shard_size: Examples a shard; a kill costs at most one shard a process.
            vector_dtype: Type of the shards: `np.float32`, or `np.float16` for half the disk and about three digits.
            seed: Seed for drawing training vectors.

        Raises:
            ExampleError: `dataset` does not have the schema's columns, or ids in it repeat.
            IndexMismatchError: `output_dir` holds the shards of another build.
            ValueError: The factory string, or the amount of data it needs, is wrong.
        """
        folder = folder_to_write(output_dir)
        build_index_files(
            folder,
            dataset,
            encoder,
            factory=factory,
            metric_type=metric_type,
            train_size=train_size,
            nprobe=nprobe,
            shard_size=shard_size,
            vector_dtype=vector_dtype,
            seed=seed,
        )
        return cls.from_pretrained(folder, encoder=encoder)

    # ---- saving and loading ----------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the examples (parquet), the vectors (FAISS) and the configuration (JSON).

        The new files are opened before they replace those in the folder, also where those are this index itself.

        Raises:
            IndexMismatchError: The new files cannot be opened; the folder is left as it was.
            NotADirectoryError, ValueError: The path is that of a file, or lies inside the folder that this index was opened from.
        """
        folder = folder_to_write(save_directory)
        check_not_within(folder, "the index", self._home)
        write_index_files(folder, self._write_vectors, self.dataset, self.config)

    def _write_vectors(self, path: Path) -> None:
        if self._mapped_file is None:
            faiss.write_index(self.faiss_index, str(path))
        else:
            copy_mapped(self._mapped_file, self.faiss_index, self.config, path)

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
        """Publishes the index as a data set: the examples, the vectors and the configuration, in one commit.

        `datasets.load_dataset` and `load_faiss_index` open it, too.

        Args:
            repo_id: Name of the data set; without an organisation, it is published under the user's name.
            token: Access token for the Hub; by default the one that is stored.
            private: Whether a repository that is created is private.
            revision: Branch to commit to.
            create_pr: Whether to open a pull request in place of a commit.
            commit_message: Message of the commit.
            license: License for the card, such as apache-2.0.
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
            name_or_path: Folder, or name of a data set on the Hub.
            encoder: Encoder of the queries, which must be the one that encoded the examples.
            metric_type: Metric that the caller expects, if it matters to the caller.
            memory_map: Whether the vectors stay on disk, for the system to page in.
            verify: Whether to compare encoder and examples with those that were indexed; a caller who did may leave it out.
            revision: Branch, tag or commit of the data set.
            token: Access token for the Hub; by default the one that is stored.
            cache_dir: Cache of the Hub; by default that of `huggingface_hub`.
            local_files_only: Whether to take files of the cache alone, and ask no network.
            force_download: Whether to fetch files that are in the cache, too.

        Raises:
            FileNotFoundError: A file is missing.
            HubError: The data set could not be fetched.
            IndexMismatchError: The encoder, its pooling, the metric, the ids or the format are others, or a file is malformed.
        """
        access = HubAccess(token, cache_dir, local_files_only, force_download)
        folder = artifact_folder(name_or_path, "dataset", revision, access)
        check_is_index(folder)
        config = read_config(folder)
        check_metric(config, metric_type, folder)
        dataset = read_examples(folder)
        if verify:
            check_encoder(encoder, config, folder)
            check_examples(dataset, config, folder / EXAMPLES_FILE)
        path = folder / INDEX_FILE
        read = read_mapped(path, config) if memory_map else (read_index(path, config, memory_map=False), None)
        index = cls(dataset, read[0], encoder, config)
        index._mapped_file, index._home = read[1], folder
        return index

    # ---- searching -------------------------------------------------------------------------------------------------

    def search(self, vectors: np.ndarray, k: int, **search_kwargs: Any) -> Hits:
        """The `k` nearest examples of each vector.

        Args:
            vectors: Array `[n, d]` from the index's encoder.
            k: Number of examples; with more than there are, all of them and then -1 are given.
            search_kwargs: Arguments of the FAISS index's own `search`, e.g. `params=faiss.SearchParametersIVF(nprobe=32)`.

        Returns:
            [`Hits`] `[n, k]`. Distances are squared L2, or the inner product with its sign changed: they fall with relevance.

        Raises:
            IndexMismatchError: The vectors name examples that are not there, vectors were added, or the encoder reads otherwise, since.
            ValueError: The vectors are of another dimension, or not finite.
        """
        check_count(self._dataset, self.faiss_index)
        check_reading(self.encoder, self.config)
        return nearest(self.faiss_index, vectors, k, encoder=self.encoder, **search_kwargs)

    def with_faiss_index(self) -> Dataset:
        """The examples as a data set with the FAISS index attached, as `datasets` searches it; neither is copied.

        ```python
        scores, rows = index.with_faiss_index().get_nearest_examples("embeddings", vector, k=8)
        ```

        `datasets` refuses `select`, `filter`, `shuffle`, `sort` and `save_to_disk` there; `index.dataset` has them all.
        """
        dataset = copy.deepcopy(self.dataset)  # Arrow tables are shared by copies of a data set
        # With no array to add, this public call attaches a finished index as it is, memory-mapped or not.
        dataset.add_faiss_index_from_external_arrays(
            np.empty((0, self.faiss_index.d), dtype=np.float32), FAISS_INDEX_NAME, custom_index=self.faiss_index
        )
        return dataset
