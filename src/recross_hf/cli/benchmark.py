"""`recross benchmark`: does retrieval pay, and which part of it? Methods x target tasks x query sets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import datasets

from .. import (
    AdaptationArguments,
    LanceIndex,
    Method,
    ReCrossPipeline,
    TargetTask,
    evaluate_methods,
    load_target_task,
    paper_methods,
    read_target_tasks,
    starter_target_task,
    starter_tasks,
    write_report,
)
from ..core.distributed import leave_process_group
from ..core.files import matching
from ..core.output_folders import check_apart, check_not_of_others
from ..evaluation.collection import collect_results
from ..evaluation.methods import (
    ablations,
    build_index_once,
    build_weighted_index_once,
    check_can_read,
    has_weighted_pooling,
)
from ..evaluation.overlaps import HANDLINGS
from ..evaluation.results import CELLS_FILE
from ..evaluation.run import prepare_evaluation
from ..launching.arguments import LauncherArguments
from ..planning.evaluation import plan_evaluation
from .console import is_quiet, show
from .errors import UsageError
from .jobs import run_in_jobs
from .lora import LoraArguments
from .parser import CommandParser

STARTER_QUERY_SETS, STARTER_TEST = 1, 200

DEFAULTS = {"output_dir": "benchmark"}
ABOUT = (
    "Compare methods on target tasks: the model as it is, random examples, BM25, another encoder, dense retrieval, ReCross. Run it again to "
    "continue, several times at once, or with --launcher, to share the work."
)
GROUPS = {
    "What to compare, and where it goes": ["pipeline", "target_tasks", "methods", "ablations", "output_dir"],
    "How much": ["num_queries", "num_query_sets", "num_test", "dry_run"],
    "How": ["use_peft", "on_overlap"],
}


@dataclass
class ScriptArguments:
    """What `recross benchmark` takes beside the arguments of an adaptation."""

    pipeline: str | None = field(
        default=None, metadata={"help": "A pipeline folder, or a name on the Hub; the starter by default."}
    )
    revision: str | None = field(
        default=None, metadata={"help": "Of a pipeline on the Hub: a branch, a tag or a commit."}
    )
    target_tasks: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Folders of target tasks, patterns of them, or YAML files; the starter's unseen tasks by default."
        },
    )
    methods: list[str] = field(
        default_factory=list,
        metadata={
            "help": "none, random, bm25, sbert, dense, recross; all but the first two also with _by_task. Of other papers: rds, sift, "
            "dense_replay, dense_balanced, in_context, in_context_per_task. By default those of ReCross that the pipeline allows."
        },
    )
    num_queries: int = field(default=16, metadata={"help": "|Q|: inputs of a query set to use."})
    num_query_sets: int | None = field(
        default=None,
        metadata={"help": f"Query sets of each task; all by default, {STARTER_QUERY_SETS} of the starter's five."},
    )
    num_test: int | None = field(
        default=None,
        metadata={
            "help": "At most so many test examples of a task, whole source examples, always the same; all by default, "
            f"{STARTER_TEST} of the starter's."
        },
    )
    ablations: list[str] = field(
        default_factory=list, metadata={"help": "Methods to vary: |Q| 1, 8, 32; |R| half and twice as many; mu 3, 4."}
    )
    sbert_name_or_path: str | None = field(
        default=None,
        metadata={"help": "The SentenceTransformer of `sbert`; its index is built below output_dir, once."},
    )
    num_in_context: int = field(
        default=4,
        metadata={
            "help": "k: examples above an input in the methods in_context and in_context_per_task, fewer where they are too long for "
            "--max_input_length."
        },
    )
    on_overlap: str = field(
        default="refuse",
        metadata={"help": "What to do about test examples among the queries or upstream.", "choices": list(HANDLINGS)},
    )
    signals: bool = field(
        default=False,
        metadata={
            "help": "Record what can be said of each adaptation without labels: losses on further neighbours, how answers and their "
            "likelihoods changed."
        },
    )
    dry_run: bool = field(
        default=False,
        metadata={
            "help": "Say what it will take, time, memory and disk, from one cell of each method, and stop; the indexes of `sbert` and `rds` are "
            "kept."
        },
    )


# The steps of a benchmark, one after the other.
def main(argv: Sequence[str]) -> None:
    """Compares methods as the command line says, or says what it will take. Where a cell fails, the exit status is 1."""
    rank = leave_process_group()
    datasets.disable_progress_bars()
    parser = CommandParser(
        "benchmark",
        (ScriptArguments, LauncherArguments, LoraArguments, AdaptationArguments),
        about=ABOUT,
        groups=GROUPS,
        defaults=DEFAULTS,
    )
    said = parser.said(argv)
    script, args = parser.made(ScriptArguments, said), parser.made(AdaptationArguments, said)
    for name in ("num_queries", "num_query_sets", "num_test", "num_in_context"):
        if (number := getattr(script, name)) is not None and number < 1:
            parser.error(f"Expected --{name} of at least 1, found {number}")
    output_dir = args.output_dir or DEFAULTS["output_dir"]
    read = {f"the target task {path.name}": path for pattern in script.target_tasks for path in matching(pattern)}
    check_apart(output_dir, {"the pipeline": script.pipeline, "the encoder": script.sbert_name_or_path, **read})
    check_not_of_others(output_dir, CELLS_FILE)
    in_jobs = run_in_jobs(parser, "benchmark", argv, said, output_dir)
    pipeline = ReCrossPipeline.from_pretrained(script.pipeline, revision=script.revision)
    tasks = target_tasks(script)
    # No defaults: those are the pipeline's.
    own = {argument.name for argument in fields(AdaptationArguments)} - {"output_dir"}
    settings = {name: value for name, value in said.items() if name in own}
    given: dict[str, Any] = {
        "settings": settings,
        "on_overlap": script.on_overlap,
        "signals": script.signals,
        "show_progress": rank == 0 and not is_quiet(),
    }
    methods = methods_of(script, parser.made(LoraArguments, said), output_dir, pipeline, settings)
    if script.dry_run:
        if rank == 0:
            show(str(plan_evaluation(pipeline, tasks, methods, output_dir, **given)))
        return
    if in_jobs:  # what they left undone, they have tried often enough
        del given["show_progress"]
        run = prepare_evaluation(pipeline, tasks, methods, output_dir, **given)
        keys, cells = run.keys(), run.files
        if lost := [key for key in keys if not cells.is_finished(key) and cells.failure(key) is None]:
            raise FileNotFoundError(
                f"Expected each cell in {output_dir}, for a job came to its end, found {len(lost)} of {len(keys)} missing, such as "
                f"{cells.path(lost[0])}. Give the command again."
            )
        results = collect_results(run)
    else:
        results = evaluate_methods(pipeline, tasks, methods, output_dir, **given)
    if rank == 0:
        results.save(output_dir)
        summary = write_report(results, output_dir, title=f"Benchmark of {script.pipeline or 'the starter'}")
        show((Path(output_dir) / "tables" / "main-exact_match.md").read_text(encoding="utf-8"))
        show(f"\n{summary['headline']}\n\nWritten to {output_dir}/: report.html, tables/, figures/, results.parquet")
    failed = [cell for cell in results.cells if cell.error is not None]
    for cell in failed if rank == 0 else []:
        print(f"Failed: {cell.method} on {cell.task}, query set {cell.query_set}: {cell.error}", file=sys.stderr)
    sys.exit(1 if failed else 0)


def target_tasks(script: ScriptArguments) -> list[TargetTask]:
    """The tasks to compare on, with as many query sets and test examples as are asked for."""
    num_sets, num_test = script.num_query_sets, script.num_test
    if script.target_tasks:
        paths = [path for pattern in script.target_tasks for path in matching(pattern) or [Path(pattern)]]
        found = [
            task
            for path in paths
            for task in (read_target_tasks(path) if path.suffix in (".yaml", ".yml") else [load_target_task(path)])
        ]
    else:
        found = [starter_target_task(name) for name in starter_tasks()]
        num_sets, num_test = num_sets or STARTER_QUERY_SETS, num_test or STARTER_TEST
    most = max(len(task.query_sets) for task in found)
    if num_sets is not None and num_sets > most:
        raise UsageError(f"Expected --num_query_sets of at most {most}, as many as the tasks have, found {num_sets}.")
    return [task.limited(num_test, num_sets) for task in found]


def methods_of(
    script: ScriptArguments, lora: LoraArguments, output_dir: str, pipeline: ReCrossPipeline, settings: dict[str, Any]
) -> list[Method]:
    """The methods to compare, and the ablations of some of them."""
    names = script.methods
    if not names:
        words = [] if isinstance(pipeline.index, LanceIndex) else ["bm25"]
        names = ["none", "random", *words, "dense", "dense_by_task"]
        names += ["sbert"] if script.sbert_name_or_path else []
        names += ["recross", "recross_by_task"] if pipeline.reranker is not None else []
    check_can_read(pipeline, names)
    sbert_index = None
    if script.sbert_name_or_path:
        from sentence_transformers import SentenceTransformer

        encoder: Any = SentenceTransformer(script.sbert_name_or_path)
        sbert_index = build_index_once(pipeline.index.dataset, encoder, Path(output_dir) / "sbert")
    indexes = {}
    if "rds" in names and not has_weighted_pooling(pipeline):
        indexes["rds"] = build_weighted_index_once(pipeline, Path(output_dir) / "rds")
    peft_config = lora.config_for(pipeline.upstream_model) if lora.use_peft else None
    methods = paper_methods(
        pipeline,
        names,
        sbert_index=sbert_index,
        indexes=indexes,
        num_queries=script.num_queries,
        upsampling_ratio=settings.get("upsampling_ratio"),
        peft_config=peft_config,
        num_in_context=script.num_in_context,
    )
    by_name = {method.name: method for method in methods}
    unknown = [name for name in script.ablations if name not in by_name]
    if unknown:
        raise UsageError(
            f"Expected methods of the run ({', '.join(by_name)}) as --ablations, found {', '.join(unknown)}. Add them to --methods."
        )
    retrieved = settings.get("num_retrieved") or pipeline.arguments().num_retrieved
    beside = [max(retrieved // 2, 1), 2 * retrieved]  # 256 and 1,024, as the paper has, of its 512
    return methods + [varied for name in script.ablations for varied in ablations(by_name[name], num_retrieved=beside)]
