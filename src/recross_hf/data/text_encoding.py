"""Files of text opened as UTF-8, and what stands in for a file of text or data told from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .schema import ExampleError


@contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """Opens a file of text as UTF-8, with or without the byte-order mark that Windows writes.

    Args:
        newline: as in `open`; by default a line ends at a newline, a carriage return, or both.

    Raises:
        ExampleError: the file is in another encoding.
    """
    with path.open("rb") as file:
        head = file.read(64)
    check_is_data(head, path)
    # Without a mark: every second byte of Latin text is 0.
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or (len(head) >= 4 and not (any(head[::2]) and any(head[1::2]))):
        raise ExampleError(
            f"Expected UTF-8 in {path}, found UTF-16 from line 1 on. Save the file as UTF-8, e.g. by "
            f"`iconv -f UTF-16 -t UTF-8`."
        )
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError as error:
        line, byte = _first_wrong_byte(path)
        raise ExampleError(
            f"Expected UTF-8 in {path}, found the byte 0x{byte:02x} in line {line}, as in Latin-1 or Windows-1252. Save the file as "
            "UTF-8, e.g. by `iconv -f WINDOWS-1252 -t UTF-8`."
        ) from error


def check_is_data(head: bytes, path: Path) -> None:
    """Refuses what stands in for a file: a pointer of Git LFS, whose lines would be taken for texts, and what is packed.

    Raises:
        ExampleError: The file is one of those.
    """
    if head.startswith(b"version https://git-lfs.github.com/"):
        raise ExampleError(
            f"Expected examples in {path}, found a pointer of Git LFS, which stands for a file that was not fetched. Fetch it with "
            "`git lfs pull`."
        )
    if head.startswith((b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"BZh")):
        raise ExampleError(f"Expected examples in {path}, found a compressed file. Unpack it first.")
    if head.startswith((b"%PDF-", b"{\\rtf", b"\xd0\xcf\x11\xe0", b"\x89PNG", b"\xff\xd8\xff")):
        raise ExampleError(
            f"Expected examples in {path}, found a document or a picture under that name. Save its text as a file of text first."
        )


def _first_wrong_byte(path: Path) -> tuple[int, int]:
    """The line, from 1, and the value of the first byte that is no UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return number + line[: error.start].count(b"\r"), line[error.start]
    raise ExampleError(f"Expected a file that stays as it is while it is read, found {path} changed. Read it again.")
