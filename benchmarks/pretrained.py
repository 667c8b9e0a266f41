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
from typing import Any

import datasets
import pyarrow.parquet as pq
import transformers
from datasets import Dataset
from peft import LoraConfig
from sentence_transformers import SentenceTransformer
from transformers import HfArgumentParser

from recross_hf import (
    CrossEncoderReranker,
    MeanPooledEncoder,
    Method,
    RandomRetriever,
    ReCrossPipeline,
    TargetTask,
    load_target_task,
    paper_methods,
)
from recross_hf.core.files import matching
from recross_hf.evaluation.cells import CellKey
from recross_hf.evaluation.collection import collect_results
from recross_hf.evaluation.methods import ablations, build_index_once, build_weighted_index_once
from recross_hf.evaluation.results import SHARED
from recross_hf.evaluation.run import EvaluationRun, prepare_evaluation
from recross_hf.evaluation.runner import compute_free_cells
from recross_hf.retrieval.answered import AnsweredRetriever, with_answers

NONE, IN_CONTEXT, ANSWERED = "none", "in_context", "answered"
CORE = ("random", "bm25", "sbert", "dense", "dense_by_task")
OTHERS = ("recross", "rds", "weighted", "sift", "dense_replay")
VARIANTS = (
    "dense, fast",
    "dense, slow",
    "dense_by_task, fast",
    "dense, 4 x |R|",
    "dense, rank 1",
    "dense, mean of 4",
)
GATES = ("form", "strict")
OF_OTHER_TASKS = ("random", "dense", "dense_by_task")
ALL_SETS, ABLATION_TASKS = 5, 4
FAST, SLOW = 2.0, 0.4  # times the learning rate


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
            f"Expected parts among {', '.join(runs)} and methods among {', '.join(sorted(known))}, found {', '.join(unknown)}."
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
    some = [methods[name] for name in (NONE, IN_CONTEXT, *CORE, ANSWERED) if name in methods]
    fewer = [method for method in some if method.name in (NONE, IN_CONTEXT, *OF_OTHER_TASKS)]
    gated = [
        replace(varied(methods[name], gate, gate=gate), family=name)
        for name in ("dense", "random")
        for gate in GATES
        if name in methods
    ]
    parts: dict[str, tuple[Sequence[TargetTask], Sequence[Method]]] = {
        "targets": (targets, [method for name, method in methods.items() if name != ANSWERED]),
        "held_out": (tasks_of(script.held_out_tasks, script.num_test), some),
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


def ablated(methods: Mapping[str, Method], *, unvaried: bool) -> list[Method]:
    """Variants of |Q| of dense retrieval and mu of ReCross, and what they vary where that is computed nowhere else."""
    found = [methods[name] for name in (NONE, "dense", "recross") if name in methods and unvaried]
    found += ablations(methods["dense"], num_retrieved=())
    if "recross" in methods:
        found += ablations(methods["recross"], num_queries=(), num_retrieved=())
    return found


def is_among(one: Any, some: Sequence[Any]) -> bool:
    """Whether it is one of some, where none stands for all."""
    return not some or one in some


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


def methods_of(pipeline: ReCrossPipeline, script: ScriptArguments) -> list[Method]:
    """The methods to compute: those of the paper and of others, and variants of two."""
    names = [NONE, *CORE, *(name for name in OTHERS if name != "recross"), IN_CONTEXT]
    varied_ones = ("dense", "dense_by_task")
    wanted = [name for name in names if name in varied_ones or is_among(name, script.methods)]
    indexes = {}
    if "sbert" in wanted:
        sbert = SentenceTransformer(script.sbert_name_or_path)
        indexes["sbert"] = build_index_once(pipeline.index.dataset, sbert, script.output_dir / "sbert")
    if weighted := [name for name in wanted if name in ("rds", "weighted")]:
        indexes |= dict.fromkeys(weighted, build_weighted_index_once(pipeline, script.output_dir / "rds"))
    found = {method.name: method for method in paper_methods(pipeline, wanted, indexes=indexes, upsampling_ratio=2.0)}
    if is_among(ANSWERED, script.methods) and (answers := answers_of_queries(script.held_out_tasks)):
        upstream = pipeline.index.dataset
        encoder = MeanPooledEncoder(pipeline.upstream_model, pipeline.processing_class)
        index = build_index_once(with_answers(upstream), encoder, script.output_dir / "answered")
        found[ANSWERED] = replace(found["dense"], name=ANSWERED, retriever=AnsweredRetriever(index, upstream, answers))
    if IN_CONTEXT in found:
        found[IN_CONTEXT] = replace(found[IN_CONTEXT], settings={"max_input_length": 1024})
    dense, by_task = (found[name] for name in varied_ones)
    if script.reranker is not None:
        reranker = CrossEncoderReranker.from_pretrained(script.reranker)
        settings = {"select_by": "example", "upsampling_ratio": 2.0}
        found["recross"] = replace(dense, name="recross", reranker=reranker, settings=settings)
    fast, slow = FAST * script.learning_rate, SLOW * script.learning_rate
    new = {"upstream_adapter": "merge", "learning_rate": 4 * script.learning_rate}
    variants = [  # VARIANTS
        varied(dense, "fast", learning_rate=fast),
        varied(by_task, "fast", learning_rate=fast),
        varied(dense, "slow", learning_rate=slow),
        varied(dense, "4 x |R|", num_retrieved=4 * script.num_retrieved),
        replace(varied(dense, "rank 1", **new), peft_config=lora(1)),
        replace(varied(dense, "mean of 4", **new), peft_config=lora(16), num_adapters=4),
    ]
    return [*found.values(), *variants]


def varied(method: Method, what: str, **settings: Any) -> Method:
    """A method with other settings."""
    return replace(method, name=f"{method.name}, {what}", settings={**method.settings, **settings}, family=method.name)


def lora(rank: int) -> LoraConfig:
    """An adapter on all linear layers."""
    return LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear")


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


def folders_of(patterns: Sequence[str]) -> list[str | Path]:
    """The folders that some patterns name."""
    return [path for pattern in patterns for path in sorted(matching(pattern)) or [Path(pattern)]]


def answers_of_queries(patterns: Sequence[str]) -> dict[str, str]:
    """The first reference of each query that has one."""
    found: dict[str, str] = {}
    for file in (file for folder in folders_of(patterns) for file in sorted(Path(folder).glob("query-*.parquet"))):
        if "outputs" in pq.read_schema(file).names:
            queries = pq.read_table(file, columns=["input", "outputs"]).to_pydict()
            found |= {text: accepted[0] for text, accepted in zip(*queries.values(), strict=True) if accepted}
    return found


def labelled(task: TargetTask, script: ScriptArguments) -> list[Method]:
    """Learning from labelled examples of a target, of other source examples than those tested, at two rates."""
    whole = load_target_task(
        next(path for path in folders_of(script.target_tasks) if Path(path).resolve().name == task.name)
    )
    seen = set(task.sources)
    others: Dataset = whole.test.select([row for row, source in enumerate(whole.sources) if source not in seen])
    # Nothing is retrieved from a task of the target's own name.
    named = others.remove_columns("task").add_column("task", [f"{task.name}, labelled"] * len(others))
    rates = {"labelled": 1.0, "labelled, fast": 4.0}
    return [
        Method(name, RandomRetriever(named), settings={"learning_rate": times * script.learning_rate})
        for name, times in rates.items()
    ]


if __name__ == "__main__":
    main()
