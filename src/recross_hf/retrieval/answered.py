"""Retrieval by inputs with their answers: what labelled queries would add (an ablation, for the method's queries have no labels)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from ..core.hashing import digest_of
from ..data.schema import MESSAGES, ids_hash
from .aggregation import Aggregation, interleave
from .index import UpstreamIndex
from .retriever import DenseRetriever
from .upstream_rows import RowsInMemory
from .vector_shards import IndexMismatchError


def with_answers(examples: Dataset) -> Dataset:
    """The same examples with "input, line break, first reference" as their inputs, for an index of both.

    Args:
        examples: Examples with references; the turns of conversations give way to their text.
    """
    texts = [
        _answered(text, accepted[0])
        for text, accepted in zip(examples["input"][:], examples["references"][:], strict=True)
    ]
    turns = [name for name in (MESSAGES,) if name in examples.column_names]
    columns = examples.remove_columns(["input", *turns])
    found = columns.add_column("input", texts, feature=examples.features["input"])
    return found.select_columns([name for name in examples.column_names if name not in turns])


class AnsweredRetriever(DenseRetriever):
    """Nearest neighbours by input and answer, of queries whose answers are known.

    ```python
    index = UpstreamIndex.build(with_answers(upstream), encoder, "index_with_answers")
    AnsweredRetriever(index, upstream, dict(zip(inputs, answers))).retrieve(inputs, num_retrieved=512)
    ```

    Args:
        index: Index of the examples [`with_answers`].
        upstream: The examples as they are, which are what is retrieved.
        answers: Answers of the query inputs.
        aggregation: Function that makes one ranking of the hits of several inputs.
        exclude_tasks: Tasks never to retrieve from.
        exclude_ids: Examples never to retrieve.

    Raises:
        IndexMismatchError: `upstream` has other ids than the index.
    """

    is_dense = False  # a reranker was trained on hits of inputs alone

    def __init__(
        self,
        index: UpstreamIndex,
        upstream: Dataset,
        answers: Mapping[str, str],
        *,
        aggregation: Aggregation = interleave,
        exclude_tasks: Collection[str] = (),
        exclude_ids: Collection[str] = (),
    ) -> None:
        super().__init__(index, aggregation=aggregation, exclude_tasks=exclude_tasks, exclude_ids=exclude_ids)
        if ids_hash(upstream) != ids_hash(index.dataset):
            raise IndexMismatchError(
                f"Expected the {len(index)} examples that the index was built of, without their answers, found {len(upstream)} with other "
                "ids. Pass the data set that `with_answers` was given."
            )
        self.rows, self.answers = RowsInMemory(upstream, self.allowed), dict(answers)

    def identity(self) -> dict[str, Any]:
        """The identity of the base class, and a hash of the answers."""
        return super().identity() | {"answers": str(digest_of(sorted(self.answers.items())))}

    def encode(self, inputs: Sequence[str]) -> np.ndarray:
        """The vectors of query inputs with their answers `[n, d]`.

        Raises:
            ValueError: The answer of an input is not known, or a vector is not finite.
        """
        unknown = [text for text in inputs if text not in self.answers]
        if unknown:
            raise ValueError(
                f"Expected an answer of each query input, found none of {len(unknown)} such as {unknown[0][:60]!r}. Add it to `answers`."
            )
        return super().encode([_answered(text, self.answers[text]) for text in inputs])


def _answered(text: str, answer: str) -> str:
    return f"{text}\n{answer}"
