"""Processes that render examples; what they make comes back in order."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from .decontamination import TargetTexts
from .rendering import Rendered, RowsToRender, make_examples, set_targets


class RenderingProcesses:
    """Processes that make examples; what they make comes back in order."""

    def __init__(self, num_proc: int, targets: TargetTexts) -> None:
        self.num_proc, self.targets = num_proc, targets
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> RenderingProcesses:
        if self.num_proc > 1:
            # Not forked: a forked child of a process with threads can hang.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.num_proc, context, set_targets, (self.targets,))
        else:
            set_targets(self.targets)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        set_targets(TargetTexts())

    def map(
        self, work: Iterator[RowsToRender], function: Callable[[RowsToRender], Rendered] = make_examples
    ) -> Iterator[Rendered]:
        """As `map`, with a few batches ahead of what is taken: memory does not grow with the data."""
        if self._pool is None:
            yield from map(function, work)
            return
        ahead: deque[Any] = deque()
        try:
            for item in work:
                ahead.append(self._pool.submit(function, item))
                if len(ahead) > 2 * self.num_proc:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "A process that made examples died, maybe for want of memory. Run again with fewer processes (`num_proc`): "
                "finished tasks are kept. A script must call this under `if __name__ == '__main__':`."
            ) from error
