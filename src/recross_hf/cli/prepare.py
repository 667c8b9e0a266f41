"""`recross prepare`: the rows of many tasks become upstream examples, split, without repetition or contamination."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import Decontaminator, MixtureArguments, load_examples, prepare_mixture, read_task_sources
from ..core.output_folders import check_apart_from_files
from ..core.recipes import named_values
from ..core.tables import format_table
from ..data.files import files_of
from ..data.schema import EXAMPLE_FEATURES, ExampleError
from ..mixture.decontamination import ContaminationError
from ..mixture.sources import SourceError, sources_of_files
from ..mixture.targets import check_splits, render_targets
from ..planning.mixture import plan_mixture
from .console import is_quiet, show
from .errors import UsageError
from .parser import CommandParser

ABOUT = (
    "Prepare upstream data: the rows of many tasks become examples, split by row, without repetitions and without what target tasks hold. "
    "`--tasks recross` stands for the paper's tasks; a YAML file lists your own. A killed run continues; finished tasks are kept."
)
GROUPS = {
    "Which rows": ["tasks", "files", "columns", "only", "template_folder"],
    "What they must not hold": ["target_files", "no_targets"],
    "How, and where it goes": ["output_dir", "num_proc", "skip_failed_tasks", "seed", "dry_run"],
}


@dataclass
class Arguments:
    """What `recross prepare` takes beside the arguments of a mixture."""

    output_dir: str = field(metadata={"help": "Where the examples go, a folder a task."})
    tasks: str | None = field(
        default=None,
        metadata={"help": "A YAML file of tasks, or 'recross', the paper's, which come with the package."},
    )
    files: str | None = field(default=None, metadata={"help": "Or files of examples: a path, folder or pattern."})
    columns: list[str] = field(
        default_factory=list,
        metadata={"help": "Column mapping for --files and --target_files, e.g. references=outputs"},
    )
    only: list[str] = field(default_factory=list, metadata={"help": "Some of the tasks, by name; all by default."})
    template_folder: str | None = field(
        default=None,
        metadata={"help": "Templates laid out as PromptSource's; those of the installed package by default."},
    )
    target_files: list[str] = field(
        default_factory=list,
        metadata={"help": "Examples of target tasks, to leave out what they share with upstream."},
    )
    no_targets: bool = field(
        default=False, metadata={"help": "Do not compare with the `targets` that the file of --tasks lists."}
    )
    num_proc: int = field(default=1, metadata={"help": "Processes that render; they do not change the result."})
    skip_failed_tasks: bool = field(
        default=False, metadata={"help": "Report a task whose data cannot be had, and go on with the others."}
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "Say what it will take, time, memory and disk, from some rows of each task, and stop."},
    )


def main(argv: Sequence[str]) -> None:
    """Prepares data as the command line says, or says what it will take."""
    parser = CommandParser("prepare", (Arguments, MixtureArguments), about=ABOUT, groups=GROUPS)
    args, settings = parser.parse(argv)
    if (args.tasks is None) == (args.files is None):
        parser.error(
            "Expected --tasks or --files, one of them, found " + ("neither" if args.tasks is None else "both")
        )
    columns = named_values("--columns", args.columns, parser.error, known=list(EXAMPLE_FEATURES))
    if args.files is not None:
        tasks = {"upstream": sources_of_files(args.files, columns=columns), "targets": []}
    else:
        tasks = read_task_sources(args.tasks)
    unknown = set(args.only) - {source.task for source in tasks["upstream"]}
    if unknown:
        known = ", ".join(sorted(source.task for source in tasks["upstream"])[:8])
        parser.error(
            f"Expected names of tasks of {args.tasks or args.files} ({known}, ...) as --only, found {', '.join(sorted(unknown))}"
        )
    read = [path for pattern in args.target_files for path in files_of(pattern)]
    check_apart_from_files(args.output_dir, read)
    upstream = [source for source in tasks["upstream"] if not args.only or source.task in args.only]
    listed = [] if args.no_targets else tasks["targets"]
    check_splits(upstream, listed)
    files = (load_examples(path, columns=columns) for pattern in args.target_files for path in files_of(pattern))
    rendered = render_targets(
        listed, settings, template_folder=args.template_folder, skip_failed_tasks=args.skip_failed_tasks
    )
    targets = Decontaminator.of(itertools.chain(files, rendered), ngram_size=settings.ngram_size)

    given = {
        "targets": targets,
        "template_folder": args.template_folder,
        "num_proc": args.num_proc,
        "skip_failed_tasks": args.skip_failed_tasks,
    }
    if args.dry_run:
        show(str(plan_mixture(upstream, args.output_dir, settings, **given)))
        return
    try:
        reports = prepare_mixture(upstream, args.output_dir, settings, **given, show_progress=not is_quiet())
    except (SourceError, ContaminationError, ExampleError, FileNotFoundError) as error:
        raise UsageError(f"{error} Finished tasks are kept.") from error
    _tell(reports, args.output_dir, len(targets))


def _tell(reports: Mapping[str, Any], output_dir: str, num_targets: int) -> None:
    rows = [
        [
            task,
            f"{report['rows']:,}",
            str(len(report["templates"])),
            f"{report['train']:,}",
            f"{report['dev']:,}",
            f"{sum(report['dropped'].values()):,}",
            f"{sum(report['overlap'].values()):,}",
        ]
        for task, report in reports.items()
        if "error" not in report
    ]
    show(format_table(["task", "rows", "templates", "train", "dev", "dropped", "overlap"], rows))
    failed = {task: report["error"] for task, report in reports.items() if "error" in report}
    for error in failed.values():
        print(f"Left out: {error}")
    compared = f"compared with {num_targets:,} target texts" if num_targets else "not compared with any target task"
    if not rows:
        raise UsageError(f"Expected tasks whose data can be had, found none: {next(iter(failed.values()))}")
    total = sum(report.get("train", 0) for report in reports.values())
    print(f"{total:,} training examples of {len(rows)} tasks in {Path(output_dir)}, {compared}.")
    print(f"What was kept and dropped, and why: {Path(output_dir) / 'README.md'}.")
