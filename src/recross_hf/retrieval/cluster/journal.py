"""The journal of a build: which chunks are written, so that a build that was killed goes on with those that are not."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from pyarrow import fs

from ...core.run_settings import names_alone, refuse_other_settings
from ..vector_shards import IndexMismatchError, same_vectors
from .filesystems import filesystem_of, names_in, read_json_at, write_json_at

JOURNAL_FOLDER = "_recross_hf"
"""Folder of the journal, in that of the index that is being built."""
_BUILD_FILE = "build.json"
_OWNER_FILE = "owner.json"
_CHUNKS_FOLDER = "chunks"


class Journal:
    """Small files beside an index that is being built: what it is built of, and the fragment of each chunk that is written.

    Args:
        storage: Address of the index.
        num_chunks: Number of chunks.
    """

    def __init__(self, storage: str, num_chunks: int) -> None:
        self.storage, self.num_chunks = storage, num_chunks
        self._filesystem, path = filesystem_of(storage)
        self.folder = f"{path.rstrip('/')}/{JOURNAL_FOLDER}"
        self._owner = uuid.uuid4().hex

    def open(self, build: Mapping[str, Any], probes: np.ndarray) -> dict[int, str]:
        """Starts a build, or takes over one of the same data, encoder and settings.

        Args:
            build: All that the vectors depend on, as JSON values.
            probes: The vectors that the encoder gives a few texts.

        Returns:
            Fragments (JSON) of the chunks that are written, by the number of the chunk.

        Raises:
            IndexMismatchError: The storage holds an unfinished build of something else.
        """
        path = f"{self.folder}/{_BUILD_FILE}"
        if self._is_file(path):
            written = read_json_at(self._filesystem, path)
            refuse_other_settings(
                written["build"],
                build,
                names=build,
                expected="chunks of this build",
                found=lambda changed: (
                    f"that {self.storage} holds those of an unfinished build with other data or settings "
                    f"({names_alone(changed)})"
                ),
                remedy=self._remedy,
                error=IndexMismatchError,
            )
            # The vectors of an encoder that has no identity tell what it is.
            if not same_vectors(np.asarray(written["probes"], dtype=np.float32), probes):
                raise IndexMismatchError(
                    f"Expected chunks of this encoder, found that {self.storage} holds those of an unfinished build with another encoder. "
                    f"{self._remedy}"
                )
        else:
            if self._filesystem.get_file_info(self.folder).type == fs.FileType.Directory:
                self._filesystem.delete_dir(self.folder)  # what a finished build left of itself when it was killed
            write_json_at(self._filesystem, path, {"build": dict(build), "probes": probes.tolist()})
        write_json_at(self._filesystem, f"{self.folder}/{_OWNER_FILE}", {"owner": self._owner})
        return self._chunks()

    def write(self, number: int, fragment: str) -> None:
        """Notes that a chunk is written.

        Raises:
            IndexMismatchError: Another process builds this index now.
        """
        self.check_owner()
        write_json_at(self._filesystem, f"{self.folder}/{_CHUNKS_FOLDER}/{number:08d}.json", {"fragment": fragment})

    def check_owner(self) -> None:
        """Makes sure that no other process has taken this build over.

        Raises:
            IndexMismatchError: Another one has; it may have finished the index meanwhile.
        """
        path = f"{self.folder}/{_OWNER_FILE}"
        if not self._is_file(path) or read_json_at(self._filesystem, path)["owner"] != self._owner:
            raise IndexMismatchError(
                f"Expected this process alone to build the index in {self.storage}, found that another one has taken over since, with the "
                "chunks that this one wrote. Wait for that one, or stop it and start this one again."
            )

    def close(self) -> None:
        """Deletes the journal: the index is finished."""
        self.check_owner()
        # First what tells that there is a build: half deleted, it is none.
        self._filesystem.delete_file(f"{self.folder}/{_BUILD_FILE}")
        self._filesystem.delete_dir(self.folder)

    @property
    def _remedy(self) -> str:
        return f"Finish that build, choose another storage, or delete {JOURNAL_FOLDER} in this one."

    def _chunks(self) -> dict[int, str]:
        folder = f"{self.folder}/{_CHUNKS_FOLDER}"
        numbers = [
            int(name.removesuffix(".json")) for name in names_in(self._filesystem, folder) if name.endswith(".json")
        ]
        return {
            number: read_json_at(self._filesystem, f"{folder}/{number:08d}.json")["fragment"]
            for number in numbers
            if number < self.num_chunks
        }

    def _is_file(self, path: str) -> bool:
        return bool(self._filesystem.get_file_info(path).type == fs.FileType.File)
