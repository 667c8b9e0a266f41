"""What preparing upstream data will take."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..mixture.arguments import MixtureArguments
from ..mixture.decontamination import TargetTexts
from ..mixture.prepare import check_mixture
from ..mixture.sources import SourceError, TaskSource
from ..mixture.trial import try_out
from .plan import Plan, Room, Seconds, peak_memory
from .probe import BYTES_A_ROW, BYTES_AN_EXAMPLE, LESS_DISK

logger = logging.getLogger(__name__)


# ---- upstream data -----------------------------------------------------------------------------------------------------


def plan_mixture(
    sources: Sequence[TaskSource],
    output_dir: str | Path,
    args: MixtureArguments | None = None,
    *,
    targets: TargetTexts | None = None,
    template_folder: str | Path | None = None,
    num_proc: int = 1,
    skip_failed_tasks: bool = False,
) -> Plan:
    """What [`prepare_mixture`] with these arguments will take: some rows of every task are prepared.

    What is fetched from the Hub to read them is not counted, nor the time that reading the rest takes; tasks that are finished
    already are.

    Raises:
        ValueError: as [`prepare_mixture`] raises it; but whether the data or templates of a finished task have changed since is not
            looked at.
        ContaminationError: there is an overlap, and `args.on_overlap` is "fail".
        SourceError: a task's data or templates cannot be had, and not `skip_failed_tasks`; or those of no task can.
    """
    args, trials = args or MixtureArguments(), []
    targets = TargetTexts(args.ngram_size) if targets is None else targets  # one of no texts is false
    check_mixture(sources, output_dir, args, targets, num_proc)
    for source in sources:
        try:
            trials.append(try_out(source, args, targets=targets, template_folder=template_folder))
        except SourceError as error:
            if not skip_failed_tasks:
                raise
            logger.warning("Left out: %s", error)
    if not trials:
        raise SourceError("Expected a task that can be had, found none.")
    num_examples = sum(trial.num_examples for trial in trials)
    disk = round(sum(trial.num_bytes * trial.num_examples for trial in trials))
    made = sum(trial.seconds * trial.num_examples for trial in trials) / num_proc
    seconds = made + sum(trial.serial_seconds * trial.num_examples for trial in trials)
    # Some rows of a task say little of how the others differ: the spread is that of tasks about their mean.
    of_tasks = Seconds.of([trial.seconds + trial.serial_seconds for trial in trials], num_examples)
    margin = (of_tasks.high - of_tasks.expected) / of_tasks.expected
    # Those that render hold what the main process holds already; it holds what it has seen of the largest task besides.
    holders = num_proc + 1 if num_proc > 1 else 1
    held = max(BYTES_A_ROW * trial.num_rows + BYTES_AN_EXAMPLE * trial.num_examples for trial in trials)
    return Plan(
        work=f"{num_examples:,} upstream examples of {len(trials)} tasks, made by {num_proc} process{'es' * (num_proc > 1)}",
        probe=f"{sum(trial.num_tried for trial in trials):,} examples made by one",
        seconds=Seconds(seconds, seconds * max(1 - margin, 0.0), seconds * (1 + margin)),
        shared=0.0,
        memory=peak_memory() * holders + held,
        device_memory=None,
        disk=disk,
        kept=disk,
        room=Room.of(output_dir),
        advice={
            "memory": "Use fewer processes (--num_proc): each holds the target texts and the libraries.",
            "disk": f"{LESS_DISK}, or keep fewer examples of a task (--max_examples_per_task).",
        },
    )
