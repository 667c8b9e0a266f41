"""Answer sets, scores, and the floors that need no model."""

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from recross_hf.data.schema import EXAMPLE_FEATURES
from recross_hf.evaluation.scoring import answer_sets, best_constant, floor_answers, score_answers
from recross_hf.soft_em import answer_key, soft_match

ANSWERS = ("yes", "no", "maybe", "True", "False", "Always", "never", "inconclusive")


def made(references, *, choices=None, template="plain"):
    rows = [
        {
            "id": f"t/{number}",
            "task": "t",
            "template": template if isinstance(template, str) else template[number],
            "input": f"Is it {accepted[0]}? (No. {number})",
            "references": accepted,
            "choices": (choices or {}).get(number, []),
        }
        for number, accepted in enumerate(references)
    ]
    return Dataset.from_list(rows, features=EXAMPLE_FEATURES)


def test_given_choices_come_first_then_the_fixed_set_of_the_template_then_nothing():
    references = [["Yes"], ["no"], ["yes"], ["No."]] * 2 + [[f"name {number}"] for number in range(8)]
    examples = made(references, choices={1: ["no", "perhaps"]}, template=["a"] * 8 + ["b"] * 8)
    found = answer_sets(examples)
    assert found[1] == ["no", "perhaps"]
    assert [answer_key(text) for text in found[0]] == ["yes", "no"]
    assert found[8:] == [[]] * 8


def test_answers_that_are_articles_are_told_apart():
    found = answer_sets(made([["A"], ["B"], ["C"], ["A"]] * 3))
    assert sorted(found[0]) == ["A", "B", "C"]
    scores = score_answers(["A", "B"], [["A"], ["A"]], [["A", "B"]] * 2, ["A", "B"])
    assert scores["rank_correct"] == [True, False]
    assert scores["in_answers"] == [True, True]
    assert scores["exact_match"] == [True, False]
    assert scores["soft_em"] == [False, False]  # the paper's metric removes articles


def test_scores_are_unknown_where_answers_are():
    scores = score_answers(["It is yes", "no"], [["yes"], ["no"]], [[], ["no", "yes"]], ["yes", None])
    assert scores == {
        "soft_em": [True, True],
        "exact_match": [False, True],
        "rank_correct": [None, None],
        "in_answers": [None, True],
        "num_words": [3, 1],
    }


def test_a_reference_that_is_no_answer_cannot_be_ranked():
    assert score_answers(["no"], [["perhaps"]], [["no", "yes"]], ["no"])["rank_correct"] == [None]


def test_the_best_constant_lists_the_answers():
    found = best_constant([[answer] for answer in ANSWERS])
    assert set(found.split()) == {answer.lower() for answer in ANSWERS}


def test_the_best_constant_is_a_letter_where_answers_do_not_repeat():
    references = [[f"{word} {number}"] for number, word in enumerate(("red", "hen", "get", "ten") * 10)]
    assert best_constant(references) == "e"


@given(st.lists(st.lists(st.text("ab c", min_size=1, max_size=6), min_size=1, max_size=3), min_size=1, max_size=12))
def test_no_reference_alone_beats_the_best_constant(references):
    def score(text):
        return sum(soft_match(text, accepted) for accepted in references)

    best = score(best_constant(references))
    assert all(score(text) <= best for accepted in references for text in accepted)


def test_floors_are_answers_to_every_example():
    examples = made([["yes"], ["yes"], ["no"], ["blue"], ["blue"], ["red"]], template=["a"] * 3 + ["b"] * 3)
    floors = floor_answers(examples)
    assert floors["majority answer"] == ["yes"] * 3 + ["blue"] * 3
    assert floors["echo"] == examples["input"][:]
    assert len(set(floors["best constant"])) == 1
    soft = {
        name: np.mean(score_answers(texts, examples["references"][:], [[]] * 6, texts)["soft_em"])
        for name, texts in floors.items()
    }
    assert soft["best constant"] == soft["echo"] == 1.0
    assert soft["majority answer"] == pytest.approx(4 / 6)
