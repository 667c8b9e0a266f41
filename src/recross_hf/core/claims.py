"""Work that processes share without talking: a piece is claimed by a lock, which the system releases when its holder dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

Piece = TypeVar("Piece", bound=Hashable)

_SECONDS_BETWEEN_LOOKS = 1.0


@contextmanager
def claimed(lock: Path, is_finished: Callable[[], bool]) -> Iterator[bool]:
    """Holds a piece of work; the value is false where another process holds it or has finished it.

    Args:
        lock: File of the lock. Processes on several machines may share its folder if that file system has locks.
        is_finished: Function that says whether the piece is finished.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            yield not is_finished()
    except Timeout:
        yield False


def shared_out(
    pieces: Iterable[Piece], is_finished: Callable[[Piece], bool], lock_of: Callable[[Piece], Path]
) -> Iterator[tuple[Piece, bool]]:
    """Goes through pieces of work until each of them was finished, here or by another process.

    ```python
    for number, is_mine in shared_out(range(4), is_finished, lock_of):
        if is_mine:
            finish(number)  # which no other process does meanwhile
    ```

    A piece that another process gives up, or dies with, is taken over. One that the caller does not finish is not offered again.

    Args:
        pieces: Names of the pieces.
        is_finished: Function that says whether a piece is finished.
        lock_of: Function that gives the file of a piece's lock.

    Yields:
        Each piece once, and whether it is to be done here; it is held until the next one is asked for.
    """
    pending = list(pieces)
    while pending:
        held = []
        for piece in pending:
            with claimed(lock_of(piece), lambda piece=piece: is_finished(piece)) as is_mine:  # type: ignore[misc]
                if is_mine or is_finished(piece):
                    yield piece, is_mine
                else:
                    held.append(piece)
        if len(held) == len(pending):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        pending = held
