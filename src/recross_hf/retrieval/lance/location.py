"""Where a Lance data set is: a folder, an object store or the Hub, and what Lance is told to open it with."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

_SCHEMES = ("s3", "gs", "az", "hf")
_HUB = re.compile(r"hf://datasets/[\w.-]+/[\w.-]+(@[\w./-]+)?(/.+)?")
_EXPECTED = "Expected a folder, lance://FOLDER, s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH or hf://datasets/OWNER/NAME/PATH"


class Location(NamedTuple):
    """The address of a Lance data set.

    Attributes:
        uri: What Lance opens: the absolute path of a folder, or the address in a store.
        options: Storage options of Lance beside what it finds in the environment (`AWS_ACCESS_KEY_ID`, `HF_TOKEN`, ...).
    """

    uri: str
    options: dict[str, str] | None = None

    @property
    def folder(self) -> Path | None:
        """The folder on this machine; `None` in a store."""
        return None if "://" in self.uri else Path(self.uri)

    @classmethod
    def of(cls, storage: str | Path | Location, *, token: str | None = None) -> Location:
        """Reads what a user names.

        Args:
            storage: A folder, `lance://FOLDER`, or an address that begins with `s3://`, `gs://`, `az://` or `hf://`.
            token: Access token for the Hub; by default the one of the environment or of `hf auth login`.

        Raises:
            NotADirectoryError: The path leads to a file.
            ValueError: It is none of these.
        """
        if isinstance(storage, Location):
            return storage
        text = os.fspath(storage).strip()
        scheme, separator, rest = text.partition("://")
        if separator and scheme in _SCHEMES and rest.strip("/"):
            if scheme == "hf" and not _HUB.fullmatch(text):
                raise ValueError(f"{_EXPECTED}, found {text!r}. Name the data set on the Hub in full.")
            return cls(text.rstrip("/"), {"hf_token": token} if scheme == "hf" and token else None)
        if separator and scheme != "lance":
            raise ValueError(f"{_EXPECTED}, found {text!r}. Name one of these.")
        path = rest if separator else text
        if not path or "\0" in path:
            raise ValueError(f"{_EXPECTED}, found {text!r}. Name one of these.")
        folder = Path(os.path.expanduser(path)).absolute()
        file = next((place for place in (folder, *folder.parents) if place.exists()), folder)
        if file.exists() and not file.is_dir():
            raise NotADirectoryError(
                f"Expected a folder of a Lance data set at {folder}, found the file {file}. Choose another name, or move the file away."
            )
        return cls(str(folder))


def load_lance() -> ModuleType:
    """Imports Lance.

    Raises:
        ImportError: The extra is not installed.
    """
    try:
        importlib.import_module("lance.fragment")
        return importlib.import_module("lance")
    except ImportError as error:
        raise ImportError("A Lance data set needs pylance: pip install 'recross_hf[cluster]'.") from error
