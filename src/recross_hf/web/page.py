"""What happens on the page, on a click."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..data.schema import ExampleError
from ..data.starter import load_starter_task
from ..hub.errors import HubError
from .actions import Actions
from .adapted_visit import AdaptedVisit
from .inputs import Given
from .layout import TITLE, Layout
from .retrieved import Found
from .training import Progress, Training
from .views import picture_of, shown

logger = logging.getLogger(__name__)

MISTAKES = (ExampleError, HubError, ValueError)
"""Errors whose message tells a visitor what to do."""


class Page:
    """The page: its parts, and what a click on one of them does for the visitor whose session comes first.

    Args:
        gr: Gradio.
        actions: What visitors can do.

    Attributes:
        blocks: The page as gradio serves it.
    """

    def __init__(self, gr: Any, actions: Actions) -> None:
        self.gr, self.actions = gr, actions
        limits = actions.served.limits
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, limits.idle_seconds)) as self.blocks:
            self.parts = Layout(gr, actions.served)
            self._wire()
        self.blocks.queue(max_size=limits.waiting, default_concurrency_limit=2, api_open=False)

    def _wire(self) -> None:
        parts = self.parts
        found = [parts.found_part, parts.adapted_part, parts.tasks, parts.excluded, parts.neighbours, parts.picture]
        self._on(
            parts.starter.input, self.choose, parts.starter, [parts.text, parts.labels, parts.file, parts.message]
        )
        self._on(parts.file.upload, self.drop, parts.file, parts.message)
        self._on(parts.file.clear, self.undrop, None, parts.message)
        given = [parts.text, parts.labels, parts.starter]
        self._on(parts.retrieve.click, self.retrieve, given, [parts.message, *found], scroll_to_output=True)
        self._on(parts.excluded.input, self.exclude, parts.excluded, [parts.message, *found], show_progress="hidden")

        running = [parts.progress, parts.adapt, parts.cancel]
        adapted = [parts.adapted_part, parts.verdict, parts.pairs, parts.code, parts.zip, parts.report]
        hidden: dict[str, Any] = {"show_progress": "hidden"}
        begun = self._on(parts.adapt.click, self.queue, None, [*running, parts.adapted_part], queue=False, **hidden)
        settings = [parts.num_retrieved, parts.steps, parts.gate]
        self._on(begun.then, self.adapt, settings, [*running, *adapted], concurrency_limit=1, **hidden)
        self._on(parts.cancel.click, self.cancel, None, running[1:], queue=False, **hidden)

        self._on(parts.ask.click, self.answer, parts.new_input, parts.new_answer)
        self._on(parts.push.click, self.push, [parts.repo_id, parts.token, parts.private], [parts.pushed, parts.token])
        self.blocks.unload(in_session(self.gr, self.leave))

    def _on(self, event: Any, act: Callable[..., Any], inputs: Any, outputs: Any, **settings: Any) -> Any:
        return event(in_session(self.gr, act), inputs, outputs, api_visibility="private", **settings)

    # ---- the inputs, and what is near ----------------------------------------------------------------------------------

    def choose(self, session: str, task: str | None) -> tuple[str, str, None, str]:
        """Shows the inputs of a task of the starter."""
        self.actions.undrop(session)
        return "\n".join(load_starter_task(task)[0]["input"][:]) if task else "", "", None, ""

    def drop(self, session: str, path: str) -> str:
        """Reads a file."""
        return told(lambda: shown("note", _read(Path(path).name, self.actions.drop(session, path))))

    def undrop(self, session: str) -> str:
        """Forgets the file."""
        self.actions.undrop(session)
        return ""

    def retrieve(self, session: str, text: str, labels: str, task: str | None) -> tuple[Any, ...]:
        """Shows what is near to the inputs."""
        return self._found(lambda: self.actions.retrieve(session, text or "", labels or "", task))

    def exclude(self, session: str, tasks: list[str]) -> tuple[Any, ...]:
        """Shows what is near without some tasks."""
        return self._found(lambda: self.actions.exclude(session, tasks))

    def leave(self, session: str) -> None:
        """Forgets a visitor who closed the page, or loaded it anew."""
        self.actions.visits.end(session)

    def _found(self, find: Callable[[], tuple[Given, Found]]) -> tuple[Any, ...]:
        gr = self.gr
        try:
            given, found = find()
        except MISTAKES as error:
            return (shown("message", str(error)), *[gr.skip()] * 6)
        frame, colours = picture_of(self.actions.served.index_map, found, given.texts)
        return (
            "",
            gr.update(visible=True),
            gr.update(visible=False),
            shown("tasks", found, len(given.texts)),
            gr.update(choices=sorted([*found.excluded, *found.shares]), value=list(found.excluded)),
            shown("neighbours", given.texts, found),
            gr.ScatterPlot(frame, color_map=colours, colors_in_legend=list(colours)),
        )

    # ---- the adaptation ------------------------------------------------------------------------------------------------

    def queue(self, session: str) -> tuple[Any, ...]:
        """Shows that the adaptation will begin."""
        self.actions.queue(session)
        waiting = shown("progress", Progress(Training.WAITING, 0, 0))
        return waiting, self.gr.update(interactive=False), self.gr.update(visible=True), self.gr.update(visible=False)

    def adapt(self, session: str, number: int, steps: int, gate: str) -> Iterator[tuple[Any, ...]]:
        """Shows how far the adaptation is, and then what came of it."""
        skip = self.gr.skip()
        last, shows = shown("note", "The adaptation was cancelled, and nothing of it was kept."), [skip] * 6
        settings = {"num_retrieved": int(number), "max_steps": int(steps), "gate": gate}
        try:
            for now in self.actions.adapt(session, **settings):
                if isinstance(now, AdaptedVisit):
                    seconds = sum(now.results["seconds"].values())
                    last, shows = shown("note", f"Adapted in {seconds:.1f} seconds."), self._adapted(session, now)
                else:
                    yield shown("progress", now), *[skip] * 8
        except MISTAKES as error:
            last = shown("message", str(error))
        except Exception:
            # Else the page would wait for ever: gradio calls nothing after a handler that failed.
            logger.exception("An adaptation failed.")
            last = shown("message", "Something went wrong on the server, and nothing was kept. Try once more.")
        yield last, self.gr.update(interactive=True), self.gr.update(visible=False), *shows

    def cancel(self, session: str) -> tuple[Any, Any]:
        """Stops the adaptation; the visitor may ask for another one, also where the queue was too long for this one."""
        self.actions.cancel(session)
        return self.gr.update(interactive=True), self.gr.update(visible=False)

    def _adapted(self, session: str, adapted: AdaptedVisit) -> list[Any]:
        gr = self.gr
        zipped, report = self.actions.take_away(session)
        return [
            gr.update(visible=True),
            shown("verdict", adapted),
            shown("pairs", adapted.pairs),
            shown("code", adapted.code) if adapted.is_kept else "",
            gr.update(value=None if zipped is None else str(zipped), visible=zipped is not None),
            gr.update(value=str(report)),
        ]

    # ---- what came of it -----------------------------------------------------------------------------------------------

    def answer(self, session: str, text: str) -> str:
        """Shows the answers to one more input."""
        return told(lambda: shown("one_pair", self.actions.answer(session, text or "")))

    def push(self, session: str, repo_id: str, token: str, private: bool) -> tuple[str, str]:
        """Publishes what was adapted; the token is shown and kept no longer than it is needed."""

        def done() -> str:
            commit = self.actions.push(session, repo_id or "", token or "", private=private)
            return shown("pushed", commit.commit_url, repo_id)

        return told(done), ""


def in_session(gr: Any, act: Callable[..., Any]) -> Callable[..., Any]:
    """A handler for gradio, which passes on the visitor's session before the values.

    Args:
        gr: Gradio.
        act: Function of a session and of values; it may be one that yields.
    """

    def handler(request: Any, *values: Any) -> Any:
        return act(str(request.session_hash), *values)

    def yielding(request: Any, *values: Any) -> Iterator[Any]:
        yield from act(str(request.session_hash), *values)

    chosen = yielding if inspect.isgeneratorfunction(act) else handler
    chosen.__annotations__ = {"request": gr.Request}  # by which gradio knows it
    return chosen


def told(show: Callable[[], str]) -> str:
    """What is shown, or the mistake that prevents it.

    Args:
        show: Makes what is shown.
    """
    try:
        return show()
    except MISTAKES as error:
        return shown("message", str(error))


def _read(name: str, given: Given) -> str:
    labels = ", with right answers" if given.labelled is not None else ""
    return (
        f"{len(given.inputs)} inputs of {name}{labels}. They come before what is pasted, as long as the file is there."
    )
