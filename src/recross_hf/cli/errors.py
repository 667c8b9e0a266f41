"""A user's mistake, told in one line; a bug keeps its traceback."""

from __future__ import annotations

import difflib
import dis
import errno
import importlib.util
import json
import os
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

MISTAKE = 2
"""The exit status after a mistake."""
# Long enough for the launcher to see that the main process ended, and to end the others: on a busy machine five were too few, and the
# reason stood there twice. A process that alone has failed, which is rare, tells it that much later.
_SECONDS_FOR_THE_MAIN_PROCESS = 30
_OF_THE_MACHINE = {
    errno.EACCES,
    errno.EPERM,
    errno.ENOSPC,
    errno.EROFS,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
}


EXTRAS = {
    "peft": "recross_hf[peft]",
    "bitsandbytes": "recross_hf[qlora]",
    "gguf": "recross_hf[gguf]",
    "bm25s": "recross_hf[bm25]",
    "matplotlib": "recross_hf[plot]",
    "gradio": "recross_hf[web]",
    "sentence_transformers": "sentence-transformers",
}
"""What to install for a package that not everybody needs."""
NO_PICTURE = f"pip install '{EXTRAS['matplotlib']}' draws it the next time."


class UsageError(ValueError):
    """A command line, or a file of arguments, is not what the command takes."""


def is_mistake(error: BaseException, words: Sequence[str] = ()) -> bool:
    """Whether an error tells of a mistake of the user, or of what is wrong with the machine or the Hub; else it is a bug.

    What the library raises on purpose, with a `raise` of its own, is a mistake; so are its classes of errors, whoever raised them,
    what the Hub's client raises, files that may not be written, and those that the command line names and that are not there.
    """
    from ..hub.errors import CLIENT_ERRORS  # by now the client is imported, which takes a while

    if isinstance(error, AssertionError | NotImplementedError):
        return False
    if isinstance(error, ImportError) and error.name in EXTRAS:
        return True
    if type(error).__module__.startswith("recross_hf.") or isinstance(error, CLIENT_ERRORS):
        return True
    if isinstance(error, OSError) and (error.errno in _OF_THE_MACHINE or _is_named(error, words)):
        return True
    frame, is_raise = _raised_in(error)
    module = frame.f_globals.get("__name__", "")
    if isinstance(error, OSError) and module.startswith(
        ("transformers.utils.hub", "transformers.configuration_utils")
    ):
        return True  # there is no such model
    if is_raise and module.startswith(("transformers.integrations.integration_utils", "transformers.models.auto")):
        return True  # --report_to names what is not there, or a model is of no kind that is known
    return is_raise and module.startswith("recross_hf.")


def reason(error: BaseException) -> str:
    """An error's message as one line."""
    if isinstance(error, ImportError) and error.name in EXTRAS:
        return f"Expected the package {error.name}, found none. Install it: pip install '{EXTRAS[error.name]}'."
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return (
            f"Expected a place that can be written or read, found {error.filename}: {error.strerror}. Choose another."
        )
    return " ".join(str(error).split()) or type(error).__name__


def can_draw() -> bool:
    """Whether there is what pictures are drawn with: an adaptation is worth having without its picture."""
    return importlib.util.find_spec("matplotlib") is not None


def nearest(word: str, known: Sequence[str]) -> str:
    """A sentence that names what was probably meant, with a space before it; empty where nothing is near."""
    name = word.partition("=")[0].lower()
    longer = [one for one in known if len(name) > 3 and one.startswith(name)]
    near = longer or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else ""


def end(line: str, status: int = MISTAKE, *, rank: int = 0) -> NoReturn:
    """Ends the program with a line on standard error, which the main process alone writes.

    `torchrun`, and `accelerate launch` with several processes, show a table of their own when a process fails. What a process writes
    to the file that they name stands at the end of it: there, and nowhere else, the line is written then. The other processes are
    ended by the launcher, unless they alone have failed.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if rank > 0:
        time.sleep(_SECONDS_FOR_THE_MAIN_PROCESS)
    if file:
        told = {"message": {"message": line, "extraInfo": {"timestamp": str(int(time.time()))}}}
        with open(file, "w", encoding="utf-8") as opened:
            json.dump(told, opened)
    elif rank == 0:
        print(line, file=sys.stderr)
    sys.exit(status)


def _is_named(error: OSError, words: Sequence[str]) -> bool:
    return error.filename is not None and any(word.rpartition("=")[2] == str(error.filename) for word in words)


def _raised_in(error: BaseException) -> tuple[FrameType, bool]:
    """The innermost frame of an error, and whether a `raise` stands where it was left; in Python's own code there is no frame."""
    traceback = error.__traceback__
    assert traceback is not None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    frame = traceback.tb_frame
    return frame, frame.f_code.co_code[traceback.tb_lasti] == dis.opmap["RAISE_VARARGS"]
