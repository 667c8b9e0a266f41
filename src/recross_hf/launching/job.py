"""What a job runs. submitit pickles the object by the name of its class; it holds words and numbers and nothing else."""

from __future__ import annotations

import logging
import os
import runpy
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

REQUEUED = ".requeued"
"""Ending of the empty files that tell of jobs which were preempted or ran out of time: `JOB-COUNT.requeued`."""


@dataclass
class Command:
    """A command of `recross`, which runs in the job's own process: no shell reads its words, and no child outlives a job that dies.

    Args:
        words: Words after `recross`.
        folder: Folder of submitit's files.
        num_processes: Number of processes of the job, which form a group as those of `accelerate launch` do.
        num_threads: Threads of each process; by default what the environment says.
        num_requeued: How often slurm, or submitit on one machine, has begun the job anew.
    """

    words: list[str]
    folder: str
    num_processes: int = 1
    num_threads: int | None = None
    num_requeued: int = 0
    is_ending: bool = field(default=False, init=False)

    def __call__(self) -> int:
        """Runs the command, and returns its exit status."""
        if self.num_threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(self.num_threads)  # before torch is imported
        if self.num_processes > 1:
            from submitit.helpers import TorchDistributedEnvironment

            TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        logging.getLogger("submitit").propagate = False  # its news stand in the log already
        self._end_as_programs_end()
        sys.argv = ["recross", *self.words]
        try:
            runpy.run_module("recross_hf", run_name="__main__")
        except SystemExit as ended:
            if isinstance(ended.code, str):
                raise RuntimeError(ended.code) from None
            if self.is_ending:
                raise  # submitit ends the process, and has it begun anew
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        return 0

    def checkpoint(self) -> DelayedSubmission:
        """The job that goes on after this one was preempted or ran out of time: the same, for what is done stands in its files."""
        from submitit.core.utils import DelayedSubmission

        self.is_ending = True
        return DelayedSubmission(
            Command(self.words, self.folder, self.num_processes, self.num_threads, self.num_requeued + 1)
        )

    def _end_as_programs_end(self) -> None:
        """Tells of a job that is put back into the queue, and lets no command take the end of another for an error in its work.

        submitit raises an error, wherever the command is, where a job ran out of time too often: a cell would count as failed.
        """
        from submitit import JobEnvironment

        environment = JobEnvironment()
        number = signal.Signals[f"SIG{environment.USR_SIG}"]
        of_submitit = signal.getsignal(number)

        def end(number: int, frame: FrameType | None) -> None:
            assert callable(of_submitit)
            try:
                of_submitit(number, frame)
            except SystemExit:
                (Path(self.folder) / f"{environment.job_id}-{self.num_requeued + 1}{REQUEUED}").touch()
                raise
            except Exception as error:
                sys.exit(str(error))

        signal.signal(number, end)
