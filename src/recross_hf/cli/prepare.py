"""Prepare upstream data: the rows of many tasks become examples, split, without repetition or contamination.

The paper's tasks, from the Hub, by the templates of PromptSource, free of its target tasks:

    python examples/prepare_upstream.py --tasks recross --output_dir upstream --num_proc 8

Your own tasks, listed in a YAML file (see `recross_hf.mixture.sources.read_task_sources`), and your own targets:

    python examples/prepare_upstream.py --tasks tasks.yaml --target_files 'target/*/test.parquet' --output_dir upstream

Files of examples that are rendered already, a folder a task:

    python examples/prepare_upstream.py --files 'raw/*/train.parquet' --columns references=outputs id=example_id \
        --target_files 'target/*/test.parquet' --output_dir upstream

`--dry_run` says what it will take. A killed run continues; finished tasks are kept. Tasks can be spread over machines: each runs `--only` some of them.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser

from recross_hf import Decontaminator, MixtureArguments, load_examples, prepare_mixture, read_task_sources
from recross_hf.core.output_folders import check_apart_from_files
from recross_hf.core.recipes import named_values
from recross_hf.core.tables import format_table
from recross_hf.data.files import files_of
from recross_hf.data.schema import EXAMPLE_FEATURES, ExampleError
from recross_hf.mixture.decontamination import ContaminationError
from recross_hf.mixture.sources import SourceError, sources_of_files
from recross_hf.mixture.targets import check_splits, render_targets
from recross_hf.planning.mixture import plan_mixture


@dataclass
class Arguments:
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


def prepare(argv: list[str] | None) -> None:
    parser = HfArgumentParser((Arguments, MixtureArguments))
    args, settings = parser.parse_args_into_dataclasses(argv)
    if (args.tasks is None) == (args.files is None):
        parser.error("give --tasks or --files, one of them")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)

    columns = named_values("--columns", args.columns, parser.error, known=list(EXAMPLE_FEATURES))
    if args.files is not None:
        tasks = {"upstream": sources_of_files(args.files, columns=columns), "targets": []}
    else:
        tasks = read_task_sources(args.tasks)
    unknown = set(args.only) - {source.task for source in tasks["upstream"]}
    if unknown:
        parser.error(f"--only names no task of {args.tasks or args.files}: {', '.join(sorted(unknown))}")
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
        print(plan_mixture(upstream, args.output_dir, settings, **given))
        return
    reports = prepare_mixture(upstream, args.output_dir, settings, **given, show_progress=True)
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
    print(format_table(["task", "rows", "templates", "train", "dev", "dropped", "overlap"], rows))
    failed = {task: report["error"] for task, report in reports.items() if "error" in report}
    for error in failed.values():
        print(f"Left out: {error}")
    compared = f"compared with {len(targets):,} target texts" if len(targets) else "not compared with any target task"
    if not rows:
        raise SystemExit("No task could be prepared.")
    total = sum(report.get("train", 0) for report in reports.values())
    print(f"{total:,} training examples of {len(rows)} tasks in {Path(args.output_dir)}, {compared}.")
    print(f"What was kept and dropped, and why: {Path(args.output_dir) / 'README.md'}.")


def main(argv: list[str] | None = None) -> None:
    try:
        prepare(argv)
    except (SourceError, ContaminationError, ExampleError, FileNotFoundError) as error:
        raise SystemExit(f"{error} Finished tasks are kept.") from error


if __name__ == "__main__":
    main()
