"""File systems by address: a path of this machine, `hf://`, `s3://`, `gs://` and what else pyarrow opens."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from pyarrow import fs

HUB = "hf"


def filesystem_of(address: str) -> tuple[fs.FileSystem, str]:
    """The file system of an address, and the path in it; credentials come from the environment, as usual.

    Raises:
        ValueError: No file system has such addresses.
    """
    scheme, separator, path = address.partition("://")
    if not separator:
        return fs.LocalFileSystem(), str(Path(os.path.expanduser(address)).resolve())
    if scheme == HUB:
        from huggingface_hub import HfFileSystem

        return fs.PyFileSystem(fs.FSSpecHandler(HfFileSystem())), path
    try:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(address)
    except ValueError as error:
        raise ValueError(
            f"Expected a path, or an address that begins with hf://, s3:// or gs://, found {address!r}: {error}."
        ) from error
    return found


def write_json_at(filesystem: fs.FileSystem, path: str, content: Any) -> None:
    """Writes JSON, whole or not at all."""
    filesystem.create_dir(path.rpartition("/")[0], recursive=True)
    partial = f"{path}.{uuid.uuid4().hex}.partial"
    try:
        with filesystem.open_output_stream(partial) as stream:
            stream.write(json.dumps(content).encode())
        filesystem.move(partial, path)
    except OSError:
        if filesystem.get_file_info(partial).type != fs.FileType.NotFound:
            filesystem.delete_file(partial)
        raise


def read_json_at(filesystem: fs.FileSystem, path: str) -> Any:
    """Reads JSON.

    Raises:
        ValueError: The file is no JSON; the message names it.
    """
    with filesystem.open_input_stream(path) as stream:
        content = stream.read()
    try:
        return json.loads(content)
    except ValueError as error:
        raise ValueError(f"Expected JSON in {path}, found: {error}. Delete the file.") from error


def names_in(filesystem: fs.FileSystem, folder: str) -> list[str]:
    """The names of the files in a folder, sorted; none where there is no such folder."""
    found = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    return sorted(info.base_name for info in found if info.type == fs.FileType.File)
