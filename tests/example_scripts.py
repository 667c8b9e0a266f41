"""Runs an example in the tests' own process, as `python examples/SCRIPT ...` does in one of its own: that takes seconds to start."""

import contextlib
import functools
import importlib.util
import io
import logging
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from accelerate.state import AcceleratorState, GradientState, PartialState

from recross_hf import load_starter_task
from recross_hf.cli import adapt
from recross_hf.cli.main import main

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@functools.cache
def load(script: str) -> ModuleType:
    """The script as a module, read once."""
    path = EXAMPLES / script
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
        spec.loader.exec_module(module)
    return module


def run(folder: Path, script: str, *arguments: object, exit_code: int = 0) -> str:
    """What the script printed; `folder` is the working directory. What it raises is raised."""
    code, printed, errors = ended(folder, script, *arguments)
    assert code == exit_code, f"{script} {' '.join(map(str, arguments))}\n{printed[-1000:]}\n{errors[-2500:]}"
    return printed


def ended(folder: Path, script: str, *arguments: object) -> tuple[int, str, str]:
    """How the script ended: its exit status, what it printed, and what it wrote to standard error."""
    return _ended(folder, load(script).main, [str(EXAMPLES / script), *map(str, arguments)])


def recross(folder: Path, *words: object) -> tuple[int, str, str]:
    """How the command `recross` ended: its exit status, what it printed, and what it wrote to standard error."""
    return _ended(folder, main, ["recross", *map(str, words)])


def score_few(patch: pytest.MonkeyPatch) -> None:
    """Lets `recross demo` score twenty examples of the starter's test sets of five hundred, which takes seconds before and after."""

    def load(task: str, query_set: int = 0) -> tuple[datasets.Dataset, datasets.Dataset]:
        queries, test = load_starter_task(task, query_set)
        return queries, test.select(range(20))

    patch.setattr(adapt, "load_starter_task", load)


def _ended(folder: Path, main: Callable[[list[str]], None], command: list[str]) -> tuple[int, str, str]:
    printed, errors = io.StringIO(), io.StringIO()
    with as_of_a_new_process(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", command)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
            code = _exit_code(main, command[1:])
    return code, printed.getvalue(), errors.getvalue()


def _exit_code(main, arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    return 0


def _loggers() -> list[logging.Logger]:
    known = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in known if isinstance(logger, logging.Logger))]


@contextlib.contextmanager
def as_of_a_new_process() -> Iterator[None]:
    """What a script sets for its whole process is as it was afterwards, and the groups of processes are those of a process that began."""
    levels = {logger: (logger.level, logger.handlers[:]) for logger in _loggers()}
    environment, states = dict(os.environ), (random.getstate(), np.random.get_state(), torch.get_rng_state())
    bars = [
        (transformers.utils.logging, transformers.utils.logging.is_progress_bar_enabled(), "progress_bar"),
        (datasets, not datasets.are_progress_bars_disabled(), "progress_bars"),
        (huggingface_hub.utils, not huggingface_hub.utils.are_progress_bars_disabled(), "progress_bars"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for state in (AcceleratorState, GradientState, PartialState):
            patch.setattr(state, "_shared_state", {})
        try:
            yield
        finally:
            for logger in _loggers():
                level, handlers = levels.get(logger, (logging.NOTSET, []))  # it was made meanwhile
                logger.setLevel(level)
                logger.handlers[:] = handlers
            for module, enabled, name in bars:
                getattr(module, f"{'enable' if enabled else 'disable'}_{name}")()
            os.environ.clear()
            os.environ.update(environment)
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])
