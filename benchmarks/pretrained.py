"""Does it pay on a pretrained model, and does a gate know? All methods on target tasks, and some on upstream tasks that were held out.

    recross train --model_name_or_path MODEL --train_files 'upstream/*/train.parquet' --use_peft ... --output_dir upstream-lora
    recross index --model_name_or_path upstream-lora --train_files 'upstream/*/train.parquet' ... --output_dir pipeline
    python benchmarks/pretrained.py --pipeline pipeline --target_tasks 'target/*' --held_out_tasks 'held_out/*' --minutes 120

The cells come in the order of their importance, so that a run that is cut short has answered the first questions; the command given again
goes on, and several at once share the work. `--collect` writes what there is: `results.parquet` and `cells.json` of each part, which
`write_report` and `benchmarks/gate_classifier.py` read. Held-out tasks are to choose settings and a gate on, never targets.

`--parts`, `--methods` and `--query_sets` compute some of it alone, such as the ablations on another machine, whose models as they are and
unvaried methods are computed there, too. A pipeline without an adapter has the methods train new ones of rank 16: what an index is worth without
upstream training.

With `--labelled`, examples of each target itself are learned from in place of retrieved ones, which nobody has: what could be gained at most.
Where the query sets of held-out tasks have references, `answered` retrieves with them: what going without labels costs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import datasets
import transformers
from pretrained_methods import (
    ABLATION_TASKS,
    ALL_SETS,
    ANSWERED,
    CORE,
    GATES,
    IN_CONTEXT,
    NONE,
    OF_OTHER_TASKS,
    OTHERS,
    VARIANTS,
    ablated,
    folders_of,
    is_among,
    labelled,
    lora,
    methods_of,
    varied,
)
from transformers import HfArgumentParser

from recross_hf import Method, ReCrossPipeline, TargetTask, load_target_task
from recross_hf.evaluation.cells import CellKey
from recross_hf.evaluation.collection import collect_results
from recross_hf.evaluation.results import SHARED
from recross_hf.evaluation.run import EvaluationRun, prepare_evaluation
from recross_hf.evaluation.runner import compute_free_cells


@dataclass
class ScriptArguments:
    pipeline: str = field(metadata={"help": "A pipeline of a decoder-only model."})
    target_tasks: list[str] = field(metadata={"help": "Folders of target tasks, or patterns of them."})
    held_out_tasks: list[str] = field(
        default_factory=list,
        metadata={"help": "Folders of upstream tasks that nothing was trained on, as targets are stored."},
    )
    other_tasks: list[str] = field(
        default_factory=list, metadata={"help": "Folders of further target tasks, for fewer methods and query sets."}
    )
    sbert_name_or_path: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2", metadata={"help": "The SentenceTransformer of `sbert`."}
    )
    reranker: str | None = field(
        default=None, metadata={"help": "A reranker that was mined on this model, for `recross`."}
    )
    output_dir: Path = field(default=Path("pretrained"), metadata={"help": "Folder of the cells and the indexes."})
    learning_rate: float = field(
        default=5e-5, metadata={"help": "Learning rate of the adaptations; new adapters of variants have 4 times it."}
    )
    num_retrieved: int = field(default=128, metadata={"help": "|R|."})
    max_input_length: int = field(default=320, metadata={"help": "Tokens that inputs are cut to."})
    num_test: int = field(default=200, metadata={"help": "At most so many test examples of a task."})
    bf16: bool = field(default=False, metadata={"help": "Compute adaptations in bfloat16."})
    parts: list[str] = field(default_factory=list, metadata={"help": "Parts of the comparison; all by default."})
    methods: list[str] = field(
        default_factory=list, metadata={"help": "Methods to compute, variants by their own names; all by default."}
    )
    query_sets: list[int] = field(default_factory=list, metadata={"help": "Query sets to compute; all by default."})
    signals: bool = field(default=True, metadata={"help": "Record what can be said of adaptations without labels."})
    minutes: float = field(default=math.inf, metadata={"help": "Begin no cell after so many minutes."})
    labelled: bool = field(default=False, metadata={"help": "Learn from labelled examples of each target, too."})
    collect: bool = field(default=False, metadata={"help": "Compute nothing; write the results that there are."})


def main() -> None:
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    (script,) = HfArgumentParser(ScriptArguments, allow_abbrev=False).parse_args_into_dataclasses()
    until = time.time() + 60 * script.minutes
    pipeline = ReCrossPipeline.from_pretrained(script.pipeline)
    methods = {method.name: method for method in methods_of(pipeline, script)}
    runs = prepared_runs(methods, pipeline, script)
    if script.collect:
        for name, run in runs.items():
            collect_results(run).save(script.output_dir / name)
        return
    known = {method.name for run in runs.values() for method in run.methods.values()}
    if unknown := [*({*script.parts} - {*runs}), *({*script.methods} - known)]:
        raise SystemExit(
            f"Expected parts among {', '.join(runs)} and methods among {'; '.join(sorted(known))}, found {', '.join(unknown)}."
        )
    for name, some, query_sets in in_order([name for name in runs if name.startswith("labelled/")]):
        if name in runs:
            compute_free_cells(runs[name], wanted_keys(runs[name], script, some, query_sets), until=until)


def wanted_keys(
    run: EvaluationRun, script: ScriptArguments, methods: Sequence[str], query_sets: Sequence[int]
) -> list[CellKey]:
    """The cells of some methods (all where there are none) and query sets that were asked for."""
    wanted: list[CellKey] = run.keys()
    return [
        key
        for key in wanted
        if is_among(key.method, methods) and is_among(key.method, script.methods)
        if key.query_set in query_sets and (key.query_set == SHARED or is_among(key.query_set, script.query_sets))
    ]


def prepared_runs(
    methods: Mapping[str, Method], pipeline: ReCrossPipeline, script: ScriptArguments
) -> dict[str, EvaluationRun]:
    """The parts of the comparison by name, each a folder of cells."""
    targets = tasks_of(script.target_tasks, script.num_test)
    fewer = [methods[name] for name in (NONE, IN_CONTEXT, *OF_OTHER_TASKS) if name in methods]
    gated = [
        replace(varied(methods[name], gate, gate=gate), family=name)
        for name in ("dense", "random")
        for gate in GATES
        if name in methods
    ]
    parts: dict[str, tuple[Sequence[TargetTask], Sequence[Method]]] = {
        "targets": (targets, [method for name, method in methods.items() if name != ANSWERED]),
        "held_out": (tasks_of(script.held_out_tasks, script.num_test), [*methods.values()]),
        "others": (tasks_of(script.other_tasks, script.num_test), fewer),
        "gates": (targets, gated),
        "ablations": (targets[:ABLATION_TASKS], ablated(methods, unvaried=not is_among("targets", script.parts))),
    }
    for task in targets if script.labelled else []:
        parts[f"labelled/{task.name}"] = ([task.limited(None, 1)], labelled(task, script))
    return {
        name: prepared(name, tasks, of_part, pipeline, script, signals=script.signals and name != "gates")
        for name, (tasks, of_part) in parts.items()
        if tasks and of_part and is_among(name, script.parts)
    }


def in_order(labelled_parts: Sequence[str]) -> Iterator[tuple[str, Sequence[str], Sequence[int]]]:
    """Parts of the comparison, methods (all where there are none) and query sets, the most important first."""
    shared = [SHARED]
    yield from (("targets", [NONE], shared), ("others", [NONE], shared), ("held_out", [NONE], shared))
    yield "targets", CORE, [0]
    yield "held_out", CORE, [0]
    yield from ((name, (), [0]) for name in labelled_parts)
    yield "targets", [IN_CONTEXT], shared
    yield "targets", CORE, [1]
    yield "held_out", CORE, [1]
    yield "targets", [*OTHERS, *VARIANTS], [0]
    yield "others", OF_OTHER_TASKS, [0]
    yield "held_out", [ANSWERED], [0]
    yield "targets", CORE, [2]
    yield "gates", (), [0]
    yield "targets", [*OTHERS, *VARIANTS], [1]
    yield "targets", CORE, [3, 4]
    yield "ablations", (), [SHARED, 0]
    yield "held_out", [*CORE, ANSWERED], [2]
    yield from (("others", [IN_CONTEXT], shared), ("held_out", [IN_CONTEXT], shared))
    yield "others", OF_OTHER_TASKS, [1]
    yield "gates", (), [1]
    yield "held_out", [ANSWERED], [1]
    yield "held_out", CORE, [3, 4]
    yield "targets", ["recross", "dense, fast", "dense, rank 1"], [2, 3, 4]
    yield "ablations", (), [1]
    yield "others", OF_OTHER_TASKS, [2]
    yield "held_out", [*OTHERS, *VARIANTS], [0, 1]
    yield "targets", [*OTHERS, *VARIANTS], [2]


def prepared(
    part: str,
    tasks: Sequence[TargetTask],
    methods: Sequence[Method],
    pipeline: ReCrossPipeline,
    script: ScriptArguments,
    *,
    signals: bool = True,
) -> EvaluationRun:
    """A part of the comparison, whose adaptations go on with the pipeline's adapter: 2 epochs of |R| examples in batches of 8.

    Where the pipeline has none, they train new ones.
    """
    if not hasattr(pipeline.upstream_model, "peft_config"):
        methods = [
            replace(method, peft_config=method.peft_config or lora(16))
            if method.retriever and not method.in_context
            else method
            for method in methods
        ]
    settings = {
        "per_device_train_batch_size": 8,
        "num_train_epochs": 2,
        "num_retrieved": script.num_retrieved,
        "max_input_length": script.max_input_length,
        "max_target_length": 24,
        "learning_rate": script.learning_rate,
    }
    settings |= {"bf16": True} if script.bf16 else {}
    return prepare_evaluation(
        pipeline, tasks, methods, script.output_dir / part, settings=settings, on_overlap="drop", signals=signals
    )


def tasks_of(patterns: Sequence[str], num_test: int) -> list[TargetTask]:
    """The tasks in some folders, with so many test examples and their first query sets."""
    return [load_target_task(folder).limited(num_test, ALL_SETS) for folder in folders_of(patterns)]


if __name__ == "__main__":
    main()
