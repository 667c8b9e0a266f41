"""The cells of an evaluation as files: many processes share the work, and a finished cell is never computed again."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from ..core.claims import claimed
from ..core.files import read_json, write_json
from ..core.run_settings import ChangedSetting, refuse_other_settings
from ..core.tables import shortened
from .results import SHARED

_LONGEST_VALUE = 40


class CellKey(NamedTuple):
    """One method on one task with one query set, which is `SHARED` where the cell is one for all query sets."""

    method: str
    task: str
    query_set: int = SHARED


class CellMismatchError(ValueError):
    """A finished cell was made with other settings; the message says which."""


class CellFiles:
    """A folder with a file for each finished or failed cell: `cells/TASK/METHOD-QUERY_SET.json`, `....failed.json`.

    A process claims a cell by a lock, which the system releases when the process dies. Processes on several machines may share a
    folder if its file system has locks.

    Args:
        folder: Folder of the evaluation.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, key: CellKey) -> Path:
        """The path of a cell's file, which exists once the cell is finished."""
        number = "shared" if key.query_set == SHARED else str(key.query_set)
        return self.folder / "cells" / _file_name(key.task) / f"{_file_name(key.method)}-{number}.json"

    def read(self, key: CellKey) -> dict[str, Any] | None:
        """The content of a finished cell; None where the cell is not finished."""
        path = self.path(key)
        return read_json(path) if path.is_file() else None

    def is_finished(self, key: CellKey) -> bool:
        """Whether some process has finished the cell."""
        return self.path(key).is_file()

    def claimed(self, key: CellKey) -> AbstractContextManager[bool]:
        """Holds a cell; the value is false where another process holds it or has finished it."""
        path = self.path(key)
        lock = self.folder / "locks" / path.relative_to(self.folder).with_suffix(".lock")
        return claimed(lock, path.is_file)

    def write(self, key: CellKey, content: Mapping[str, Any]) -> None:
        """Writes the content of a finished cell."""
        write_json(self.path(key), content)
        self._failure_path(key).unlink(missing_ok=True)

    def write_failure(self, key: CellKey, error: Exception) -> None:
        """Writes the error that a cell failed with."""
        last = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        write_json(self._failure_path(key), {"error": last, "traceback": "".join(traceback.format_exception(error))})

    def failure(self, key: CellKey) -> str | None:
        """The last line of the error that a cell failed with; None where it did not fail."""
        path = self._failure_path(key)
        return read_json(path)["error"] if path.is_file() else None

    def failed_since(self, key: CellKey, time: float) -> bool:
        """Whether a cell failed after this time (seconds since the epoch)."""
        path = self._failure_path(key)
        return path.is_file() and path.stat().st_mtime >= time

    def check(self, key: CellKey, settings: Mapping[str, Any]) -> None:
        """Refuses a finished cell of other settings.

        Raises:
            CellMismatchError: The cell is finished and has other settings.
        """
        cell = self.read(key)
        if cell is None:
            return
        refuse_other_settings(
            cell["settings"],
            settings,
            expected=f"cells of these settings in {self.folder}",
            found=lambda changed: f"{self.path(key).relative_to(self.folder)} with others: {_there_and_here(changed)}",
            remedy="Choose another `output_dir`, or delete the cell.",
            error=CellMismatchError,
        )

    def _failure_path(self, key: CellKey) -> Path:
        return self.path(key).with_suffix(".failed.json")


def _file_name(name: str) -> str:
    """The name, if every file system takes it; else its safe characters and a hash."""
    safe = re.sub(r"[^A-Za-z0-9._=-]+", "_", name)[:80]
    if safe == name and not name.startswith("."):
        return name
    return f"{safe.lstrip('.')}-{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _there_and_here(changed: Iterable[ChangedSetting]) -> str:
    return "; ".join(
        f"{name}: {shortened(before, _LONGEST_VALUE)} there, {shortened(now, _LONGEST_VALUE)} here"
        for name, before, now in changed
    )
