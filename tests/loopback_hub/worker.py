"""Runs the steps that a `Client` sends: a line of JSON each, and a line of JSON back."""

import importlib
import json
import os
import sys
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


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a step prints is no answer

    def say(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content, default=str) + "\n")
        answers.flush()

    for line in sys.stdin:
        asked = json.loads(line)
        if asked["in_copy"]:
            copy = os.fork()
            if copy:
                _, status = os.waitpid(copy, 0)
                if status:
                    say({"gone": os.waitstatus_to_exitcode(status)})
                continue
            say({"copy": os.getpid()})
        say(answer(asked))
        if asked["in_copy"]:
            os._exit(0)


if __name__ == "__main__":
    main()
