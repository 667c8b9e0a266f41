"""Some files of a folder without those beside them: libraries read the folder of a model as a whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .safety import SAFE_SUFFIXES


@contextmanager
def alone(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """A folder in which some files of another stand alone: of a repository that is not ours, the cache may hold others beside them."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            target = Path(scratch) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.symlink_to((folder / name).resolve())
            except OSError:  # a system without links for everybody
                shutil.copyfile(folder / name, target)
        yield Path(scratch)


def safe_files(folder: Path) -> list[str]:
    """Names of the files in safe formats below a folder, cards not among them."""
    paths = (
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in SAFE_SUFFIXES - {".md"}
    )
    return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
