"""The methods that `benchmarks/pretrained.py` compares: those of the paper, of others, variants of two, and labelled examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from datasets import Dataset
from peft import LoraConfig
from sentence_transformers import SentenceTransformer

from recross_hf import (
    BalancedRetriever,
    CrossEncoderReranker,
    MeanPooledEncoder,
    Method,
    MixedRetriever,
    RandomRetriever,
    ReCrossPipeline,
    TargetTask,
    load_target_task,
    paper_methods,
)
from recross_hf.core.files import matching
from recross_hf.evaluation.methods import ablations, build_index_once, build_weighted_index_once
from recross_hf.retrieval.answered import AnsweredRetriever, with_answers

if TYPE_CHECKING:
    from pretrained import ScriptArguments

NONE, IN_CONTEXT, ANSWERED = "none", "in_context", "answered"
CORE = ("random", "bm25", "sbert", "dense", "dense_by_task")
OTHERS = ("recross", "rds", "weighted", "sift", "dense_replay", "dense_balanced")
VARIANTS = (
    "dense, fast",
    "dense, slow",
    "dense_by_task, fast",
    "dense, 4 x |R|",
    "dense, rank 1",
    "dense, mean of 4",
    "dense, tasks in turn",
    "dense, balanced replay",
)
GATES = ("form", "strict")
OF_OTHER_TASKS = ("random", "dense", "dense_by_task")
ALL_SETS, ABLATION_TASKS = 5, 4
FAST, SLOW = 2.0, 0.4  # times the learning rate


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
        replace(varied(dense, "tasks in turn"), retriever=BalancedRetriever(dense.retriever, equal_tasks=True)),
        replace(
            varied(dense, "balanced replay"),
            retriever=lambda seed: MixedRetriever(BalancedRetriever(dense.retriever), seed=seed),
        ),
    ]
    return [*found.values(), *variants]


def varied(method: Method, what: str, **settings: Any) -> Method:
    """A method with other settings."""
    return replace(method, name=f"{method.name}, {what}", settings={**method.settings, **settings}, family=method.name)


def ablated(methods: Mapping[str, Method], *, unvaried: bool) -> list[Method]:
    """Variants of |Q| of dense retrieval and mu of ReCross, and what they vary where that is computed nowhere else."""
    found = [methods[name] for name in (NONE, "dense", "recross") if name in methods and unvaried]
    found += ablations(methods["dense"], num_retrieved=())
    if "recross" in methods:
        found += ablations(methods["recross"], num_queries=(), num_retrieved=())
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


def lora(rank: int) -> LoraConfig:
    """An adapter on all linear layers."""
    return LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear")


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


def is_among(one: Any, some: Sequence[Any]) -> bool:
    """Whether it is one of some, where none stands for all."""
    return not some or one in some
