from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from recross_hf.reranking.selection import SELECTIONS, by_example, by_task


def candidates(*tasks):
    rows = range(len(tasks))
    return Dataset.from_dict({"id": [f"c{row}" for row in rows], "task": list(tasks), "rank": list(rows)})


def test_examples_compete_one_by_one_and_ties_keep_their_order():
    kept = by_example(candidates("a", "b", "a", "b"), np.array([1.0, 3.0, 1.0, -2.0]), 3)
    assert kept["id"][:] == ["c1", "c0", "c2"]
    assert kept["rank"][:] == [0, 1, 2]
    assert kept["score"][:] == [3.0, 1.0, 1.0]


def test_without_scores_tasks_are_chosen_by_vote_and_examples_stay_in_their_order():
    kept = by_task(candidates("a", "b", "c", "b", "c", "b"), np.zeros(6), 4)
    assert kept["id"][:] == ["c1", "c3", "c5", "c2"]
    assert kept["rank"][:] == [0, 1, 2, 3]


def test_a_reranker_can_overrule_the_vote_but_not_with_one_example():
    found = candidates("a", "a", "a", "b", "b", "c")
    scores = np.array([-2.0, -2.0, -2.0, 1.0, 1.0, 50.0])
    # The weights: 0.36 of a, 1.46 of b, 1.0 of c.
    assert by_task(found, scores, 6)["task"][:] == ["b", "b", "c", "a", "a", "a"]


def test_tasks_of_equal_weight_come_as_they_were_retrieved():
    assert by_task(candidates("z", "a", "a", "z"), np.zeros(4), 2)["task"][:] == ["z", "z"]


@pytest.mark.parametrize("select", SELECTIONS.values())
def test_more_than_there_are_can_be_asked_for(select):
    assert select(candidates("a", "a"), np.array([0.0, 0.0]), 5)["id"][:] == ["c0", "c1"]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(-50, 50)), min_size=1, max_size=40), st.integers(1, 40))
def test_only_the_last_task_is_cut(rows, num_kept):
    tasks, scores = [task for task, _ in rows], np.array([score for _, score in rows])
    kept = by_task(candidates(*tasks), scores, num_kept)
    assert len(kept) == min(num_kept, len(rows))
    order = list(dict.fromkeys(kept["task"][:]))
    assert kept["task"][:] == sorted(kept["task"][:], key=order.index)
    counts = Counter(kept["task"][:])
    for task in order[:-1]:
        assert counts[task] == tasks.count(task)
    for task in order:
        places = [int(name[1:]) for name, of in zip(kept["id"][:], kept["task"][:], strict=True) if of == task]
        assert places == [place for place, of in enumerate(tasks) if of == task][: len(places)]
    weights = {task: sum(1 / (1 + np.exp(-score)) for of, score in rows if of == task) for task in set(tasks)}
    assert all(weights[one] >= weights[two] * (1 - 1e-9) for one, two in pairwise(order))
    assert all(weights[order[-1]] >= weights[task] * (1 - 1e-9) for task in set(tasks) - set(order))
