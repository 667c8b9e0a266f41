"""Does it pay on a pretrained model, and does a gate know? All methods on target tasks, and some on upstream tasks that were held out.

    recross train --model_name_or_path MODEL --train_files 'upstream/*/train.parquet' --use_peft ... --output_dir upstream-lora
    recross index --model_name_or_path upstream-lora --train_files 'upstream/*/train.parquet' ... --output_dir pipeline
    python benchmarks/pretrained.py --pipeline pipeline --target_tasks 'target/*' --held_out_tasks 'held_out/*' --minutes 120

The cells come in the order of their importance, so that a run that is cut short has answered the first questions; the command given again
goes on, and several at once share the work. `--collect` writes what there is: `results.parquet` and `cells.json` of each part, which
`write_report` and `benchmarks/gate_classifier.py` read. Held-out tasks are to choose settings and a gate on, never targets.

With `--labelled`, examples of each target itself are learned from in place of retrieved ones, which nobody has: what could be gained at most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import transformers
from datasets import Dataset
from peft import LoraConfig
from sentence_transformers import SentenceTransformer
from transformers import HfArgumentParser

from recross_hf import (
    CrossEncoderReranker,
    Method,
    RandomRetriever,
    ReCrossPipeline,
    TargetTask,
    load_target_task,
    paper_methods,
)
from recross_hf.core.files import matching
from recross_hf.evaluation.collection import collect_results
from recross_hf.evaluation.methods import build_index_once, build_weighted_index_once
from recross_hf.evaluation.results import SHARED
from recross_hf.evaluation.run import EvaluationRun, prepare_evaluation
from recross_hf.evaluation.runner import compute_free_cells

NONE, IN_CONTEXT = "none", "in_context"
CORE = ("random", "bm25", "sbert", "dense", "dense_by_task")
OTHERS = ("rds", "sift", "dense_replay", "recross")
ALL_SETS = 5
FAST, SLOW = 2.0, 0.4  # times the learning rate


@dataclass
class ScriptArguments:
    pipeline: str = field(metadata={"help": "A pipeline of a decoder-only model."})
    target_tasks: list[str] = field(metadata={"help": "Folders of target tasks, or patterns of them."})
    held_out_tasks: list[str] = field(
        default_factory=list,
        metadata={"help": "Folders of upstream tasks that nothing was trained on, as targets are stored."},
    )
    sbert_name_or_path: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2", metadata={"help": "The SentenceTransformer of `sbert`."}
    )
    reranker: str | None = field(
        default=None, metadata={"help": "A reranker that was mined on this model, for `recross`."}
    )
    output_dir: Path = field(default=Path("pretrained"), metadata={"help": "Folder of the cells and the indexes."})
    learning_rate: float = field(default=5e-5, metadata={"help": "Learning rate of the adaptations."})
    num_retrieved: int = field(default=128, metadata={"help": "|R|."})
    max_input_length: int = field(default=320, metadata={"help": "Tokens that inputs are cut to."})
    num_test: int = field(default=200, metadata={"help": "At most so many test examples of a task."})
    bf16: bool = field(default=False, metadata={"help": "Compute adaptations in bfloat16."})
    minutes: float = field(default=math.inf, metadata={"help": "Begin no cell after so many minutes."})
    labelled: bool = field(default=False, metadata={"help": "Learn from labelled examples of each target, too."})
    collect: bool = field(default=False, metadata={"help": "Compute nothing; write the results that there are."})


def main() -> None:
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    (script,) = HfArgumentParser(ScriptArguments, allow_abbrev=False).parse_args_into_dataclasses()
    until = time.time() + 60 * script.minutes
    pipeline = ReCrossPipeline.from_pretrained(script.pipeline)
    targets, held_out = (
        tasks_of(script.target_tasks, script.num_test),
        tasks_of(script.held_out_tasks, script.num_test),
    )
    runs = {"targets": prepared("targets", targets, methods_of(pipeline, script), pipeline, script)}
    if held_out:
        some = [method for method in methods_of(pipeline, script) if method.name in (NONE, IN_CONTEXT, *CORE)]
        runs["held_out"] = prepared("held_out", held_out, some, pipeline, script)
    if script.collect:
        for name, run in runs.items():
            collect_results(run).save(script.output_dir / name)
        return
    for name, methods, query_sets in in_order():
        if name in runs:
            of_run = runs[name].keys()
            keys = [key for key in of_run if key.method in methods and key.query_set in query_sets]
            compute_free_cells(runs[name], keys, until=until)
    for task in targets if script.labelled else []:
        of_task = prepared(
            "labelled", [task.limited(None, 1)], [labelled(task, script.target_tasks)], pipeline, script
        )
        compute_free_cells(of_task, of_task.keys(), until=until)


def in_order() -> Iterator[tuple[str, Sequence[str], Sequence[int]]]:
    """Parts of the comparison, methods and query sets, the most important first."""
    variants = [
        "dense, fast",
        "dense, slow",
        "dense_by_task, fast",
        "dense, 4 x |R|",
        "dense, rank 1",
        "dense, mean of 4",
    ]
    yield "targets", [NONE], [SHARED]
    yield "held_out", [NONE], [SHARED]
    yield "targets", CORE, [0]
    yield "held_out", CORE, [0]
    yield "targets", [IN_CONTEXT], [SHARED]
    yield "targets", CORE, [1]
    yield "held_out", CORE, [1]
    yield "targets", [*OTHERS, *variants], [0]
    yield "targets", CORE, range(2, ALL_SETS)
    yield "held_out", CORE, range(2, ALL_SETS)
    yield "held_out", [IN_CONTEXT], [SHARED]
    yield "targets", [*OTHERS, *variants], [1]


def methods_of(pipeline: ReCrossPipeline, script: ScriptArguments) -> list[Method]:
    """All methods: those of the paper and of others, and variants of two."""
    sbert = build_index_once(
        pipeline.index.dataset, SentenceTransformer(script.sbert_name_or_path), script.output_dir / "sbert"
    )
    weighted = build_weighted_index_once(pipeline, script.output_dir / "rds")
    names = [NONE, *CORE, *(name for name in OTHERS if name != "recross"), IN_CONTEXT]
    found = {
        method.name: method
        for method in paper_methods(pipeline, names, indexes={"sbert": sbert, "rds": weighted}, upsampling_ratio=2.0)
    }
    found[IN_CONTEXT] = replace(found[IN_CONTEXT], settings={"max_input_length": 1024})
    dense, by_task = found["dense"], found["dense_by_task"]
    if script.reranker is not None:
        reranker = CrossEncoderReranker.from_pretrained(script.reranker)
        settings = {"select_by": "example", "upsampling_ratio": 2.0}
        found["recross"] = replace(dense, name="recross", reranker=reranker, settings=settings)
    fast, slow = FAST * script.learning_rate, SLOW * script.learning_rate
    new = {"upstream_adapter": "merge", "learning_rate": 4 * script.learning_rate}
    lora = {
        rank: LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear")
        for rank in (1, 16)
    }
    variants = [
        varied(dense, "fast", learning_rate=fast),
        varied(by_task, "fast", learning_rate=fast),
        varied(dense, "slow", learning_rate=slow),
        varied(dense, "4 x |R|", num_retrieved=4 * script.num_retrieved),
        replace(varied(dense, "rank 1", **new), peft_config=lora[1]),
        replace(varied(dense, "mean of 4", **new), peft_config=lora[16], num_adapters=4),
    ]
    return [*found.values(), *variants]


def varied(method: Method, what: str, **settings: Any) -> Method:
    """A method with other settings."""
    return replace(method, name=f"{method.name}, {what}", settings={**method.settings, **settings}, family=method.name)


def prepared(
    part: str,
    tasks: Sequence[TargetTask],
    methods: Sequence[Method],
    pipeline: ReCrossPipeline,
    script: ScriptArguments,
) -> EvaluationRun:
    """A part of the comparison, whose adaptations go on with the pipeline's adapter: 2 epochs of |R| examples in batches of 8."""
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
        pipeline, tasks, methods, script.output_dir / part, settings=settings, on_overlap="drop", signals=True
    )


def tasks_of(patterns: Sequence[str], num_test: int) -> list[TargetTask]:
    """The tasks in some folders, with so many test examples and their first query sets."""
    folders = [path for pattern in patterns for path in sorted(matching(pattern)) or [Path(pattern)]]
    return [load_target_task(folder).limited(num_test, ALL_SETS) for folder in folders]


def labelled(task: TargetTask, patterns: Sequence[str]) -> Method:
    """Learning from labelled examples of a target, of other source examples than those tested."""
    folders = [path for pattern in patterns for path in matching(pattern) or [Path(pattern)]]
    whole = load_target_task(next(path for path in folders if Path(path).resolve().name == task.name))
    seen = set(task.sources)
    others: Dataset = whole.test.select([row for row, source in enumerate(whole.sources) if source not in seen])
    # Nothing is retrieved from a task of the target's own name.
    named = others.remove_columns("task").add_column("task", [f"{task.name}, labelled"] * len(others))
    return Method("labelled", RandomRetriever(named))


if __name__ == "__main__":
    main()
