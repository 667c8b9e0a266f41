"""`recross mine`: find out which upstream examples help on which queries (Algorithm 1 of the paper)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset

from .. import (
    CrossEncoderReranker,
    ReCrossPipeline,
    SupervisionArguments,
    load_examples,
    load_query_sets,
    mine_supervision,
    summarize_supervision,
)
from ..core.distributed import end_process_group, process_state
from ..core.files import read_json, write_json, write_parquet
from ..core.output_folders import check_apart, check_apart_from_files, check_not_of_others
from ..core.recipes import named_values
from ..data.files import files_of
from ..data.schema import COLUMNS
from ..launching.arguments import LauncherArguments
from ..planning.mining import plan_mining
from ..retrieval.lance.index import in_memory
from ..retrieval.lance.retriever import dense_retriever
from ..supervision.arguments import ALGORITHM_1, SUPERVISION_AS_RUN
from ..supervision.dataset_card import supervision_card
from ..supervision.query_sets import SETTINGS_FILE, path_of
from ..supervision.results import format_supervision, plot_task_utilities
from ..supervision.utility import UtilityEstimator, by_groups, by_reversal
from .console import show
from .errors import NO_PICTURE, can_draw
from .jobs import run_in_jobs
from .parser import CommandParser

UTILITY_ESTIMATORS = {"groups": by_groups, "reversal": by_reversal}


ABOUT = (
    "Mine supervision for a reranker: which upstream examples help on which queries. Queries come from the pipeline's own upstream examples, "
    "or from --example_files of the same tasks. A killed run continues; several processes, or --launcher jobs, share the query sets."
)
GROUPS = {
    "What to mine, and where it goes": ["pipeline", "output_dir", "example_files", "columns", "exclude_tasks"],
    "How": ["utility_estimator", "preset", "num_query_sets", "num_candidates", "reranker", "dry_run"],
}


@dataclass
class ScriptArguments:
    """What `recross mine` takes beside the arguments of the mining."""

    output_dir: str = field(metadata={"help": "The folder to write."})
    pipeline: str | None = field(default=None, metadata={"help": "A pipeline folder; the starter by default."})
    example_files: list[str] | None = field(
        default=None, metadata={"help": "Labelled examples to draw queries from; the indexed ones by default."}
    )
    columns: list[str] = field(
        default_factory=list, metadata={"help": "Column mapping, e.g. --columns references=outputs id=example_id"}
    )
    exclude_tasks: list[str] = field(default_factory=list, metadata={"help": "Tasks neither queried nor retrieved."})
    utility_estimator: str = field(
        default="groups",
        metadata={
            "help": "How the utility of candidates is estimated. groups: learn from groups of candidates, see the held-out loss "
            "(Algorithm 1). reversal: learn from held-out examples, see each candidate's loss.",
            "choices": list(UTILITY_ESTIMATORS),
            "aliases": ["--judge"],
        },
    )
    reranker: str | None = field(
        default=None, metadata={"help": "A reranker of an earlier iteration, to choose the candidates."}
    )
    preset: str | None = field(
        default=None,
        metadata={"help": "Algorithm 1 to the letter, or as the authors' code.", "choices": ["paper", "as_run"]},
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "Say what it will take, time, memory and disk, from a few query sets, and stop."},
    )


def main(argv: Sequence[str]) -> None:
    """Mines as the command line says, or says what it will take."""
    kinds = (ScriptArguments, LauncherArguments, SupervisionArguments)
    parser = CommandParser("mine", kinds, about=ABOUT, groups=GROUPS)
    said = parser.said(argv)
    script = parser.made(ScriptArguments, said)
    preset = {None: {}, "paper": ALGORITHM_1, "as_run": SUPERVISION_AS_RUN}[script.preset]
    args = parser.made(SupervisionArguments, preset | said)
    columns = named_values("--columns", script.columns, parser.error, known=list(COLUMNS))
    check_apart(script.output_dir, {"the pipeline": script.pipeline, "the reranker": script.reranker})
    patterns = script.example_files or []
    check_apart_from_files(script.output_dir, [path for pattern in patterns for path in files_of(pattern)])
    check_not_of_others(script.output_dir, SETTINGS_FILE, overwritten=("README.md",))
    output_dir, began = Path(script.output_dir), time.perf_counter()
    mined_before = sum(path_of(output_dir, number).is_file() for number in range(args.num_query_sets))
    in_jobs = run_in_jobs(parser, "mine", argv, said, script.output_dir)
    pipeline = ReCrossPipeline.from_pretrained(script.pipeline)
    files = script.example_files
    examples = in_memory(pipeline.index).dataset if files is None else load_examples(files, columns=columns)
    start = began if in_jobs else time.perf_counter()
    what = (
        pipeline.upstream_model,
        pipeline.processing_class,
        dense_retriever(pipeline.index),
        examples,
        output_dir,
        args,
    )
    how: dict[str, Any] = {
        "utility_estimator": UTILITY_ESTIMATORS[script.utility_estimator],
        "reranker": CrossEncoderReranker.from_pretrained(script.reranker) if script.reranker else None,
        "exclude_tasks": script.exclude_tasks,
    }
    if script.dry_run:
        plan = plan_mining(*what, **how)
        if process_state().is_main_process:
            show(str(plan))
        end_process_group()
        return
    pairs = mine_supervision(*what, **how)
    if process_state().is_main_process:
        # Sets that a killed run left took a time that nobody knows.
        seconds = round(time.perf_counter() - start, 1)
        spent = {
            "seconds": None if mined_before else seconds,
            "last_run": {"seconds": seconds, "num_sets": args.num_query_sets - mined_before},
        }
        write_beside(pairs, output_dir, args, how["utility_estimator"], spent)
    end_process_group()


def write_beside(
    pairs: Dataset, output_dir: Path, args: SupervisionArguments, estimator: UtilityEstimator, spent: dict[str, Any]
) -> None:
    """Writes what stands beside the query sets, their pairs, a summary, a card and a picture, and says what was mined."""
    summary = summarize_supervision(load_query_sets(output_dir).select(range(args.num_query_sets)))
    summary |= spent | {"num_pairs": len(pairs)}
    write_parquet(pairs, output_dir / "pairs.parquet")
    write_json(output_dir / "summary.json", summary)
    supervision_card(
        settings=read_json(output_dir / SETTINGS_FILE), utility_estimator=estimator, summary=summary
    ).save(output_dir / "README.md")
    if can_draw():
        plot_task_utilities(summary["task_pairs"], output_dir / "task_utilities.png")
    show(
        f"\n{format_supervision(summary)}\n\nWritten to {output_dir}/: query_sets/, pairs.parquet, README.md, "
        f"summary.json{', task_utilities.png' if can_draw() else ''}"
    )
    if not can_draw():
        print(f"task_utilities.png was left out: {NO_PICTURE}")
