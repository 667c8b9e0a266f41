"""`recross`: the sub-commands, and how one of them is started. The stack is imported by the one that runs."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from .._version import __version__
from .console import Volume, set_up
from .errors import UsageError, end, is_mistake, nearest, reason

COMMANDS = {
    "demo": "adapts the small packaged model to a task it never saw",
    "adapt": "adapts a model to your task, from a file of unlabelled inputs",
    "prepare": "makes upstream data: the rows of many tasks become examples",
    "train": "trains an upstream model on them",
    "index": "indexes them with the model's encoder, into a pipeline folder",
    "mine": "finds out which upstream examples help on which queries",
    "train-reranker": "trains a reranker on what was mined",
    "benchmark": "compares methods on target tasks: which part of it pays?",
    "web": "serves a page on which a pipeline is tried",
    "publish": "publishes a pipeline on the Hub",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the sub-command that a command line names.

    Args:
        argv: the words after `recross`; those that Python was started with by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return
    if words[0] == "--version":
        print(f"recross {__version__}")
        return
    name, *words = words
    if name.replace("_", "-") in COMMANDS:
        run(name.replace("_", "-"), words)
        return
    error = UsageError(
        f"Expected one of the commands {', '.join(COMMANDS)}, found {name!r}.{nearest(name, list(COMMANDS))} "
        "`recross --help` says what each of them does."
    )
    end(f"recross: {reason(error)}")


def run(name: str, argv: Sequence[str] | None = None) -> None:
    """Runs a sub-command. A mistake of the user ends the program with a line on standard error and status 2.

    Args:
        name: one of `COMMANDS`.
        argv: the words after the name; those that Python was started with by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    shows_frames = _taken("--debug", words)
    volume = Volume.of(is_quiet=_taken("--quiet", words), is_verbose=_taken("--verbose", words))
    rank = int(os.environ.get("RANK", "0"))  # a command may leave its group
    try:
        with set_up(volume):
            command = importlib.import_module(f".{name.replace('-', '_')}", __package__)
            with set_up(volume):  # once more: what the import brought along has a say of its own
                command.main(words)
    except KeyboardInterrupt:
        if shows_frames:
            raise
        end(f"recross {name}: It was interrupted. Where its help says so, the same command continues.", 130, rank=rank)
    except Exception as error:
        if shows_frames or not is_mistake(error, words):
            raise
        end(f"recross {name}: {reason(error)}", rank=rank)


def overview() -> str:
    """What `recross --help` prints."""
    lines = [
        "usage: recross COMMAND [ARGUMENTS]",
        "",
        "Make a multi-task language model better at a task it has never seen, from a",
        "handful of unlabelled inputs.",
        "",
        *(f"  {name:<16}{what}" for name, what in COMMANDS.items()),
        "",
        "  recross demo                                       works in half a minute",
        "  recross adapt tickets.txt                          one input a line, no labels",
        "  recross adapt tickets.txt --pipeline org/name      a pipeline of the Hub",
        "  accelerate launch --quiet -m recross_hf adapt ...  on several GPUs",
        "",
        "`recross COMMAND --help` shows the arguments that matter, --help-all every one.",
        "All commands take --config FILE.yaml, --quiet, --verbose and --debug.",
        "`recross --version` says which version this is.",
    ]
    return "\n".join(lines)


def _taken(flag: str, words: list[str]) -> bool:
    """Whether the words hold a flag, which is then taken out. `--debug underflow_overflow` is an argument of the trainer, and stays."""
    for at, word in enumerate(words):
        if word == flag and words[at + 1 : at + 2] not in (["underflow_overflow"], ["tpu_metrics_debug"]):
            del words[at]
            return True
    return False
