"""An index in a Lance data set, as a pipeline's manifest names it: an address, a version, and a hash of what that holds."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

from ..hub.errors import ArtifactError
from ..hub.repository import Repository
from ..retrieval.lance.location import Location
from .settings import expect

_REPOSITORY = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?(?:/|$)")


@dataclass(frozen=True)
class LanceReference:
    """A version of a Lance data set, which stays where it is.

    Args:
        storage: Address of the data set; where it lies in the pipeline's folder, its path below that.
        version: Number of the version.
        content_sha256: Hash of what the version holds ([`LanceIndex.content_hash`]).

    Raises:
        ArtifactError: A value is not what it must be.
    """

    storage: str
    version: int
    content_sha256: str

    def __post_init__(self) -> None:
        expect(isinstance(self.storage, str) and bool(self.storage), "the address of a Lance data set", self.storage)
        is_number = isinstance(self.version, int) and not isinstance(self.version, bool) and self.version > 0
        expect(is_number, "the version of a Lance data set", self.version)
        is_hash = (
            isinstance(self.content_sha256, str) and re.fullmatch("[0-9a-f]{64}", self.content_sha256) is not None
        )
        expect(is_hash, "a SHA-256 checksum of a Lance data set", self.content_sha256)
        expect(
            ".." not in PurePosixPath(self.storage).parts, "a Lance data set with no `..` in its path", self.storage
        )

    @classmethod
    def of(cls, location: Location, version: int, content_sha256: str, folder: Path) -> Self:
        """A version of a data set, for the manifest in a folder: the path is relative where it lies in there."""
        storage, own = location.uri, folder.resolve()
        if location.folder is not None and location.folder.resolve().is_relative_to(own):
            storage = location.folder.resolve().relative_to(own).as_posix()
        return cls(storage, version, content_sha256)

    @property
    def is_within(self) -> bool:
        """Whether the data set lies in the folder of the manifest."""
        return "://" not in self.storage and not os.path.isabs(self.storage)

    @property
    def repository(self) -> Repository | None:
        """The repository of the data set; `None` where it is not on the Hub."""
        found = _REPOSITORY.match(self.storage)
        return None if found is None else Repository(found[1], "dataset", found[2])

    def location(self, home: Path | Repository, token: str | None = None) -> Location:
        """Where the data set is.

        Args:
            home: Folder of the manifest, or its repository.
            token: Access token for the Hub; by default the one that is stored.

        Raises:
            ArtifactError: The manifest is on the Hub, and the data set is not: anybody's pipeline shall not open any address from here.
        """
        if not isinstance(home, Path) and self.repository is None:
            raise ArtifactError(
                f"Expected a pipeline of the Hub to name an index on the Hub (hf://...), found {self.storage!r}. Do not use it, or download the "
                "pipeline into a folder first if you trust it."
            )
        return Location.of(Path(str(home)) / self.storage if self.is_within else self.storage, token=token)

    def to_json(self) -> dict[str, Any]:
        """The version as it stands in the manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Reads what [`LanceReference.to_json`] gave."""
        expect(set(content) == set(cls.__dataclass_fields__), "storage, version and checksum of an index", content)
        return cls(**content)
