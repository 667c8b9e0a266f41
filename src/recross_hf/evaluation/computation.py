"""What one cell is computed by: adapting, predicting, ranking answer choices."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from transformers import PrinterCallback

from ..adaptation.results import task_shares
from ..data.conversations import texts_of
from ..models.likelihood import rank_choices
from ..pipeline.pipeline import ReCrossPipeline
from .cells import CellKey
from .run import EvaluationRun, draw_seed
from .signals import recorded_signals
from .tasks import TargetTask


def compute_cell(run: EvaluationRun, key: CellKey) -> dict[str, Any]:
    """Adapts as the cell's method does, and answers the task's test examples.

    Args:
        run: Evaluation that the cell is of.
        key: Name of the cell.

    Returns:
        The content of the cell's file: `settings`, `cell` (fields of [`Cell`]), `predictions`, `choices` (the answer that the model
        finds most likely), and `retrieved` where examples were.
    """
    method, task = run.methods[key.method], run.tasks[key.task]
    content: dict[str, Any] = {"settings": run.settings_of(key)}
    seconds: dict[str, float] = {}
    cell: dict[str, Any] = {"method": key.method, "task": key.task, "query_set": key.query_set, "seconds": seconds}
    if method.retriever is None:
        cell |= {"kind": "base", "family": method.family or method.name}
        adapted = copy.copy(run.pipeline)
        adapted.adaptation = run.pipeline.adaptation | content["settings"]["generation"]
    else:
        with tempfile.TemporaryDirectory() as scratch:
            adapted, fields, content["retrieved"] = _adapt(run, key, seconds, scratch)
        cell |= fields
    with _timed(seconds, "predict"):
        predictions = adapted(texts_of(task.test), show_progress=False)
    with _timed(seconds, "rank"):
        choices = _likeliest_answers(adapted, task)
    return content | {"cell": cell, "predictions": predictions, "choices": choices}


def _adapt(
    run: EvaluationRun, key: CellKey, seconds: dict[str, float], scratch: str
) -> tuple[ReCrossPipeline, dict[str, Any], dict[str, list]]:
    """The adapted pipeline, fields of the [`Cell`], and the retrieved examples."""
    method, task = run.methods[key.method], run.tasks[key.task]
    with _timed(seconds, "prepare"):
        arguments, queries = run.arguments_of(key), task.query_sets[key.query_set]
        arguments.output_dir = scratch
        queries = queries.select(range(min(method.num_queries, len(queries))))
        retriever, excluded = method.retriever_for(draw_seed(key)), run.excluded(task)
        if excluded["tasks"] or excluded["ids"]:
            retriever = retriever.excluding(excluded["tasks"], excluded["ids"])
        adapter = run.pipeline.adapter(
            queries,
            arguments,
            retriever=retriever,
            reranker=run.rerankers.get(id(method.reranker)),
            rerank=method.reranker is not None,
            peft_config=method.peft_config,
        )
        adapter.remove_callback(PrinterCallback)
    retrieved = adapter.retrieve()
    with recorded_signals(adapter, is_on=run.signals) as details, _timed(seconds, "train"):
        adapter.train()
    seconds |= adapter.seconds
    seconds["train"] -= adapter.seconds.get("gate", 0.0)
    fields = {
        "kind": "method",
        "family": method.family or method.name,
        "num_queries": len(queries),
        "num_retrieved": arguments.num_retrieved,
        "upsampling_ratio": arguments.upsampling_ratio if adapter.selects else None,
        "retrieved_tasks": task_shares(retrieved),
        "details": details | ({"gate": asdict(adapter.gate)} if adapter.gate is not None else {}),
    }
    distances = [None if math.isnan(value) else value for value in retrieved["distance"]]
    provenance = {"id": retrieved["id"][:], "task": retrieved["task"][:], "distance": distances}
    return run.pipeline.adapted(adapter), fields, provenance


def _likeliest_answers(adapted: ReCrossPipeline, task: TargetTask) -> list[str | None]:
    """The answer that the model finds most likely, among those that a test example may have; None where they are not known."""
    rows = [row for row, answers in enumerate(task.answers) if answers]
    inputs, answers = texts_of(task.test), [task.answers[row] for row in rows]
    places = rank_choices(
        adapted.model,
        adapted.processing_class,
        [inputs[row] for row in rows],
        answers,
        max_input_length=adapted.arguments().max_input_length,
    )
    choices: list[str | None] = [None] * len(inputs)
    for row, allowed, place in zip(rows, answers, places, strict=True):
        choices[row] = allowed[place]
    return choices


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
