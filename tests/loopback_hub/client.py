"""Clients of a Hub in processes of their own: they look at the environment when they are imported."""

import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

TESTS = Path(__file__).parents[1]


def client_environment(
    endpoint: str, home: Path, token: str | None = None, *, offline: bool = False
) -> dict[str, str]:
    """This process's environment, with the settings of a client of that Hub instead of any others."""
    names = ("HF_", "HUGGING_FACE_", "HUGGINGFACE_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    environment |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    if token is not None:
        environment["HF_TOKEN"] = token
    if offline:
        environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    return environment


class StepError(Exception):
    """A step raised.

    Args:
        message: Of the error.
        kinds: Names of its class and of those above.
        trace: The traceback there.
    """

    def __init__(self, message: str, kinds: list[str], trace: str) -> None:
        super().__init__(f"{kinds[0]}: {message}")
        self.kinds, self.trace = kinds, trace
        self.add_note(trace)


class ClientGone(Exception):
    """The process, or the copy of it that ran a step, ended before the step did."""


class Client:
    """A Python process that runs steps, one after another; what a step imports stays imported for the next.

    A step is a function, whose source is sent, so that it must import what it needs, or the name of one,
    `"huggingface_hub:snapshot_download"`. Its arguments and what it returns go through JSON.

    Args:
        environment: Of the process, see `client_environment`.
        folder: Where it runs; what it prints goes to `client.log` there.
        timeout: Seconds that a step may take.
    """

    kind = "process"

    def __init__(self, environment: Mapping[str, str], folder: Path, timeout: float = 120.0) -> None:
        self.timeout, self.log = timeout, folder / "client.log"
        self.before_step: Callable[[], object] = lambda: None
        self._channel, theirs = socket.socketpair()
        with theirs, self.log.open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "loopback_hub.worker"],
                env=dict(environment),
                cwd=folder,
                stdin=theirs,
                stdout=log,
                stderr=log,
            )
        self._began(process.pid, process.wait)

    def _began(self, pid: int, wait: Callable[[], int]) -> None:
        self._pid, self._wait = pid, wait
        self._status: int | None = None
        self._answers = self._channel.makefile("r")
        self._copy: Client | None = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, step: Callable[..., Any] | str, **arguments: Any) -> Any:
        """What the step returns.

        Raises:
            StepError: What it raises.
            ClientGone: The process was killed, or the step took too long.
        """
        asked: dict[str, Any] = {"arguments": arguments}
        if isinstance(step, str):
            asked["name"] = step
        else:
            asked |= {"source": textwrap.dedent(inspect.getsource(step)), "function": step.__name__}
        self.before_step()
        answer = self._answer(asked)
        if "error" in answer:
            raise StepError(answer["error"], answer["kinds"], answer["trace"])
        return answer["result"]

    def in_copy(self, step: Callable[..., Any] | str, **arguments: Any) -> Any:
        """As a call, in a copy of the process, which ends with the step: it costs no new imports, and leaves nothing behind.

        `kill` ends the copy alone.
        """
        with self.copy() as copy:
            self._copy = copy
            try:
                return copy(step, **arguments)
            finally:
                self._copy = None

    def copy(
        self, environment: Mapping[str, str] | None = None, folder: Path | None = None, timeout: float | None = None
    ) -> "Copy":
        """A client as this one is now, in a fork of its process.

        Args:
            environment: Of the copy, by default this one's. What was read of it at imports is not read again.
            folder: Where the copy runs, by default where this one is.
            timeout: Seconds that a step may take, by default as here.
        """
        return Copy(self, environment, folder, timeout)

    def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        watch = threading.Timer(self.timeout, self.kill)
        watch.start()
        try:
            self._channel.sendall(json.dumps(asked).encode() + b"\n")
            return self._next_answer()
        except ConnectionError:
            raise self._gone() from None
        finally:
            watch.cancel()

    def _next_answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise ConnectionResetError
        return json.loads(line)

    def _gone(self) -> ClientGone:
        return ClientGone(f"The {self.kind} ended with {self._end()}. It said: {self.log.read_text()[-2000:]}")

    def _end(self) -> int:
        if self._status is None:
            self._status = self._wait()
        return self._status

    def kill(self) -> None:
        """Ends the process, or the copy that runs a step, as `kill -9` does, whatever it is doing."""
        if self._copy is not None:
            self._copy.kill()
        elif self._status is None:  # until it was waited for, its number is its own
            os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the process and waits until it has ended."""
        self.kill()
        self._end()
        self._answers.close()
        self._channel.close()


class Copy(Client):
    """A client in a fork of another one's process, see `Client.copy`."""

    kind = "copy"

    def __init__(
        self,
        original: Client,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        timeout: float | None = None,
    ) -> None:
        self.timeout = original.timeout if timeout is None else timeout
        self.log = original.log if folder is None else folder / "client.log"
        self.before_step = original.before_step
        self._channel, theirs = socket.socketpair()
        asked = {
            "copy": True,
            "environment": None if environment is None else dict(environment),
            "folder": None if folder is None else str(folder),
            "log": str(self.log),
        }
        with theirs:
            socket.send_fds(original._channel, [json.dumps(asked).encode() + b"\n"], [theirs.fileno()])
        self._answers = self._channel.makefile("r")
        pid = self._next_answer()["pid"]
        self._began(pid, lambda: original._answer({"wait": pid})["status"])
