import doctest
import string
from pathlib import Path

import evaluate
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recross_hf import soft_em
from recross_hf.soft_em import answer_key, exact_match, normalize_answer, score, soft_match

ROOT = Path(__file__).resolve().parents[1]
words = st.lists(st.sampled_from(["the", "A", "an", "answer", "Yes", "no!", "B.", "", "42"]), max_size=5).map(" ".join)
texts = st.one_of(words, st.text(max_size=12))


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(soft_em.__file__)


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("  The Answer, is:\tB. ", "answer is b"),
        ("an apple a day", "apple day"),
        ("don't", "dont"),
        ("theatre", "theatre"),
        ("A", ""),
        ("?!", ""),
    ],
)
def test_normalisation_is_squads(text, normalized):
    assert normalize_answer(text) == normalized


@given(texts)
def test_normalisation_is_idempotent_up_to_articles_that_it_uncovers(text):
    once = normalize_answer(text)
    assert normalize_answer(once) == once
    assert not set(once) & set(string.punctuation)
    assert once == once.strip()


@given(texts, texts)
def test_soft_match_is_symmetric(one, other):
    assert soft_match(one, [other]) == soft_match(other, [one])


@given(texts, st.lists(texts, max_size=3))
def test_exact_implies_soft_and_any_reference_counts(prediction, references):
    exact, soft = exact_match(prediction, references), soft_match(prediction, references)
    assert soft or not exact or not normalize_answer(prediction)
    assert exact == any(exact_match(prediction, [reference]) for reference in references)
    assert soft == any(soft_match(prediction, [reference]) for reference in references)


@given(texts, texts)
def test_a_text_matches_itself_within_anything_unless_it_is_empty(text, around):
    assert exact_match(text, [text]) == bool(text.strip())
    assert soft_match(f"{around} {text}.", [text]) == bool(normalize_answer(text))


@given(texts)
def test_an_empty_text_never_matches(text):
    for empty in ("", " ", "the", "..."):
        assert not soft_match(empty, [text])
        assert not soft_match(text, [empty])
    for blank in ("", " "):
        assert not exact_match(blank, [text, blank])
    assert not soft_match(text, [])


@pytest.mark.parametrize(
    ("prediction", "reference", "exact"),
    [
        ("A", "A", True),
        ("a", "(A)", True),
        ("(A).", "A", True),
        ("b", "(B)", True),
        ("The", "the.", True),
        ("A", "an", False),
        ("A", "B", False),
        ("+", "+", True),
        (" + ", "+", True),
        ("+", "-", False),
        ("?", "", False),
        ("the", "", False),
        ("A dog", "dog", True),
    ],
)
def test_answers_of_articles_and_punctuation_are_compared_as_they_are(prediction, reference, exact, caplog):
    assert exact_match(prediction, [reference]) == exact_match(reference, [prediction]) == exact
    assert score([prediction], [[reference]])["exact_match"] == 100 * exact


def test_lettered_answers_lose_nothing_in_exact_match_and_soft_em_says_what_it_loses(caplog):
    letters = ["A", "B", "C", "D"] * 5
    soft_em._warn_once.cache_clear()
    for _ in range(2):
        assert score(letters, [[letter] for letter in letters]) == {"soft_em": 75.0, "exact_match": 100.0}
    assert [record.message for record in caplog.records if "nothing after normalisation" in record.message] == [
        "5 references, such as 'A', are nothing after normalisation (articles, punctuation): SoftEM takes every answer to them for "
        "wrong. Look at exact match, or spell the answers out."
    ]


@given(texts, texts)
def test_keys_of_normalised_texts_are_the_normalised_texts(one, other):
    assert answer_key(one) == (normalize_answer(one) or answer_key(one))
    if normalize_answer(one) and not normalize_answer(other):
        assert answer_key(one) != answer_key(other)


@pytest.mark.parametrize(
    ("prediction", "references", "soft", "exact"),
    [
        ("positive negative neutral", ["negative"], True, False),  # listing every label
        ("e", ["entailment"], True, False),  # one letter that many answers contain
        ("not entailment", ["entailment"], True, False),
        ("The Paris!", ["paris", "London"], True, True),
        ("Berlin", ["paris", "London"], False, False),
        ("12", ["1, 2"], False, False),
    ],
)
def test_what_soft_em_lets_pass_and_exact_match_does_not(prediction, references, soft, exact):
    assert (soft_match(prediction, references), exact_match(prediction, references)) == (soft, exact)


def test_the_metric_takes_one_or_many_references(metric):
    predictions = ["It is Paris.", "rome", "Oslo"]
    assert metric.compute(predictions=predictions, references=["paris", "Rome", "Bern"]) == pytest.approx(
        {"soft_em": 200 / 3, "exact_match": 100 / 3}
    )
    many = [["Lyon", "Paris"], ["Rome", "Roma"], ["oslo", "Kristiania"]]
    assert metric.compute(predictions=predictions, references=many) == pytest.approx(
        {"soft_em": 100, "exact_match": 200 / 3}
    )
    one_of_one = metric.compute(predictions=["a cat"], references=[["Cat"]])
    assert one_of_one == {"soft_em": 100, "exact_match": 100}


def test_the_metric_takes_batches(metric):
    metric.add_batch(predictions=["yes", "no"], references=[["Yes"], ["yes"]])
    metric.add(prediction="maybe yes", reference=["yes"])
    assert metric.compute() == pytest.approx({"soft_em": 200 / 3, "exact_match": 100 / 3})


@pytest.mark.parametrize("references", [["x", ["b", "c"]], [["x"], "c"], ("x", ("b", "c")), np.array(["x", "c"])])
def test_texts_and_lists_of_references_may_be_mixed(metric, references):
    assert metric.compute(predictions=["x", "c"], references=references) == {"soft_em": 100, "exact_match": 100}
    for prediction, accepted in zip(["x", "c"], references, strict=True):
        metric.add(prediction=prediction, reference=accepted)
    assert metric.compute() == {"soft_em": 100, "exact_match": 100}
    flipped = metric.compute(predictions=["c", "x"], references=list(references)[::-1])
    assert flipped == {"soft_em": 100, "exact_match": 100}


@pytest.mark.parametrize(
    ("given_", "match"),
    [
        ({"predictions": ["x", 3], "references": ["x", "3"]}, r"text as each prediction, found int in row 1 \('3'\)"),
        ({"predictions": ["x", ["y"]], "references": ["x", "y"]}, "text as each prediction, found list in row 1"),
        ({"predictions": ["x", "3"], "references": ["x", 3]}, "a text or a list of texts .* found int in row 1"),
        (
            {"predictions": ["x", "3"], "references": ["x", None]},
            "a text or a list of texts .* found NoneType in row 1",
        ),
        ({"predictions": ["x"], "references": [["x", 3]]}, "text as each reference, found int in row 0"),
        ({"predictions": ["x"], "references": [[["x"]]]}, "text as each reference, found list in row 0"),
        ({"predictions": ["x"], "references": ["x", "y"]}, "as many references as predictions, found 2 and 1"),
        ({"predictions": ["x"]}, "predictions and references, found one of them missing"),
    ],
)
def test_what_is_no_text_is_never_made_one(metric, given_, match):
    with pytest.raises(ValueError, match=match):
        metric.compute(**given_)
    if "references" in given_:
        with pytest.raises(ValueError, match=match):
            metric.add_batch(**given_)


def test_no_predictions_have_no_score(metric):
    with pytest.raises(ValueError, match="SoftEM of no predictions is undefined: expected at least one"):
        metric.compute(predictions=[], references=[])


@given(pairs=st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=8))
def test_the_trainers_scores_are_the_metrics(metric, pairs):
    predictions, references = [prediction for prediction, _ in pairs], [accepted for _, accepted in pairs]
    scores = score(predictions, references)
    assert scores == metric._compute(predictions, references)
    exactly_right = sum(exact_match(prediction, accepted) for prediction, accepted in pairs)
    assert scores["exact_match"] == pytest.approx(100 * exactly_right / len(pairs))
    softly_right = sum(any(soft_match(prediction, [text]) for text in accepted) for prediction, accepted in pairs)
    assert scores["soft_em"] == pytest.approx(100 * softly_right / len(pairs))


def test_the_trainers_scores_are_those_of_evaluate(metric):
    predictions, references = ["The answer is B.", "positive", ""], [["B", "option B"], ["Positive!"], ["no"]]
    assert score(predictions, references) == metric.compute(predictions=predictions, references=references)


def test_the_example_in_the_documentation_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    module = doctest.DocTestParser().get_doctest(soft_em._KWARGS_DESCRIPTION, {}, "soft_em", soft_em.__file__, 0)
    results = doctest.DocTestRunner().run(module)
    assert results.attempted == 4
    assert results.failed == 0


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"predictions": "yes", "references": "yes"}, "a list of predictions, found str"),
        ({"predictions": ["yes"], "references": "y"}, "a list of references, found str"),
        ({"predictions": {"1": "a"}, "references": {"1": ["a"]}}, "a list of predictions, found dict"),
        ({"predictions": {"x", "y"}, "references": ["x", "y"]}, "a list of predictions, found set"),
        ({"preds": ["a"], "refs": ["a"]}, "`predictions` and `references`, found preds, refs"),
        ({}, "none given and none added"),
        ({"predictions": ["\ud800"], "references": ["a"]}, r"found '\\ud800' in row 0"),
        ({"predictions": ["b"], "references": [["a", "\udfff"]]}, r"found '\\udfff' in row 0"),
    ],
)
def test_what_is_no_list_of_texts_is_not_scored_by_its_letters(metric, given_, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(**given_)


def test_accents_are_the_same_however_a_system_writes_them():
    assert score(["caf\u00e9"], [["cafe\u0301"]]) == {"soft_em": 100.0, "exact_match": 100.0}


def test_predictions_without_references_are_said(caplog):
    assert score(["x", "y"], [["x"], []])["exact_match"] == 50
    assert "1 of 2 predictions have no references" in caplog.text


@pytest.mark.parametrize("odd", ["don\u2019t", "don\uff07t", "dont\u3002", "dont\uff01"])
def test_punctuation_is_that_of_squads_script_and_no_other(odd, metric):
    assert score([odd, "don't"], [["don't"], ["dont"]])["exact_match"] == 50
    assert "a curly apostrophe" in metric.description


@pytest.mark.parametrize("text", ["yes\u200b", "\ufeffyes", "y\u2060es"])
def test_marks_that_nobody_sees_are_no_difference(text):
    assert score([text, "yes"], [["yes"], [text]]) == {"soft_em": 100, "exact_match": 100}


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["cat"], ["cat"], "found one text, whose letters"),
        ("cat", [["c"], ["a"], ["t"]], "found one text, whose letters"),
        ([], [], "at least one prediction, .* found 0 and 0"),
        (["cat", "dog"], [["cat"]], "found 2 and 1"),
    ],
)
def test_letters_are_no_references_of_the_plain_function_either(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        score(predictions, references)


def test_the_columns_of_a_table_are_no_predictions(metric):
    with pytest.raises(ValueError, match="Expected a list of predictions, found DataFrame"):
        metric.compute(predictions=pd.DataFrame({"yes": ["no"]}), references=["yes"])
