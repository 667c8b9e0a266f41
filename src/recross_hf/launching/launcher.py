"""Jobs of one command are begun, watched and begun again; the first that comes to its end has seen all work finished."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..core.output_folders import folder_to_write
from .arguments import LauncherArguments
from .executors import executor_of, submitted
from .job import REQUEUED, Command

if TYPE_CHECKING:
    from submitit import Job

logger = logging.getLogger(__name__)

JOBS_FOLDER = "jobs"
"""Folder of submitit's files and of the logs, below the output folder."""
_MISTAKE = 2  # the exit status after a mistake of the user, which is the same in every job
_SECONDS_BETWEEN_LOOKS = {"local": 0.5, "slurm": 5.0}  # each look at a job of slurm asks the shared disk
_SECONDS_TO_CANCEL = 20
_SECONDS_TO_END = 3  # submitit gives a job of this machine one, and kills it


class JobError(RuntimeError):
    """No job came to its end; the message says what became of the last one."""


class Outcome(NamedTuple):
    """What became of a job: its exit status, which is None where it was lost, and the reason as a sentence."""

    status: int | None
    reason: str


def launch(words: Sequence[str], output_dir: str | Path, arguments: LauncherArguments) -> int:
    """Runs a command in several jobs that share its work, and waits until all of it is finished.

    ```python
    launch(["mine", "--output_dir", "mined", "--launcher", "none"], "mined", LauncherArguments("local", num_jobs=2))
    ```

    Every job runs the same command, which shares its work with others through files and locks below the output folder. A job that
    fails, is lost or runs out of time is begun again; the others take over what it held. When one comes to its end, all work is
    finished, and the others are cancelled; so they are when this call is interrupted.

    Args:
        words: Words after `recross`, without a launcher.
        output_dir: Folder that the command writes; all machines see it. submitit keeps its files and the logs in `jobs/` below it.
        arguments: Where the jobs run, how many there are, and what each has.

    Returns:
        0, or 1 where jobs came to their end with failures that the command itself reports.

    Raises:
        ImportError: submitit is not installed.
        ValueError: There is no slurm, or not so many GPUs, on this machine.
        JobError: All jobs were lost, or the command was mistaken.
    """
    folder = folder_to_write(output_dir).resolve() / JOBS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y-%m-%d-"), dir=folder))
    executor = executor_of(folder, f"recross-{words[0]}", arguments)
    command = Command(list(words), str(folder), max(1, arguments.gpus_per_node), arguments.cpus_per_task)
    numbers = range(arguments.num_jobs)
    running: dict[int, Job[int]] = {}
    retries, ended, last, told = dict.fromkeys(numbers, 0), False, Outcome(None, ""), set[Path]()
    try:
        # Whatever ends this in between, what was submitted is cancelled.
        for some in [numbers] if arguments.launcher == "slurm" else [[number] for number in numbers]:
            running |= zip(some, submitted(executor, command, some, arguments), strict=True)
        while running:
            time.sleep(_SECONDS_BETWEEN_LOOKS[arguments.launcher])
            told |= _tell_requeued(folder, told)
            for number, job in list(running.items()):
                if not job.done():
                    continue
                del running[number]
                last = outcome_of(job)
                if last.status == 0:
                    return 0
                ended |= last.status == 1
                failed = f"Job {job.job_id} ({number + 1} of {len(numbers)}) failed: {last.reason}"
                if last.status == _MISTAKE:
                    raise JobError(failed)
                is_again = retries[number] < arguments.max_retries
                if is_again:
                    retries[number] += 1
                    running[number] = submitted(executor, command, [number], arguments)[0]
                what = f"begun again ({retries[number]} of {arguments.max_retries})" if is_again else "given up"
                logger.warning("%s It is %s. Its log: %s", failed, what, job.paths.stderr)
    except KeyboardInterrupt:
        # A terminal interrupts every process. One that is ending its job's, and is interrupted once more, would leave them.
        _wait_for(running.values() if arguments.launcher == "local" else [], _SECONDS_TO_END)
        raise
    finally:
        _cancel(running.values(), is_local=arguments.launcher == "local")
    if ended:
        return 1
    raise JobError(
        f"Expected a job to come to its end, found that all {len(numbers)} failed, at last so: {last.reason} What was finished stays: read "
        f"the logs in {folder}, and give the command again."
    )


def outcome_of(job: Job[int]) -> Outcome:
    """What became of a job that is over."""
    from submitit.core.utils import FailedJobError

    error: Exception | None
    try:
        error = job.exception()
    except UnicodeDecodeError as undecodable:  # submitit reads the log of a job that was lost, whatever wrote into it
        error = undecodable
    if error is None:
        status = max(job.results())
        return Outcome(status, _last_line(job).removeprefix("Failed: ") or f"it ended with the status {status}.")
    if isinstance(error, FailedJobError):  # the traceback stands at the end of the log, too
        return Outcome(None, _last_line(job) or "it raised an error.")
    return Outcome(None, f"it ended without a result, in the state {job.state}.")


def _tell_requeued(folder: Path, told: Collection[Path]) -> set[Path]:
    new = {path for path in folder.glob(f"*{REQUEUED}") if path not in told}
    for path in sorted(new):
        job = path.name.rpartition("-")[0]
        logger.warning("Job %s was preempted or ran out of time. It is begun again, and goes on where it was.", job)
    return new


def _last_line(job: Job[int]) -> str:
    """The last line of a job's log that says something, as a sentence; a bar of progress ends with a carriage return."""
    logs = [job.task(number).paths.stderr for number in range(job.num_tasks)]
    log = "\n".join(path.read_text(errors="replace") for path in logs if path.is_file())
    lines = [line.strip() for line in log.replace("\r", "\n").splitlines()]
    line = next((line for line in reversed(lines) if line), "")
    return line if line.endswith((".", "?", "!")) or not line else f"{line}."


def _cancel(jobs: Collection[Job[int]], *, is_local: bool) -> None:
    """Cancels jobs; waits for those of this machine, so that none is left when the command ends."""
    for job in jobs:
        job.cancel(check=False)
    _wait_for(jobs if is_local else [], _SECONDS_TO_CANCEL)


def _wait_for(jobs: Collection[Job[int]], seconds: float) -> None:
    """Waits until jobs are over, so many seconds at most."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not all(job.done() for job in jobs):
        time.sleep(0.1)
