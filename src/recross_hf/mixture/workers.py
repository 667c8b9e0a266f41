"""Processes that render; their examples come back in the order of the data."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from .rendering import Rendered, Renderer, RowsToRender

_renderer: Renderer  # of a process that a `RenderingPool` has started; no other process has one


def _start(renderer: Renderer) -> None:
    global _renderer
    _renderer = renderer


def _render(work: RowsToRender) -> Rendered:
    return _renderer.render(work)


class RenderingPool:
    """Renders in several processes, or in this one; used in a `with` block.

    Args:
        renderer: Renderer that each process gets once, for its target texts are large.
        num_proc: Number of processes; with 1, this process renders.
    """

    def __init__(self, renderer: Renderer, num_proc: int = 1) -> None:
        self.renderer, self.num_proc = renderer, num_proc
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> RenderingPool:
        if self.num_proc > 1:
            # Processes are not forked: a forked child of a process with threads can hang.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.num_proc, context, _start, (self.renderer,))
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, work: Iterator[RowsToRender]) -> Iterator[Rendered]:
        """Renders batches in order, a few of them ahead of those that are taken: memory does not grow with the data.

        Raises:
            RuntimeError: A process died.
        """
        if self._pool is None:
            yield from map(self.renderer.render, work)
            return
        ahead: deque[Future[Rendered]] = deque()
        try:
            for batch in work:
                ahead.append(self._pool.submit(_render, batch))
                if len(ahead) > 2 * self.num_proc:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "A process that made examples died, maybe for want of memory. Run again with fewer processes (`num_proc`): "
                "finished tasks are kept. A script must call this under `if __name__ == '__main__':`."
            ) from error
