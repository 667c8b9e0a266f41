"""Ray: a cluster that is there or one on this machine, and workers on it that share chunks."""

from __future__ import annotations

import logging
import os
import socket
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from .sources import Chunk
from .workers import EncoderDescription

logger = logging.getLogger(__name__)

_RESTARTS = 3
_CALLS_A_WORKER = 2
"""Chunks that a worker has at a time: one is read or written while the other is encoded."""
_SECONDS_TO_ANSWER = 10
_LOST = (
    f"Expected a worker, found that each one died {_RESTARTS + 1} times: too little memory, or nodes that went away."
)


class WorkersLostError(RuntimeError):
    """No worker is left, or none came up; the message says what there was, and what to do."""


def load_ray() -> ModuleType:
    """Imports Ray.

    Raises:
        ImportError: The extra is not installed.
    """
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ImportError("Building on a cluster needs Ray: pip install 'recross_hf[cluster]'.") from error
    module: ModuleType = ray
    return module


@contextmanager
def connected(address: str | None = None, num_workers: int | None = None) -> Iterator[ModuleType]:
    """Ray, connected to a cluster, or to one on this machine that ends with the block; one that is connected already stays so.

    Args:
        address: Address of the cluster; by default `RAY_ADDRESS`, and a new one on this machine where that is not set.
        num_workers: Number of workers that a new one has room for.

    Raises:
        ConnectionError: There is no cluster at the address.
    """
    ray, address = load_ray(), address or os.environ.get("RAY_ADDRESS") or None
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # one on this machine would tell its makers of itself
    of_machine = {"num_cpus": max(os.cpu_count() or 1, (num_workers or 1) + 1), "include_dashboard": False}
    try:
        _check_answers(address)
        with warnings.catch_warnings():
            # Ray's processes are started anew, and inherit nothing of Lance.
            warnings.filterwarnings("ignore", message="lance is not fork-safe")
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR, **({} if address else of_machine)
            )
    except (OSError, ray.exceptions.RayError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ConnectionError(
            f"Expected a Ray cluster at {address}, found none: {reason}. Start one (`ray start --head`), name another with --ray_address, or "
            "leave that out for one on this machine. A cluster that answers may ask for a token: set RAY_AUTH_MODE=token, and give this process the "
            "token of the head, ~/.ray/auth_token."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_answers(address: str | None) -> None:
    """Ray itself tries for minutes before it says that nobody answers."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()


def resources_for(ray: ModuleType, num_workers: int | None) -> tuple[int, dict[str, int]]:
    """How many workers there will be, and what each of them takes: a GPU where the cluster has some, a CPU otherwise.

    Args:
        ray: Ray, connected.
        num_workers: Number of workers; by default one a GPU, or one a CPU but for one.

    Raises:
        ValueError: The cluster is too small for so many. One CPU stays free for what is neither read nor encoded: with all of them taken,
            Ray would wait for ever.
    """
    there = ray.cluster_resources()
    gpus, cpus = int(there.get("GPU", 0)), int(there.get("CPU", 0))
    most = min(gpus, cpus - 1) if gpus else cpus - 1
    wanted = max(most, 1) if num_workers is None else num_workers
    if not 1 <= wanted <= most:
        raise ValueError(
            f"Expected from 1 to {most} workers on a cluster with {cpus} CPUs and {gpus} GPUs, found {wanted}: each takes "
            f"{'a GPU and ' if gpus else ''}a CPU, and one CPU stays free. Lower --num_workers, or start more nodes first."
        )
    return wanted, {"num_cpus": 1} | ({"num_gpus": 1} if gpus else {})


class WorkerPool:
    """Workers of a cluster, as many as come up; one that dies is started again by Ray, elsewhere if need be, and goes on with its chunk.

    Args:
        ray: Ray, connected.
        create: Creates the handle of a worker (a [`ChunkWorker`] as a Ray actor).
        num_workers: Number of workers.
        start_timeout: Seconds that the first of them may take.

    Attributes:
        actors: Handles of the workers.
    """

    def __init__(self, ray: ModuleType, create: Callable[[], Any], num_workers: int, *, start_timeout: float) -> None:
        self._ray, self._start_timeout = ray, start_timeout
        self.actors = [create() for _ in range(num_workers)]
        self._starting = {actor.describe.remote(): actor for actor in self.actors}
        self._ready: deque[Any] = deque()

    def description(self) -> EncoderDescription:
        """What the first worker that comes up says of its encoder.

        Raises:
            WorkersLostError: None comes up in time.
        """
        until = time.monotonic() + self._start_timeout
        while self._starting:
            ready, _ = self._ray.wait(list(self._starting), timeout=max(until - time.monotonic(), 0))
            if not ready:
                raise WorkersLostError(
                    f"Expected a worker within {self._start_timeout:.0f} s, found none. The cluster has "
                    f"{_in_words(self._ray.cluster_resources())}, of which {_in_words(self._ray.available_resources())} are free. Wait for "
                    "other jobs, or start more nodes; a model that loads slowly needs a longer `start_timeout`."
                )
            if self._lived(ready[0]):
                description: EncoderDescription = result_of(self._ray, ready[0])
                return description
            del self._starting[ready[0]]
        raise WorkersLostError(f"{_LOST} Give them more memory, or a smaller model.")

    def written(self, chunks: Iterable[Chunk], expected: EncoderDescription) -> Iterator[tuple[Chunk, str]]:
        """Each chunk with its fragment, as soon as it is written.

        Args:
            chunks: The chunks.
            expected: What [`description`] gave.

        Raises:
            WorkersLostError: All workers died more often than Ray starts them again.
            Exception: What a worker raised.
        """
        waiting, running = deque(chunks), dict[Any, tuple[Any, Chunk]]()
        while waiting or running:
            self._submit(waiting, running, expected)
            if not running and not self._starting:
                raise WorkersLostError(
                    f"{_LOST} {len(waiting)} chunks are left, and those that are written stay: give the workers more memory, or take fewer a "
                    "node, and run the build again."
                )
            (ref, *_), _ = self._ray.wait([*running, *self._starting])
            is_lived = self._lived(ref)
            actor, chunk = running.pop(ref) if ref in running else (self._starting.pop(ref), None)
            if is_lived:
                self._ready += [actor] * (1 if chunk is not None else _CALLS_A_WORKER)
            elif chunk is not None:
                waiting.appendleft(chunk)
            self._submit(waiting, running, expected)  # before the caller takes its time
            if is_lived and chunk is not None:
                yield chunk, result_of(self._ray, ref)

    def _submit(
        self, waiting: deque[Chunk], running: dict[Any, tuple[Any, Chunk]], expected: EncoderDescription
    ) -> None:
        while self._ready and waiting:
            actor, chunk = self._ready.popleft(), waiting.popleft()
            running[actor.write.remote(chunk, expected)] = (actor, chunk)

    def close(self) -> None:
        """Ends the workers, so that others can have what they took."""
        starting = list(self._starting.values())
        for actor in self.actors:
            if actor not in starting:
                self._ray.kill(actor)
        # Those that are on their way end when nobody holds on to them; killed, they would be reported as failures.
        self.actors, self._starting = [], {}

    def _lived(self, ref: Any) -> bool:
        """Whether a worker lived to answer; an error that it answered with is raised."""
        try:
            result_of(self._ray, ref)
        except self._ray.exceptions.RayActorError as error:
            logger.warning("A worker is lost: %s", str(error).partition("\n")[0])
            return False
        return True


def result_of(ray: ModuleType, ref: Any) -> Any:
    """What a task or a worker gave; an error that it raised is raised as it was."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from error  # Ray's own text is a traceback of another process
        raise


def create_worker(ray: ModuleType, kind: type, takes: dict[str, int], *arguments: Any) -> Any:
    """Starts an object as an actor that Ray starts again where it dies."""
    options = takes | {"max_restarts": _RESTARTS, "max_task_retries": _RESTARTS, "max_concurrency": _CALLS_A_WORKER}
    return ray.remote(kind).options(**options).remote(*arguments)


def _in_words(resources: dict[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
