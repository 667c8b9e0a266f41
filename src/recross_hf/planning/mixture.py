"""The plan of preparing upstream data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..mixture.arguments import MixtureArguments
from ..mixture.decontamination import Decontaminator
from ..mixture.prepare import check_mixture
from ..mixture.sources import SourceError, TaskSource
from ..mixture.trial import try_out
from .plan import Plan, TimeEstimate
from .probe import LESS_DISK
from .resources import peak_memory

logger = logging.getLogger(__name__)

# Digests of a task are held while it is prepared.
_BYTES_A_ROW, _BYTES_AN_EXAMPLE = 8, 24


def plan_mixture(
    sources: Sequence[TaskSource],
    output_dir: str | Path,
    args: MixtureArguments | None = None,
    *,
    targets: Decontaminator | None = None,
    template_folder: str | Path | None = None,
    num_proc: int = 1,
    skip_failed_tasks: bool = False,
) -> Plan:
    """Plans [`prepare_mixture`] with the same arguments: some rows of every task are prepared.

    Tasks that are finished already count. Rows that are fetched from the Hub do not, nor does the time that reading the rest of them
    takes.

    Args:
        sources: The tasks.
        output_dir: Folder that the examples go to.
        args: Settings; see [`MixtureArguments`].
        targets: Texts that no example may share; see [`Decontaminator`].
        template_folder: Folder of templates, laid out as PromptSource's; the installed package's by default.
        num_proc: Number of processes that render.
        skip_failed_tasks: Whether to pass over, with a warning, a task that cannot be had.

    Returns:
        The plan.

    Raises:
        ValueError: [`prepare_mixture`] would raise one; a change of a finished task's data or templates is not noticed, though.
        ContaminationError: An example overlaps with a target, and `args.on_overlap` is "fail".
        SourceError: A task's data or templates cannot be had, and not `skip_failed_tasks`; or no task can be had.
    """
    args, trials = args or MixtureArguments(), []
    targets = Decontaminator(args.ngram_size) if targets is None else targets  # an empty Decontaminator is falsy
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
    made = sum(trial.seconds * trial.num_examples for trial in trials) / num_proc
    seconds = made + sum(trial.serial_seconds * trial.num_examples for trial in trials)
    # Some rows of a task say little of how the others differ: the spread is that of tasks about their mean.
    of_tasks = TimeEstimate.of([trial.seconds + trial.serial_seconds for trial in trials], num_examples)
    margin = (of_tasks.high - of_tasks.expected) / of_tasks.expected
    # Each process that renders holds as much as the main process so far, which holds the digests of the largest task besides.
    holders = num_proc + 1 if num_proc > 1 else 1
    digests = max(_BYTES_A_ROW * trial.num_rows + _BYTES_AN_EXAMPLE * trial.num_examples for trial in trials)
    return Plan.after_probe(
        output_dir,
        work=f"{num_examples:,} upstream examples of {len(trials)} tasks, made by {num_proc} process{'es' * (num_proc > 1)}",
        probe=f"{sum(trial.num_tried for trial in trials):,} examples made by one",
        seconds=TimeEstimate(seconds, seconds * max(1 - margin, 0.0), seconds * (1 + margin)),
        shared=0.0,
        memory=peak_memory() * holders + digests,
        disk=round(sum(trial.num_bytes * trial.num_examples for trial in trials)),
        advice={
            "memory": "Use fewer processes (--num_proc): each holds the target texts and the libraries.",
            "disk": f"{LESS_DISK}, or keep fewer examples of a task (--max_examples_per_task).",
        },
    )
