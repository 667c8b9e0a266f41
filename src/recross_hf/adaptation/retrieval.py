"""The examples that an adaptation learns from: retrieved, and chosen among more where there is something to choose by."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset

from ..core.distributed import agreed
from ..data.conversations import texts_of
from ..mixture.decontamination import source_example
from ..reranking.reranker import Reranker
from ..reranking.selection import SELECTIONS
from ..retrieval.retriever import Retriever
from .arguments import AdaptationArguments

NUM_HELD_OUT = 32
"""Number of further neighbours that the loss is measured on: the standard error of a mean over so many is a sixth of their spread."""
_DEEPER = 4
_ROUNDS = 4


def check_parts(retriever: Any, reranker: Any, peft_config: Any) -> None:
    """Refuses what is passed in place of a part of an adaptation; None is none.

    Raises:
        TypeError: A part is of another class.
    """
    if retriever is not None and not isinstance(retriever, Retriever):
        raise TypeError(
            f"Expected `retriever` to be a Retriever, found {type(retriever).__name__}. For an index, pass "
            "`DenseRetriever(index)`."
        )
    if reranker is not None and not isinstance(reranker, Reranker):
        raise TypeError(
            f"Expected `reranker` to be a Reranker, found {type(reranker).__name__}. Subclass `Reranker` and write "
            "`rank`, or load one with `CrossEncoderReranker.from_pretrained`."
        )
    if peft_config is not None and not hasattr(peft_config, "task_type"):
        raise TypeError(
            f"Expected `peft_config` to be a PeftConfig, found {type(peft_config).__name__}. Make one, e.g. "
            '`LoraConfig(task_type="SEQ_2_SEQ_LM")`.'
        )


def selects(retriever: Retriever, reranker: Reranker | None, args: AdaptationArguments) -> bool:
    """Whether more candidates are retrieved than are learned from."""
    by_task = args.select_by == "task" and retriever.uses_inputs
    return reranker is not None or (by_task and args.upsampling_ratio > 1)


def retrieve_examples(
    inputs: Sequence[str],
    retriever: Retriever,
    reranker: Reranker | None,
    args: AdaptationArguments,
    seconds: dict[str, float],
) -> Dataset:
    """Retrieves |R| upstream examples for unlabelled inputs, the same ones in all processes.

    Args:
        seconds: Wall time by stage, which that of `retrieve` and `rerank` is added to.
    """
    select, has_choice = SELECTIONS[args.select_by], selects(retriever, reranker, args)
    num_candidates = math.ceil(args.upsampling_ratio * args.num_retrieved) if has_choice else args.num_retrieved
    with timed(seconds, "retrieve"):
        retrieved = _agreed(lambda: retriever.retrieve(inputs, num_candidates))
    if reranker is not None:
        with timed(seconds, "rerank"):
            reranked = reranker.rerank_in_processes(inputs, retrieved, args.num_retrieved, select=select)
            return _agreed(lambda: reranked)
    if not has_choice:
        return retrieved
    return select(retrieved, np.zeros(len(retrieved)), args.num_retrieved).remove_columns("score")


def further_neighbours(
    retriever: Retriever, inputs: Sequence[str], learned: Dataset, number: int = NUM_HELD_OUT
) -> Dataset:
    """The first of a retriever's ranking that were not learned from, neither they nor another rendering of their source example.

    Nothing changes in what is learned: of a ranking of which all of the first |R| are learned from, these are the next.

    Args:
        retriever: Retriever that found the learned examples.
        inputs: Query inputs.
        learned: Examples that are learned from.
        number: Number of examples to find, of different source examples; where there are fewer, all are returned.
    """
    known_inputs, known_sources = set(texts_of(learned)), set(map(source_example, learned["id"][:]))
    most = retriever.num_allowed * (len(inputs) if retriever.uses_inputs else 1)
    depth = len(learned) + _DEEPER * number
    for _ in range(_ROUNDS):
        depth = min(depth, most)
        ranked = _agreed(partial(retriever.retrieve, inputs, depth))
        found: dict[str, int] = {}
        seen = set(known_inputs)
        for row, (text, identity) in enumerate(zip(texts_of(ranked), ranked["id"][:], strict=True)):
            source = source_example(identity)
            if text not in seen and source not in known_sources and source not in found and len(found) < number:
                found[source] = row
                seen.add(text)
        if len(found) == number or len(ranked) < depth or depth == most:
            break
        depth *= 2
    return ranked.select([*found.values()])


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds the wall time that is spent within it to that of a stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start


def _agreed(examples: Callable[[], Dataset]) -> Dataset:
    """What the main process finds: rounding must not make two processes train on different examples."""

    def content() -> tuple[dict[str, list[Any]], Any]:
        dataset = examples()
        return dataset.to_dict(), dataset.features

    columns, features = agreed(content)
    return Dataset.from_dict(columns, features=features)
