"""What one cell is computed by: adapting, predicting, ranking answer choices."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
from transformers import PrinterCallback

from ..adaptation.results import task_shares
from ..data.conversations import texts_of
from ..models.likelihood import rank_choices
from ..pipeline.pipeline import ReCrossPipeline
from ..retrieval.retriever import Retriever
from .averaging import average_adapters, lora_state
from .cells import CellKey
from .in_context import InContextPrompts, examples_to_show, in_context_prompts, longest_answer
from .run import EvaluationRun, draw_seed
from .signals import recorded_signals
from .tasks import TargetTask

_TOKENS_A_BATCH = 4096
"""Input tokens a batch; an input below k examples counts as 1 + k."""


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
    prompts = InContextPrompts(texts_of(task.test), [], None)
    token_budget = _TOKENS_A_BATCH * (1 + (method.in_context or 0))
    if not method.trains:
        cell |= {"kind": "base", "family": method.family or method.name}
        adapted = copy.copy(run.pipeline)
        adapted.adaptation = run.pipeline.adaptation | content["settings"]["generation"]
        if method.in_context is not None:
            with _timed(seconds, "retrieve"):
                prompts, fields, content["retrieved"] = _below_examples(run, key, adapted)
            cell |= fields
    else:
        with tempfile.TemporaryDirectory() as scratch:
            adapt = _adapt if method.num_adapters == 1 else _adapt_in_parts
            adapted, fields, content["retrieved"] = adapt(run, key, seconds, scratch)
        cell |= fields
    with _timed(seconds, "predict"):
        predictions = adapted(prompts.texts, show_progress=False, token_budget=token_budget)
    with _timed(seconds, "rank"):
        choices = _likeliest_answers(adapted, task, prompts, token_budget)
    return content | {"cell": cell, "predictions": list(map(prompts.cut, predictions)), "choices": choices}


def _adapt_in_parts(
    run: EvaluationRun, key: CellKey, seconds: dict[str, float], scratch: str
) -> tuple[ReCrossPipeline, dict[str, Any], dict[str, list]]:
    """What [`_adapt`] gives, of the mean of adapters that each learned from a part of the query set."""
    number, others, first, cells = run.methods[key.method].num_adapters, [], None, []
    provenance: dict[str, list] = {"id": [], "task": [], "distance": []}
    for part in range(number):
        of_part: dict[str, float] = {}
        adapted, fields, found = _adapt(run, key, of_part, scratch, slice(part, None, number))
        for stage, spent in of_part.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
        cells.append(fields)
        for name, values in found.items():
            provenance[name] += values
        if first is None:
            first = adapted
        else:
            others.append(lora_state(adapted.model))
    assert first is not None
    lora_state(first.model)  # an error where it is none
    first.adapted_model = average_adapters(first.model, others)
    shares = {task: count / len(provenance["task"]) for task, count in Counter(provenance["task"]).most_common()}
    sums = {name: sum(fields[name] for fields in cells) for name in ("num_queries", "num_retrieved")}
    details = {"parts": [fields["details"] for fields in cells]}
    return first, cells[0] | sums | {"retrieved_tasks": shares, "details": details}, provenance


def _adapt(
    run: EvaluationRun, key: CellKey, seconds: dict[str, float], scratch: str, part: slice = slice(None)
) -> tuple[ReCrossPipeline, dict[str, Any], dict[str, list]]:
    """The adapted pipeline, fields of the [`Cell`], and the retrieved examples; of a part of the queries, a part of |R|."""
    method, task = run.methods[key.method], run.tasks[key.task]
    with _timed(seconds, "prepare"):
        arguments, queries = run.arguments_of(key), task.query_sets[key.query_set]
        arguments.output_dir = scratch
        queries = queries.select(range(min(method.num_queries, len(queries)))[part])
        arguments.num_retrieved = -(-arguments.num_retrieved // method.num_adapters)
        retriever = retriever_of(run, key, part.start or 0)
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


def _below_examples(
    run: EvaluationRun, key: CellKey, pipeline: ReCrossPipeline
) -> tuple[InContextPrompts, dict[str, Any], dict[str, list]]:
    """The test inputs below examples in context, fields of the [`Cell`], and the examples."""
    method, task = run.methods[key.method], run.tasks[key.task]
    retriever, inputs, arguments = retriever_of(run, key), texts_of(task.test), pipeline.arguments()
    model, processing_class = pipeline.model, pipeline.processing_class
    queries = None if method.is_shared else texts_of(task.query_sets[key.query_set])[: method.num_queries]
    found = in_context_prompts(
        model,
        processing_class,
        inputs,
        retriever.rows,
        examples_to_show(retriever, inputs, method.in_context or 0, queries),
        max_input_length=arguments.max_input_length,
        max_answer_length=max(arguments.max_target_length, longest_answer(model, processing_class, task.answers)),
    )
    shown = retriever.rows.select(np.asarray([row for rows in found.rows for row in rows], dtype=np.int64))
    places = [place for place, rows in enumerate(found.rows) for _ in rows]
    used = {"num_examples": method.in_context, "per": method.in_context_per, "mean_shown": found.mean_shown}
    fields = {
        "kind": "method",
        "num_queries": None if queries is None else len(queries),
        "retrieved_tasks": task_shares(shown),
        "details": {"in_context": used},
    }
    return found, fields, {"id": shown["id"][:], "task": shown["task"][:], "test_row": places}


def retriever_of(run: EvaluationRun, key: CellKey, part: int = 0) -> Retriever:
    """The retriever of a cell's method, without what is never retrieved for its task; each part of a query set draws its own."""
    retriever = run.methods[key.method].retriever_for(draw_seed(key) + part)
    excluded = run.excluded(run.tasks[key.task])
    if excluded["tasks"] or excluded["ids"]:
        return retriever.excluding(excluded["tasks"], excluded["ids"])
    return retriever


def _likeliest_answers(
    adapted: ReCrossPipeline, task: TargetTask, prompts: InContextPrompts, token_budget: int
) -> list[str | None]:
    """The answer that the model finds most likely, among those that a test example may have; None where they are not known."""
    rows = [row for row, answers in enumerate(task.answers) if answers]
    answers = [task.answers[row] for row in rows]
    places = rank_choices(
        adapted.model,
        adapted.processing_class,
        [prompts.texts[row] for row in rows],
        answers,
        max_input_length=adapted.arguments().max_input_length,
        token_budget=token_budget,
        end=prompts.end,
    )
    choices: list[str | None] = [None] * len(task.answers)
    for row, allowed, place in zip(rows, answers, places, strict=True):
        choices[row] = allowed[place]
    return choices


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
