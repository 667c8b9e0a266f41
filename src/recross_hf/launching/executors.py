"""submitit's executors, with the resources that were asked for."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import LauncherArguments
from .job import Command

if TYPE_CHECKING:
    from submitit import Executor, Job

logger = logging.getLogger(__name__)

_OF_THE_CONTROLLERS = "controllers.err"
_SECONDS_OF_WARNING = 30
"""Seconds before its end in which a job on this machine can leave its work."""


def executor_of(folder: Path, name: str, arguments: LauncherArguments) -> Executor:
    """The executor of a launcher.

    Args:
        folder: Folder of submitit's files.
        name: Name of the jobs.
        arguments: Where the jobs run, and what each has.

    Raises:
        ImportError: submitit is not installed.
        ValueError: The folder's name has a percent sign, or there is no slurm on this machine.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError(
            f"--launcher {arguments.launcher} needs submitit: pip install 'recross_hf[cluster]'."
        ) from error
    if "%" in str(folder):
        raise ValueError(
            f"Expected an `output_dir` without %, which submitit replaces, found {folder}. Choose another."
        )
    processes = max(1, arguments.gpus_per_node)
    if arguments.launcher == "local":
        _warn_of_idle_gpus(arguments.gpus_per_node)
        local = submitit.LocalExecutor(folder, max_num_timeout=arguments.max_retries)
        local.update_parameters(
            timeout_min=arguments.timeout_min,
            tasks_per_node=processes,
            gpus_per_node=arguments.gpus_per_node,
            signal_delay_s=_SECONDS_OF_WARNING,
        )
        return local
    try:
        slurm = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=arguments.max_retries)
    except RuntimeError as error:
        raise ValueError(
            "Expected slurm's srun on this machine, found none. Start the command where jobs are submitted, or with --launcher local."
        ) from error
    slurm.update_parameters(
        name=name,
        timeout_min=arguments.timeout_min,
        mem_gb=arguments.mem_gb,
        cpus_per_task=arguments.cpus_per_task,
        gpus_per_node=arguments.gpus_per_node or None,
        tasks_per_node=processes,
        slurm_partition=arguments.slurm_partition,
        slurm_array_parallelism=arguments.num_jobs,
    )
    return slurm


def submitted(
    executor: Executor, command: Command, numbers: Sequence[int], arguments: LauncherArguments
) -> list[Job[int]]:
    """Submits a command for each of some numbers of jobs; several jobs of slurm are one array.

    Args:
        executor: Executor of [`executor_of`].
        command: Command of all the jobs.
        numbers: Numbers of the jobs, which say what GPUs of this machine they take.
        arguments: Where the jobs run, and what each has.
    """
    import submitit

    # A job may submit jobs; elsewhere, SBATCH_ACCOUNT and its like are what their user wants.
    cleaned = submitit.helpers.clean_env() if "SLURM_JOB_ID" in os.environ else nullcontext()
    with cleaned, _without_the_current_folder(), _interruptible():
        if arguments.launcher == "slurm":
            with executor.batch():
                jobs = [executor.submit(command) for _ in numbers]
            return jobs
        jobs = []
        for number in numbers:
            executor.update_parameters(visible_gpus=_gpus_of(number, arguments.gpus_per_node))
            with _standard_error_into(Path(command.folder) / _OF_THE_CONTROLLERS):
                jobs.append(executor.submit(command))
        return jobs


@contextmanager
def _interruptible() -> Iterator[None]:
    """Has jobs heed interrupts, by which submitit cancels those of this machine, where this process ignores them.

    A shell script has what it starts in the background ignore them, and processes inherit that; they inherit no handler.
    """
    ignores = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not ignores or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _without_the_current_folder() -> AbstractContextManager[None]:
    """`python -m`, which submitit starts, takes modules from the current folder first. Where this process does not, no job does."""
    import submitit

    is_on_path = not {"", os.getcwd()}.isdisjoint(sys.path)
    return nullcontext() if is_on_path else submitit.helpers.environment_variables(PYTHONSAFEPATH="1")


@contextmanager
def _standard_error_into(path: Path) -> Iterator[None]:
    """Keeps what the processes that watch jobs of this machine say, where they were interrupted, out of the terminal."""
    kept = os.dup(2)
    try:
        with path.open("ab") as log:
            os.dup2(log.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _warn_of_idle_gpus(gpus_per_node: int) -> None:
    """Without a launcher the command would take a GPU by itself."""
    import torch

    if gpus_per_node == 0 and (there := torch.cuda.device_count()):
        logger.warning(
            "The jobs compute on the CPU, and leave the %d GPUs of this machine idle: --gpus_per_node 1 gives a job one.",
            there,
        )


def _gpus_of(number: int, gpus_per_node: int) -> list[int]:
    """The GPUs of this machine that a job takes: the next ones for each job, from the first on again where there are not enough."""
    if gpus_per_node == 0:
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = list(map(int, visible.split(","))) if visible else list(range(torch.cuda.device_count()))
    if gpus_per_node > len(devices):
        raise ValueError(
            f"Expected --gpus_per_node of at most {len(devices)}, the GPUs of this machine, found {gpus_per_node}."
        )
    first = number * gpus_per_node
    return [devices[(first + place) % len(devices)] for place in range(gpus_per_node)]
