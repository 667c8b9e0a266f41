"""Retrieval by inputs with their answers."""

import numpy as np
import pytest

from recross_hf import UpstreamIndex
from recross_hf.retrieval.answered import AnsweredRetriever, with_answers
from recross_hf.retrieval.vector_shards import IndexMismatchError


@pytest.fixture(scope="module")
def answered_index(examples, encoder, tmp_path_factory):
    return UpstreamIndex.build(with_answers(examples), encoder, tmp_path_factory.mktemp("answered"))


def test_examples_are_found_by_input_and_answer_and_come_without(answered_index, examples, encoder, queries):
    answers = dict(zip(queries, ["yes", "green", "seven", "cold"][: len(queries)] * len(queries), strict=False))
    found = AnsweredRetriever(answered_index, examples, answers, exclude_tasks=["sum"]).retrieve(queries, 8)
    by_id = dict(zip(examples["id"][:], examples["input"][:], strict=True))
    assert found["input"][:] == [by_id[name] for name in found["id"][:]]
    texts = [
        f"{text}\n{accepted[0]}"
        for text, accepted in zip(examples["input"][:], examples["references"][:], strict=True)
    ]
    vectors = encoder.encode([f"{text}\n{answers[text]}" for text in queries])
    distances = ((vectors[:, None] - encoder.encode(texts)[None]) ** 2).sum(axis=2)
    distances[:, np.array(examples["task"][:]) == "sum"] = np.inf
    nearest = [examples["id"][int(row)] for row in distances.argmin(axis=1)]
    assert found["id"][: len(queries)] == nearest


def test_the_columns_are_those_of_the_examples(examples):
    found = with_answers(examples)
    assert found.features == examples.select_columns(found.column_names).features
    assert found["id"][:] == examples["id"][:] and found["references"][:] == examples["references"][:]


def test_what_does_not_belong_together_is_refused(answered_index, examples, queries):
    with pytest.raises(IndexMismatchError, match="Expected the 48 examples that the index was built of"):
        AnsweredRetriever(answered_index, examples.select(range(9)), {})
    retriever = AnsweredRetriever(answered_index, examples, {queries[0]: "yes"})
    with pytest.raises(ValueError, match="Expected an answer of each query input, found none of 1 such as 'x'"):
        retriever.retrieve([queries[0], "x"], 2)
    assert retriever.identity() != AnsweredRetriever(answered_index, examples, {queries[0]: "no"}).identity()
