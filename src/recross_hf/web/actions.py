"""`Actions`: what a visitor can do on the page, without the page itself."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo

from ..adaptation.report import REPORT_FILE
from ..data.schema import ExampleError
from .adapted_visit import ADAPTER_FOLDER, AdaptedVisit, compared
from .inputs import Given, given_as_file, given_as_text, given_by_starter
from .retrieved import Found
from .served import ServedPipeline
from .training import Progress, Training
from .visits import Visits

POLL_SECONDS = 0.25


class Actions:
    """What visitors do, each in a session of their own.

    Args:
        served: The pipeline.
        visits: The visitors.
    """

    def __init__(self, served: ServedPipeline, visits: Visits) -> None:
        self.served = served
        self.visits = visits

    def drop(self, session: str, path: str | Path) -> Given:
        """Reads a file of inputs, and removes it.

        Args:
            session: Session of the visitor.
            path: The file.

        Raises:
            ExampleError: The file holds no inputs, or more than the limits allow.
        """
        visit = self.visits.of(session)
        visit.dropped = None
        try:
            visit.dropped = given_as_file(path, self.served.limits)
        finally:
            Path(path).unlink(missing_ok=True)
        return visit.dropped

    def undrop(self, session: str) -> None:
        """Forgets the file of inputs."""
        self.visits.of(session).dropped = None

    def retrieve(self, session: str, text: str, labels: str, starter_task: str | None) -> tuple[Given, Found]:
        """Retrieves for the inputs of the file, or for those that were pasted, or that are those of a task of the starter.

        Args:
            session: Session of the visitor.
            text: Inputs, one a line.
            labels: Their right answers, one a line; may be empty.
            starter_task: Task of the starter that was chosen; it counts while the inputs are its own.

        Raises:
            ExampleError: There are no inputs, or more than the limits allow.
        """
        visit, limits = self.visits.of(session), self.served.limits
        given = visit.dropped or given_as_text(text, labels, limits)
        if starter_task and not labels.strip() and visit.dropped is None:
            starter = given_by_starter(starter_task, limits)
            given = starter if starter.texts == given.texts else given
        found = self.served.retrieve(given)
        visit.given, visit.found, visit.adapted = given, found, None
        return given, found

    def exclude(self, session: str, excluded: Sequence[str]) -> tuple[Given, Found]:
        """Retrieves once more without some tasks.

        Raises:
            ExampleError: Nothing was retrieved yet.
            ValueError: Nothing is left.
        """
        visit = self.visits.of(session)
        if visit.given is None:
            raise _nothing_yet()
        found = self.served.retrieve(visit.given, excluded)
        visit.found, visit.adapted = found, None
        return visit.given, found

    def queue(self, session: str) -> None:
        """Notes that the visitor wants an adaptation, which an earlier cancellation does not concern."""
        # A new one: the old one may still have to stop a training.
        self.visits.of(session).is_cancelled = threading.Event()

    def adapt(self, session: str, **settings: Any) -> Iterator[Progress | AdaptedVisit]:
        """Adapts, and tells how far it is; the last one that is told is the result, unless it was cancelled.

        Args:
            session: Session of the visitor.
            settings: Fields of [`AdaptationArguments`][recross_hf.AdaptationArguments] that the visitor chose.

        Raises:
            ExampleError: Nothing was retrieved yet.
        """
        visit = self.visits.of(session)
        if visit.found is None:
            raise _nothing_yet()
        num_retrieved = settings.get("num_retrieved")
        if visit.given is not None and num_retrieved not in (None, len(visit.found.retrieved)):
            visit.found = self.served.retrieve(visit.given, visit.found.excluded, num_retrieved)
        visit.adapted = None
        training = Training(self.served, visit, **settings)
        training.start()
        try:
            while not training.wait(POLL_SECONDS):
                yield training.progress
        finally:
            # Also where the visitor left: nobody else is served before it is over.
            if not training.wait(0):
                training.is_cancelled.set()
                training.wait()
        if training.error is not None:
            raise training.error
        if training.result is not None:
            visit.adapted = training.result
            yield training.result

    def cancel(self, session: str) -> None:
        """Stops the visitor's adaptation, or takes it out of the queue."""
        self.visits.of(session).is_cancelled.set()

    def answer(self, session: str, text: str) -> dict[str, Any]:
        """Answers one more input before and after.

        Raises:
            ExampleError: There is no input, it is too long, or nothing was adapted yet.
        """
        adapted = self._adapted(session)
        if not text.strip():
            raise ExampleError("Expected an input, found none. Write one.")
        if len(text) > (most := self.served.limits.characters):
            raise ExampleError(f"Expected an input of at most {most:,} characters, found {len(text):,}. Shorten it.")
        (before,), (after,) = (
            self.served.answers(one, [text.strip()]) for one in (self.served.base, adapted.pipeline)
        )
        return compared(text.strip(), before, after)

    def take_away(self, session: str) -> tuple[Path | None, Path]:
        """The adapter as a zip file, which there is none of where the gate put the base's weights back, and the report.

        Raises:
            ExampleError: Nothing was adapted yet.
        """
        adapted, visit = self._adapted(session), self.visits.of(session)
        # Downloads are served by their names: these nobody guesses.
        code = secrets.token_urlsafe(12)
        with visit.in_use():
            report = adapted.write_report(visit.folder / f"{Path(REPORT_FILE).stem}-{code}.html")
            zipped = adapted.zipped(visit.folder, f"{ADAPTER_FOLDER}-{code}") if adapted.is_kept else None
        visit.downloads += [path.name for path in (report, zipped) if path is not None]
        return zipped, report

    def push(self, session: str, repo_id: str, token: str, *, private: bool) -> CommitInfo:
        """Publishes the adapted pipeline with the visitor's token.

        Raises:
            ExampleError: A name or a token is missing, or nothing was adapted yet.
            HubError: The Hub does not take it.
        """
        adapted = self._adapted(session)
        return adapted.push(repo_id, token, private=private, planning=self.served.alone())

    def _adapted(self, session: str) -> AdaptedVisit:
        adapted = self.visits.of(session).adapted
        if adapted is None:
            raise ExampleError("Expected an adapted model, found none. Adapt first.")
        return adapted


def _nothing_yet() -> ExampleError:
    return ExampleError("Expected inputs and what was retrieved for them, found none. Retrieve first.")
