"""Clients of a Hub in processes of their own: they look at the environment when they are imported."""

import inspect
import json
import os
import signal
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

    def __init__(self, environment: Mapping[str, str], folder: Path, timeout: float = 120.0) -> None:
        self.timeout = timeout
        self.log = folder / "client.log"
        self._copy: int | None = None
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "loopback_hub.worker"],
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

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
        return self._result(step, arguments, in_copy=False)

    def in_copy(self, step: Callable[..., Any] | str, **arguments: Any) -> Any:
        """As a call, in a copy of the process, which ends with the step: it costs no new imports, and leaves nothing behind.

        `kill` ends the copy alone.
        """
        return self._result(step, arguments, in_copy=True)

    def _result(self, step: Callable[..., Any] | str, arguments: dict[str, Any], *, in_copy: bool) -> Any:
        asked: dict[str, Any] = {"arguments": arguments, "in_copy": in_copy}
        if isinstance(step, str):
            asked["name"] = step
        else:
            asked |= {"source": textwrap.dedent(inspect.getsource(step)), "function": step.__name__}
        watch = threading.Timer(self.timeout, self.kill)
        watch.start()
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            if in_copy and line:
                self._copy = json.loads(line)["copy"]
                line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watch.cancel()
            self._copy = None
        if not line:
            said = self.log.read_text()[-2000:]
            raise ClientGone(f"The process ended with {self._process.wait()}. It said: {said}")
        answer = json.loads(line)
        if "gone" in answer:
            raise ClientGone(f"The copy ended with {answer['gone']}. It said: {self.log.read_text()[-2000:]}")
        if "error" in answer:
            raise StepError(answer["error"], answer["kinds"], answer["trace"])
        return answer["result"]

    def kill(self) -> None:
        """Ends the process, or the copy that runs a step, as `kill -9` does, whatever it is doing."""
        if self._copy is None:
            self._process.kill()
        else:
            os.kill(self._copy, signal.SIGKILL)

    def close(self) -> None:
        """Ends the process and waits until it has ended."""
        self._process.kill()
        self._process.communicate()
