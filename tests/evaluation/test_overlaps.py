"""What query sets, test sets and upstream data share."""

import pytest
from datasets import Dataset

from recross_hf import TargetTask, load_examples, load_queries
from recross_hf.evaluation.overlaps import OverlapError, check_overlaps, find_overlaps, without_overlaps


def labelled(*rows):
    names = ("id", "task", "input")
    return load_examples(
        Dataset.from_list([dict(zip(names, row, strict=True)) | {"references": ["x"]} for row in rows])
    )


def target(name="t", queries=("something else",), ids=None):
    test = labelled(*((f"{name}|test|one|#{row}", name, f"Is {word} good?") for row, word in enumerate("klmn")))
    rows = [{"input": text} | ({"id": ids[row]} if ids else {}) for row, text in enumerate(queries)]
    return TargetTask(name, test, [load_queries(Dataset.from_list(rows), task="other")])


UPSTREAM = labelled(("u/0", "u", "Is z good?"), ("u/1", "u", "is K, good"), ("u/2", "v", "Is y good?"))


def test_sound_data_have_none():
    found = find_overlaps([target()], [labelled(("u/0", "u", "Is z good?"))])
    assert found["t"].to_json("refuse") == {
        "test_in_queries": 0,
        "upstream_in_test": 0,
        "upstream_examples": {},
        "target_task_excluded_from_upstream": False,
        "handling": "refuse",
    }
    check_overlaps(found, [target()])


def test_queries_in_the_test_set_are_found_by_words_and_by_source_example():
    task = target(queries=["IS L GOOD", "new", "newer"], ids=["q/0", "t|test|two|#3", "q/2"])
    found = find_overlaps([task], [])
    assert found["t"].test_in_queries == (1, 3)
    with pytest.raises(OverlapError, match=r"t: 2 of 4 test examples in query sets: 't\|test\|one\|#1'") as error:
        check_overlaps(found, [task])
    assert "on_overlap='drop'" in str(error.value)
    assert without_overlaps(task, found["t"]).test["input"][:] == ["Is k good?", "Is m good?"]
    with pytest.raises(OverlapError, match="all 4 test examples are queries"):
        everything = target(queries=[f"Is {word} good?" for word in "klmn"])
        without_overlaps(everything, find_overlaps([everything], [])["t"])


def test_the_message_counts_all_overlaps_and_shows_some():
    task = target(queries=[f"Is {word} good?" for word in "klmn"])
    upstream = labelled(*((f"u/{word}", "u", f"is {word} good") for word in "klmn"))
    with pytest.raises(OverlapError) as error:
        check_overlaps(find_overlaps([task], [upstream]), [task])
    assert "t: 4 of 4 test examples in query sets: 't|test|one|#0', 't|test|one|#1', 't|test|one|#2', ..." in str(
        error.value
    )
    assert "t: 4 upstream examples in the test set: u/k = exact: t|test|one|#0;" in str(error.value)
    assert "u/m = exact: t|test|one|#2; ..." in str(error.value)


def test_test_examples_upstream_are_found_for_each_task_that_has_them():
    tasks = [target("t"), target("s"), target("u")]
    found = find_overlaps(tasks, [UPSTREAM])
    assert found["t"].upstream_in_test == {"u/1": "exact: t|test|one|#0"}
    assert found["s"].upstream_in_test == {"u/1": "exact: s|test|one|#0"}
    # Its own examples are not retrieved.
    assert found["u"].upstream_in_test == {}
    assert [overlaps.is_upstream for overlaps in found.values()] == [False, False, True]
    with pytest.raises(OverlapError, match=r"t: 1 upstream examples in the test set: u/1 = exact: t\|test\|one\|#0"):
        check_overlaps(found, tasks)


def test_all_data_sets_to_retrieve_from_are_looked_at():
    found = find_overlaps([target()], [labelled(("w/0", "w", "x")), UPSTREAM])
    assert list(found["t"].upstream_in_test) == ["u/1"]
