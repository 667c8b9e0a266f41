"""Folders that a run may write to: none of its inputs, and none with what something else wrote."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

WRITTEN_BY = {
    "recross.json": "a pipeline",
    "index.json": "an index",
    "retrieved.parquet": "an adapted model",
    "mixture.json": "upstream data",
    "supervision.json": "mined supervision",
    "cells.json": "a benchmark",
    "adaptations.json": "adaptations to many tasks",
}
"""Which file tells what a folder holds."""
ADAPTATIONS = "adaptations.json"
_MANIFEST, _RETRIEVED = "recross.json", "retrieved.parquet"
OF_MODELS = ("config.json", "adapter_config.json", "model.safetensors", "adapter_model.safetensors")


def folder_to_write(path: str | Path) -> Path:
    """The folder that a path names, `~` being the user's own; it need not be there.

    Raises:
        NotADirectoryError: The path leads to a file, or through one.
        ValueError: The path is empty.
    """
    if not str(path).strip() or (isinstance(path, str) and "\0" in path):
        raise ValueError(f"Expected the name of a folder to write, found {path!r}. Name one.")
    folder = Path(os.path.expanduser(path))
    file = next((place for place in (folder, *folder.parents) if place.exists() and not place.is_dir()), None)
    if file is not None:
        raise NotADirectoryError(
            f"Expected a folder to write to at {folder}, found the file {file}. Choose another name, or move the file away."
        )
    return folder


def check_not_within(output_dir: str | Path, what: str, folder: str | Path | None) -> None:
    """Refuses to write into a folder of what is read; onto the folder itself may be written.

    Raises:
        ValueError: `output_dir` lies inside it.
    """
    if folder is None:
        return
    output, own = Path(output_dir).resolve(), Path(folder).resolve()
    if output != own and output.is_relative_to(own):
        raise ValueError(
            f"Expected a folder apart from {what}, {own}, found {output}, which lies inside it and would go with it. Choose another one, "
            "or save onto the folder itself."
        )


def check_apart(output_dir: str | Path, inputs: Mapping[str, str | Path | None]) -> None:
    """Refuses to write into what a run reads.

    Args:
        output_dir: the folder to write.
        inputs: folders by what they are; a name of the Hub, or of no folder, is passed over.

    Raises:
        ValueError: `output_dir` is one of them, lies inside one or holds one.
    """
    output = Path(output_dir).resolve()
    for what, place in inputs.items():
        if not place or not Path(place).is_dir():
            continue
        folder = Path(place).resolve()
        if output == folder:
            relation = f"{folder} itself"
        elif output.is_relative_to(folder):
            relation = f"{output}, which lies inside it"
        elif folder.is_relative_to(output):
            relation = f"{output}, which holds it"
        else:
            continue
        raise ValueError(
            f"Expected an `output_dir` apart from {what}, the folder {folder}, found {relation}: what is read would be "
            "overwritten or mixed with what is written. Choose another `output_dir`."
        )


def check_apart_from_files(output_dir: str | Path, files: Iterable[str | Path]) -> None:
    """Refuses to write into a folder that holds a file that is read, at any depth.

    Raises:
        ValueError: `output_dir` holds one of them.
    """
    output = Path(output_dir).resolve()
    for file in files:
        if output in (place := Path(file).resolve()).parents:
            raise ValueError(
                f"Expected an `output_dir` apart from the files that are read, found {output}, which holds {place.relative_to(output)}. "
                "Choose another `output_dir`."
            )


def check_not_of_others(output_dir: str | Path, own: str | None, *, overwritten: Iterable[str] = ()) -> None:
    """Refuses a folder that holds what something else wrote; one with what an earlier such run wrote is taken.

    Args:
        output_dir: the folder to write.
        own: the file of `WRITTEN_BY` that tells of an earlier such run, there or in a checkpoint below.
        overwritten: files that would be overwritten, and that are an earlier run's where `own` is.

    Raises:
        FileExistsError: there is such a file.
    """
    folder = Path(output_dir)
    expected = "an empty folder" if own is None else f"an empty folder or {WRITTEN_BY[own]}"
    # An adaptation writes its model where its manifest is; a saved pipeline keeps all models in folders of their own.
    beside = own == _RETRIEVED and (folder / own).is_file() and any((folder / name).is_file() for name in OF_MODELS)
    for name, what in WRITTEN_BY.items():
        if name != own and (folder / name).is_file() and not (beside and name == _MANIFEST):
            raise _others(folder, expected, f"{what} ({name})")
    if own is None or (folder / own).is_file() or any(folder.glob(f"checkpoint-*/{own}")):
        return
    if found := [name for name in overwritten if (folder / name).is_file()]:
        raise _others(folder, expected, f"{', '.join(found)} of something else")


def _others(folder: Path, expected: str, found: str) -> FileExistsError:
    return FileExistsError(
        f"Expected `output_dir` to be {expected}, found {found} in {folder.resolve()}. It would be overwritten or mixed with what "
        "is written. Choose another `output_dir`, or empty this one first."
    )
