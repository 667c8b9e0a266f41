"""`Visit` and `Visits`: what belongs to one visitor, and goes when the page is left."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .limits import Limits

if TYPE_CHECKING:
    from .adapted_visit import AdaptedVisit
    from .inputs import Given
    from .retrieved import Found


@dataclass
class Visit:
    """What belongs to one visitor.

    Args:
        given: The inputs.
        dropped: Inputs of a file that was dropped, which come before those that are pasted.
        found: What was retrieved for them.
        adapted: What came of the adaptation.
        is_cancelled: Set by the visitor who does not want to wait for the training that was asked for last.
        downloads: Names of the files that can be downloaded.
    """

    given: Given | None = None
    dropped: Given | None = None
    found: Found | None = None
    adapted: AdaptedVisit | None = None
    is_cancelled: threading.Event = field(default_factory=threading.Event)
    downloads: list[str] = field(default_factory=list)
    last_seen: float = field(default_factory=time.monotonic)
    _is_over: bool = False
    _num_users: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def folder(self) -> Path:
        """Folder of the visitor's files, made when it is first needed."""
        return Path(tempfile.mkdtemp(prefix="recross-web-"))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within it the folder stays, also where the visitor leaves meanwhile."""
        with self._lock:
            self._num_users += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_users -= 1
                is_over = self._is_over
            if is_over:
                self.end()

    def end(self) -> None:
        """Stops a training, forgets what was found and removes the files, as soon as nothing writes to them any more."""
        self.is_cancelled.set()
        self.given = self.dropped = self.found = self.adapted = None
        with self._lock:
            self._is_over = True
            if self._num_users:
                return
        if "folder" in vars(self):
            shutil.rmtree(self.folder, ignore_errors=True)


class Visits:
    """The visitors of a page, by the session that the browser opened.

    Args:
        limits: How many are remembered, and for how long.
        served_from: Folder to which the page copies what is downloaded; the copies go with the visit.
        now: Clock, in seconds.
    """

    def __init__(
        self, limits: Limits, served_from: Path | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self.served_from = served_from
        self._now = now
        self._visits: dict[str, Visit] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._visits)

    def of(self, session: str) -> Visit:
        """The visit of a session, which begins where there was none."""
        with self._lock:
            visit = self._visits.pop(session, None) or Visit()
            visit.last_seen = self._now()
            self._visits[session] = visit  # the last one is the one who did something last
            oldest = list(self._visits.items())[:-1]
        surplus = len(oldest) + 1 - self.limits.visits
        for number, (other, one) in enumerate(oldest):
            if number < surplus or self._now() - one.last_seen > self.limits.idle_seconds:
                self.end(other)
        return visit

    def end(self, session: str) -> None:
        """Forgets a visitor; one who is not known is passed over."""
        with self._lock:
            visit = self._visits.pop(session, None)
        if visit is None:
            return
        visit.end()
        if self.served_from is None:
            return
        for name in visit.downloads:
            for copied in self.served_from.glob(f"*/{name}"):
                shutil.rmtree(copied.parent, ignore_errors=True)
        for path in self.served_from.iterdir():
            if path.is_file() and not path.stat().st_size:  # of each upload, gradio leaves an empty one
                path.unlink(missing_ok=True)

    def end_all(self) -> None:
        """Forgets everybody."""
        for session in list(self._visits):
            self.end(session)
