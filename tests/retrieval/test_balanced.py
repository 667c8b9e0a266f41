"""Answers of each upstream task in turn."""

import re
from collections import Counter

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from recross_hf import BalancedRetriever, BM25Retriever, DenseRetriever, MixedRetriever, RandomRetriever
from recross_hf.retrieval.balanced import in_turn

ANSWERS = {"weather": ["Yes"] * 9 + ["no"] * 3, "names": [f"name {row}" for row in range(12)]}


@pytest.fixture
def leaning():
    rows = [(f"{task}/{row}", task, answer) for task, answers in ANSWERS.items() for row, answer in enumerate(answers)]
    ids, tasks, answers = zip(*rows, strict=True)
    # The shorter a text is, the better BM25 finds it: the rows of a task come in their order.
    inputs = [f"is it {task}?" + " really" * int(name.split("/")[1]) for name, task in zip(ids, tasks, strict=True)]
    return Dataset.from_dict(
        {"id": list(ids), "task": list(tasks), "input": inputs, "references": [[answer] for answer in answers]}
    )


def test_the_answers_of_a_task_are_taken_in_turn(leaning):
    bm25 = BM25Retriever(leaning)
    plain = bm25.retrieve(["weather"], 6)
    assert [answers[0] for answers in plain["references"][:]] == ["Yes"] * 6
    found = BalancedRetriever(bm25).retrieve(["weather"], 6)
    assert Counter(answers[0] for answers in found["references"][:]) == {"Yes": 3, "no": 3}
    assert found["id"][:3] == plain["id"][:3]  # each answer's best come first
    assert found["distance"][:] == sorted(found["distance"][:])


def test_where_all_answers_differ_nothing_changes(leaning):
    bm25 = BM25Retriever(leaning)
    assert BalancedRetriever(bm25).retrieve(["names"], 6)["id"][:] == bm25.retrieve(["names"], 6)["id"][:]


def test_repetitions_give_way_to_other_answers(index, queries):
    dense = DenseRetriever(index)
    plain, found = dense.retrieve([queries[0]] * 4, 16), BalancedRetriever(dense).retrieve([queries[0]] * 4, 16)
    assert len({*plain["id"][:]}) == 4 < len({*found["id"][:]})
    same = BalancedRetriever(dense, pool=1).retrieve([queries[0]] * 4, 16)
    assert same["id"][:] == plain["id"][:]  # nothing to choose among


def test_an_example_without_references_has_an_answer_of_its_own(leaning):
    rows = leaning.to_dict()
    rows["references"][3] = []
    bm25 = BM25Retriever(Dataset.from_dict(rows, features=leaning.features))
    found = BalancedRetriever(bm25).retrieve(["weather"], 6)
    assert Counter((*answers, "")[0] for answers in found["references"][:]) == {"Yes": 3, "no": 2, "": 1}


def test_what_is_mixed_is_balanced_first(leaning):
    bm25 = BM25Retriever(leaning)
    mixed = MixedRetriever(BalancedRetriever(bm25), share=0.5, seed=0).retrieve(["weather"], 8)
    assert (mixed["query"][:].count(-1), mixed["query"][:].count(0)) == (4, 4)
    with pytest.raises(TypeError, match=re.escape("found a MixedRetriever")):
        BalancedRetriever(MixedRetriever(bm25))


def test_whether_inputs_decide_is_as_below(leaning):
    bm25, drawn = BM25Retriever(leaning), RandomRetriever(leaning, seed=0)
    assert BalancedRetriever(bm25).uses_inputs and MixedRetriever(bm25).uses_inputs
    assert not BalancedRetriever(drawn).uses_inputs and not MixedRetriever(bm25, share=1).uses_inputs


def test_tasks_keep_their_numbers_or_have_equal_ones(leaning):
    bm25, inputs = BM25Retriever(leaning), ["weather", "weather", "weather", "names"]

    def of_tasks(retriever):
        return Counter(retriever.retrieve(inputs, 8)["task"][:])

    assert of_tasks(BalancedRetriever(bm25)) == of_tasks(bm25) == {"weather": 6, "names": 2}
    assert of_tasks(BalancedRetriever(bm25, equal_tasks=True)) == {"weather": 4, "names": 4}


def test_what_is_excluded_stays_out(index, queries):
    balanced = BalancedRetriever(DenseRetriever(index, exclude_tasks=["sum"]))
    found = balanced.excluding(["colour"], ["sentiment/0"]).retrieve(queries, 16)
    assert {*found["task"][:]} <= {"sentiment", "opposite"} and "sentiment/0" not in found["id"][:]
    assert len(found) == 16


def test_a_pool_of_less_than_what_is_retrieved(index):
    with pytest.raises(
        ValueError, match=re.escape("a `pool` of at least 1 times the examples to retrieve, found 0.5")
    ):
        BalancedRetriever(DenseRetriever(index), pool=0.5)
    one, other = BalancedRetriever(DenseRetriever(index)), BalancedRetriever(DenseRetriever(index), equal_tasks=True)
    assert one.identity() != other.identity()
    assert one.identity() == BalancedRetriever(DenseRetriever(index), pool=4).identity()


@given(st.lists(st.sampled_from("abc")))
def test_turns_lose_nothing_and_differ_by_one(groups):
    order = in_turn(range(len(groups)), groups)
    assert sorted(order) == list(range(len(groups)))
    for count in range(len(order) + 1):
        taken, left = (Counter(groups[item] for item in some) for some in (order[:count], order[count:]))
        # No group is two ahead of one that has items left.
        assert all(taken[group] >= max(taken.values(), default=0) - 1 for group in left)
