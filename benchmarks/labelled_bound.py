"""What could an adaptation give at most? The same steps on labelled examples of the target task itself.

    python benchmarks/labelled_bound.py --pipeline bart0-pipeline --target_tasks 'target/*' --num_test 100 --learning_rate 1e-4

A diagnosis, not a method: nobody has these labels. |R| examples of other source examples than those tested are drawn at random and
learned from as retrieved ones are. Where this gains and retrieval does not, what is retrieved is at fault; where it gains nothing
either, it is the model or the steps. All arguments of an adaptation can be given. One query set a task.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import transformers
from datasets import Dataset
from peft import LoraConfig
from transformers import HfArgumentParser

from recross_hf import (
    AdaptationArguments,
    Method,
    RandomRetriever,
    ReCrossPipeline,
    TargetTask,
    evaluate_methods,
    load_target_task,
)
from recross_hf.core.files import matching, write_json
from recross_hf.core.statistics import paired_interval
from recross_hf.core.tables import format_table
from recross_hf.models.architectures import architecture_of

METRICS = ("exact_match", "soft_em")
BASE, LABELLED = "none", "labelled"


@dataclass
class ScriptArguments:
    pipeline: str = field(metadata={"help": "A pipeline folder."})
    target_tasks: list[str] = field(metadata={"help": "Folders of target tasks, or patterns of them."})
    num_test: int = field(default=100, metadata={"help": "At most so many test examples, whole source examples."})
    lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "Train a LoRA adapter of rank 16 on these modules in place of all weights."}
    )
    output: Path = field(default=Path("benchmarks/results/labelled_bound.json"), metadata={"help": "Raw data."})


def main() -> None:
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    parser = HfArgumentParser((ScriptArguments, AdaptationArguments), allow_abbrev=False)
    parser.set_defaults(output_dir="labelled_bound")
    script, args = parser.parse_args_into_dataclasses()
    pipeline = ReCrossPipeline.from_pretrained(script.pipeline)
    peft_config = None
    if script.lora_target_modules:
        task_type = architecture_of(pipeline.upstream_model).peft_task_type
        peft_config = LoraConfig(task_type=task_type, r=16, lora_alpha=32, target_modules=script.lora_target_modules)
    settings = _given(args)
    found: dict[str, dict[str, list]] = {}
    for folder in (path for pattern in script.target_tasks for path in matching(pattern) or [pattern]):
        task = load_target_task(folder)
        tested = task.limited(script.num_test, 1)
        labelled = Method(LABELLED, RandomRetriever(_others(task, tested)), peft_config=peft_config)
        results = evaluate_methods(
            pipeline, [tested], [Method(BASE), labelled], args.output_dir, settings=settings, on_overlap="drop"
        )
        rows = results.predictions.to_pandas()
        found[task.name] = {"sources": rows[rows.method == BASE].source.tolist()} | {
            f"{method}, {metric}": rows[rows.method == method][metric].astype(int).tolist()
            for metric in METRICS
            for method in (BASE, LABELLED)
        }
    header = [f"{method}, {metric}" for metric in METRICS for method in (BASE, LABELLED)]
    rows = [[name, *(f"{100 * np.mean(of[column]):.1f}" for column in header)] for name, of in found.items()]
    means = [f"{100 * np.mean([np.mean(of[column]) for of in found.values()]):.1f}" for column in header]
    print(format_table(["task", *header], [*rows, ["mean", *means]]))
    clusters = [np.unique(of["sources"], return_inverse=True)[1] for of in found.values()]
    for metric in METRICS:
        differences = [
            np.subtract(of[f"{LABELLED}, {metric}"], of[f"{BASE}, {metric}"])[None] for of in found.values()
        ]
        interval = paired_interval(differences, clusters=clusters)
        low, high = 100 * interval.low, 100 * interval.high
        print(
            f"{metric}: {LABELLED} - {BASE} {100 * interval.mean:+.1f} points, 95 % interval [{low:+.1f}, {high:+.1f}]"
        )
    write_json(script.output, {"settings": settings, "num_test": script.num_test, "found": found})


def _others(task: TargetTask, tested: TargetTask) -> Dataset:
    """The examples of other source examples, under another name: from a task of the target's own, nothing is retrieved."""
    seen = set(tested.sources)
    others = task.test.select([row for row, source in enumerate(task.sources) if source not in seen])
    return others.remove_columns("task").add_column("task", [f"{task.name}, labelled"] * len(others))


def _given(args: AdaptationArguments) -> dict[str, Any]:
    """The arguments that are not the defaults."""
    default = AdaptationArguments(output_dir=args.output_dir)
    return {
        one.name: getattr(args, one.name)
        for one in fields(args)
        if one.init and getattr(args, one.name) != getattr(default, one.name)
    }


if __name__ == "__main__":
    main()
