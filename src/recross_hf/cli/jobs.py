"""A command that runs in jobs which share its work: the flags, and what they may not stand beside."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..launching.arguments import LAUNCHER_ARGUMENTS, LauncherArguments
from ..launching.launcher import JOBS_FOLDER, launch
from .console import show
from .parser import CommandParser


def run_in_jobs(
    parser: CommandParser, name: str, argv: Sequence[str], said: Mapping[str, Any], output_dir: str
) -> bool:
    """Runs a command in jobs, where the command line asks for that, and waits for them; returns whether it did.

    Args:
        parser: Parser of the command.
        name: Name of the command.
        argv: Words after the name.
        said: What they say.
        output_dir: Folder that the command writes.
    """
    arguments = parser.made(LauncherArguments, said)
    if arguments.launcher == "none":
        if "launcher" not in said and (own := [argument for argument in LAUNCHER_ARGUMENTS if argument in said]):
            parser.error(f"Expected --launcher local or slurm beside --{own[0]}, found none")
        return False
    if said.get("dry_run"):
        parser.error("Expected --dry_run without --launcher, found both: the plan is made here")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        parser.error(
            "Expected --launcher without `accelerate launch`, found both: the jobs start the processes, one for each of --gpus_per_node"
        )
    if "hub_token" in said:
        parser.error(
            "Expected --launcher without --hub_token, which would stand in the files of the jobs, found both: set HF_TOKEN"
        )
    where = "this machine" if arguments.launcher == "local" else "slurm"
    jobs = "1 job" if arguments.num_jobs == 1 else f"{arguments.num_jobs} jobs, which share it,"
    show(f"The work is done by {jobs} on {where}. Logs are in {output_dir}/{JOBS_FOLDER}/.")
    # The last word counts, also where a --config names a launcher.
    with _ending_as_interrupted():
        launch([name, *argv, "--launcher", "none"], output_dir, arguments)
    return True


@contextmanager
def _ending_as_interrupted() -> Iterator[None]:
    """Cancels the jobs also where `kill` or `timeout` ends the command."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
