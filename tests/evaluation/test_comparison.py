from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from synthetic_results import FLOORS, synthetic_results

from recross_hf.evaluation.report.comparison import Comparison
from recross_hf.evaluation.report.scores import EvaluationScores
from recross_hf.evaluation.results import PREDICTION_FEATURES, SHARED, Cell, EvaluationResults

GAINS = {"none": 0.0, "random": -0.1, "dense": 0.2}


def hand_made(scores, *, error=(), sources=None):
    """Results of `{(method, task, query set): [right or not, ...]}`."""
    columns = {name: [] for name in PREDICTION_FEATURES}
    cells = []
    for (method, task, query_set), found in scores.items():
        key = (method, task, query_set)
        kind = "base" if method == "none" else "method"
        cells.append(Cell(*key, kind=kind, error="it failed" if key in error else None))
        if key in error:
            continue
        number = len(found)
        columns["method"] += [method] * number
        columns["task"] += [task] * number
        columns["query_set"] += [query_set] * number
        columns["id"] += [f"{task}|{row}" for row in range(number)]
        columns["source"] += sources or [f"{task}|{row}" for row in range(number)]
        columns["prediction"] += ["yes"] * number
        for name in ("soft_em", "exact_match"):
            columns[name] += [bool(one) for one in found]
        columns["rank_correct"] += [None if one is None else bool(one) for one in found]
        columns["in_answers"] += [None] * number
        columns["num_words"] += [2] * number
    return EvaluationResults(Dataset.from_dict(columns, features=PREDICTION_FEATURES), cells)


def compared(results, metric="exact_match", **settings):
    return Comparison(EvaluationScores(results), metric, num_resamples=200, **settings)


SCORES = {
    ("none", "a", SHARED): [1, 0, 0, 0],
    ("none", "b", SHARED): [1, 1],
    ("dense", "a", 0): [1, 1, 0, 0],
    ("dense", "b", 0): [1, 0],
    ("dense", "a", 1): [1, 1, 1, 1],
    ("dense", "b", 1): [1, 1],
}


def test_means_are_those_of_the_paper_over_tasks_and_then_over_query_sets():
    comparison = compared(hand_made(SCORES))
    assert comparison.score("dense", "a") == 75.0
    assert comparison.by_query_set("dense").tolist() == [50.0, 100.0]
    summary = comparison.summary("dense")
    assert (summary.mean, summary.median, summary.min, summary.max) == (75.0, 75.0, 50.0, 100.0)
    assert summary.std == pytest.approx(np.std([50, 100], ddof=1))
    base = comparison.summary("none")
    assert (base.mean, base.std) == (62.5, None)
    (difference,) = comparison.differences([("dense", "none")])
    assert difference.overall.mean == 12.5
    assert {task: found.mean for task, found in difference.by_task.items()} == {"a": 50.0, "b": -25.0}
    assert comparison.notes == []


def test_the_order_of_what_is_asked_changes_nothing():
    first, second = compared(hand_made(SCORES)), compared(hand_made(SCORES))
    of_b = first.interval("dense", "b")
    assert first.interval("dense", "a") == second.interval("dense", "a")
    assert second.interval("dense", "b") == of_b


def test_a_failed_cell_takes_its_task_out_of_the_means_and_its_query_set_out_of_the_task():
    gains = {**GAINS, "recross": 0.2}
    comparison = compared(synthetic_results(gains, failed=[("dense", "piqa", 1)]))
    assert comparison.complete_tasks == ["anli_r3", "mine"]
    assert comparison.query_sets == {"anli_r3": [0, 1, 2], "piqa": [0, 2], "mine": [0, 1, 2]}
    assert comparison.notes == [
        "Means of exact match are over the 2 tasks with scores of all methods in them, without: piqa.",
        "On piqa, exact match is the mean of the query sets 0, 2.",
    ]
    assert comparison.score("dense", "piqa") is not None
    assert len(comparison.by_query_set("dense")) == 3


def test_a_query_set_that_no_task_finished_goes():
    failed = [(method, task, 2) for method in ("random", "dense") for task in ("anli_r3", "piqa", "mine")]
    comparison = compared(synthetic_results(GAINS, failed=failed))
    assert comparison.complete_sets == [0, 1]
    assert comparison.complete_tasks == ["anli_r3", "piqa", "mine"]
    assert comparison.notes == [
        "Means of exact match are over the query sets with scores of all methods in them: 0, 1."
    ]


def test_a_method_that_mostly_failed_does_not_spoil_the_others():
    failed = [("dense", task, query_set) for task in ("anli_r3", "piqa") for query_set in range(3)]
    comparison = compared(synthetic_results(GAINS, failed=failed))
    assert comparison.complete_methods == ["none", "random", *FLOORS]
    assert comparison.complete_tasks == ["anli_r3", "piqa", "mine"]
    assert comparison.summary("dense") is None and comparison.interval("dense") is None
    assert comparison.score("dense", "anli_r3") is None and comparison.score("dense", "mine") is not None
    first, second = comparison.differences([("dense", "none"), ("random", "none")])
    assert first.overall is None and list(first.by_task) == ["mine"]
    assert second.overall.corrected_p == second.overall.p
    assert comparison.notes == ["Left out of the means of exact match, since more than half is missing: dense."]


def test_where_all_failed_there_are_no_means():
    results = hand_made(SCORES, error=set(SCORES))
    comparison = compared(results)
    assert comparison.summary("dense") is None and comparison.score("dense", "a") is None
    assert comparison.differences([("dense", "none")])[0].overall is None
    assert comparison.notes == ["No means of exact match: no task was finished by all methods with a query set."]


def test_tasks_whose_answers_are_not_known_are_no_part_of_rank_classification():
    comparison = compared(synthetic_results(GAINS, ranked=["piqa"]), "rank_correct")
    assert comparison.complete_tasks == ["piqa"]
    assert comparison.complete_methods == ["none", "random", "dense", *FLOORS]
    assert comparison.score("dense", "mine") is None


def test_examples_without_a_score_are_left_out_for_all_methods():
    scores = {("none", "a", SHARED): [1, 0, None, 0], ("dense", "a", 0): [1, 1, 1, 0]}
    comparison = compared(hand_made(scores), "rank_correct")
    assert comparison.score("none", "a") == pytest.approx(100 / 3)
    assert comparison.score("dense", "a") == pytest.approx(200 / 3)


def test_sources_are_drawn_together():
    rows = [1] * 30 + [0] * 30
    scores = {("none", "a", SHARED): [0] * 60, ("dense", "a", 0): rows}
    apart = compared(hand_made(scores)).differences([("dense", "none")])[0].overall
    together = compared(hand_made(scores, sources=[str(row // 10) for row in range(60)]))
    wide = together.differences([("dense", "none")])[0].overall
    assert wide.mean == apart.mean == 50.0
    assert wide.high - wide.low > 2 * (apart.high - apart.low)


def test_a_clear_effect_is_found_and_p_values_are_corrected_for_the_tasks():
    comparison = compared(synthetic_results(GAINS, num_examples=200))
    dense, random = comparison.differences([("dense", "none"), ("random", "none")])
    assert dense.overall.low > 0 and dense.overall.corrected_p < 0.05
    assert random.overall.high < 0
    for found in (dense, random):
        assert max(one.corrected_p for one in found.by_task.values()) <= 1
        smallest = min(found.by_task.values(), key=lambda one: one.p)
        assert smallest.corrected_p == pytest.approx(min(1, 3 * smallest.p))


# ---- what does not fit -------------------------------------------------------------------------------------------------


def test_predictions_without_a_cell_and_cells_without_predictions_are_refused():
    results = hand_made(SCORES)
    with pytest.raises(
        ValueError, match="Expected a cell for all predictions, found none for dense on b, query set 1"
    ):
        EvaluationScores(replace(results, cells=results.cells[:-1]))
    with pytest.raises(ValueError, match="Expected predictions of bm25 on a, query set 0, found none"):
        EvaluationScores(replace(results, cells=[*results.cells, Cell("bm25", "a", 0)]))
    with pytest.raises(ValueError, match="at least one cell"):
        EvaluationScores(replace(results, cells=[]))


def test_other_examples_in_a_cell_are_refused():
    results = hand_made(SCORES | {("dense", "b", 1): [1, 1, 1]})
    with pytest.raises(
        ValueError, match="the same examples in the same order in all cells of b, found others in dense on b"
    ):
        EvaluationScores(results)


def test_rows_may_come_in_any_order_of_cells():
    results = synthetic_results(GAINS)
    order = np.argsort(np.arange(len(results.predictions)) % 7, kind="stable")
    by_id = {}
    shuffled = results.predictions.select(order)
    for row, key in enumerate(zip(*(shuffled[name] for name in ("method", "task", "query_set")), strict=True)):
        by_id.setdefault(key, []).append((shuffled[row]["id"], row))
    # The rows of a cell keep one order, and cells are interleaved.
    rows = [sorted(found) for found in by_id.values()]
    mixed = [row for group in zip(*rows, strict=True) for _, row in group]
    scores = EvaluationScores(EvaluationResults(shuffled.select(mixed), results.cells))
    expected = EvaluationScores(results)
    for task in expected.tasks:
        found, wanted = scores.of("exact_match", task), expected.of("exact_match", task)
        assert np.allclose(found.mean(axis=2), wanted.mean(axis=2))
        assert scores.num_sources(task) == expected.num_sources(task) == 30
