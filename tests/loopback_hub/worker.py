"""Runs the steps that a `Client` sends: a line of JSON each, and a line of JSON back."""

import gc
import importlib
import json
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any


def function_of(asked: dict[str, Any]) -> Callable[..., Any]:
    if "name" in asked:
        module, name = asked["name"].split(":")
        return getattr(importlib.import_module(module), name)
    names: dict[str, Any] = {}
    exec(asked["source"], names)
    return names[asked["function"]]


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": function_of(asked)(**asked["arguments"])}
    except Exception as error:  # whatever it is, the test is to see it
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return {"error": str(error), "kinds": kinds, "trace": traceback.format_exc()}


def received(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """What is asked next, and the channel that comes with it for a copy; this process ends when nobody is left to ask."""
    message, descriptors = b"", []
    while not message.endswith(b"\n"):
        piece, sent, _, _ = socket.recv_fds(channel, 1 << 16, 1)
        if not piece:
            os._exit(0)
        message += piece
        descriptors += sent
    return json.loads(message), descriptors


def say(channel: socket.socket, content: dict[str, Any]) -> None:
    channel.sendall(json.dumps(content, default=str).encode() + b"\n")


def settle(asked: dict[str, Any]) -> None:
    """Makes this process the copy that was asked for."""
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    if asked["environment"] is not None:
        os.environ.clear()
        os.environ.update(asked["environment"])
    if asked["folder"] is not None:
        os.chdir(asked["folder"])


def main() -> None:
    channel = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    while True:
        asked, descriptors = received(channel)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            say(channel, {"status": os.waitstatus_to_exitcode(status)})
        elif "copy" in asked:
            (descriptor,) = descriptors
            gc.freeze()  # or each copy's first collections copy the pages of all that is imported
            os.set_inheritable(descriptor, False)
            if os.fork():
                os.close(descriptor)
                continue
            channel.close()
            channel = socket.socket(fileno=descriptor)
            settle(asked)
            say(channel, {"pid": os.getpid()})
        else:
            say(channel, answer(asked))


if __name__ == "__main__":
    main()
