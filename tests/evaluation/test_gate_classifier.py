"""Whether the benchmark of the gate finds the signal that was put into made-up cells, and says what gates do."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_cases import ADAPTATION, methods, task

from recross_hf import evaluate_methods

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gate_classifier.py"


@pytest.fixture(scope="module")
def classifier():
    spec = importlib.util.spec_from_file_location("gate_classifier", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gate_classifier"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def cells(classifier, prefix, num_tasks=8, seed=0):
    """Adaptations whose gain rises with `good` and with `half`, and has nothing to do with `noise`; every fifth lacks `half`."""
    rng, found = np.random.default_rng(seed), []
    for number in range(num_tasks):
        for query_set in range(6):
            good, half, noise = rng.normal(size=3)
            numbers = {
                "good": good,
                "half": half if query_set else None,
                "noise": noise,
                "is_finite": 1.0,
                "lost_forms": 0.0,
            }
            gain = float(np.round(6 * good + 3 * half + rng.normal()))
            found.append(
                classifier.Measured("made", f"{prefix}{number}", "dense", query_set, 40.0, gain, 2.0, numbers)
            )
    return found


def test_the_signal_that_tells_is_found_and_its_gate_holds_on_other_tasks(classifier):
    calibration, test = cells(classifier, "known"), cells(classifier, "unknown", seed=1)
    result = classifier.analysed(calibration, test, policy="5 % harm")
    json.dumps(result, allow_nan=True)
    assert result["single"][0]["signals"] == ["good"]
    assert result["single"][0]["auc"] > 0.85 > 0.7 > result["single"][-1]["auc"]
    assert [signal["name"] for signal in result["chosen"]["signals"]] == ["good", "half"]
    assert result["num_combinations"] == 7
    before, after = result["fixed"]["test"]["none: all are kept"], result["chosen"]["rates"]["test"]
    assert after["share_harmed"] < 0.12 < before["share_harmed"]
    assert after["gain_kept"] > 0.8
    assert after["mean_gain"] > before["mean_gain"]
    assert after["share_harmed_interval"][0] <= after["share_harmed"] <= after["share_harmed_interval"][1]
    classifier.print_tables(result)


def test_nothing_of_the_test_tasks_goes_into_the_choice(classifier):
    calibration = cells(classifier, "known")
    of_two = [
        classifier.analysed(calibration, cells(classifier, "unknown", seed=seed), most=2)["chosen"] for seed in (1, 2)
    ]
    for name in ("signals", "intercept", "threshold", "auc"):
        assert of_two[0][name] == of_two[1][name]
    assert of_two[0]["rates"]["test"] != of_two[1]["rates"]["test"]


def test_a_task_has_no_part_in_its_own_scores(classifier):
    calibration = cells(classifier, "known", num_tasks=4)
    turned = [replace(cell, gain=-cell.gain) if cell.task == "known0" else cell for cell in calibration]
    ours = [cell.task == "known0" for cell in calibration]
    before, after = (classifier.out_of_task(["good", "noise"], of) for of in (calibration, turned))
    np.testing.assert_array_equal(before[ours], after[ours])
    assert not np.allclose(before[~np.array(ours)], after[~np.array(ours)])


def test_rates_are_counted(classifier):
    made = cells(classifier, "task", num_tasks=1)[:4]
    four = [replace(cell, gain=gain) for cell, gain in zip(made, (10.0, -1.0, -20.0, 0.0), strict=True)]
    found = classifier.rates(four, np.array([True, True, False, True]))
    assert (found["kept"], found["precision"], found["recall"], found["harmful_refused"]) == (0.75, 1 / 3, 1, 1)
    assert (found["worst"], found["share_harmed"], found["mean_gain"], found["gain_kept"]) == (-1, 0, 2.25, 1)
    found = classifier.rates(four, np.array([False, False, True, False]))
    assert (found["worst"], found["share_harmed"], found["share_surely_harmed"], found["gain_kept"]) == (
        -20,
        0.25,
        0.25,
        0,
    )
    four[2] = replace(four[2], numbers={"is_finite": 0.0})
    assert classifier.rates(four, np.ones(4, dtype=bool))["worst"] == -1  # what diverged is kept by no gate
    lost = replace(four[0], numbers={"lost_forms": 1.0, "is_finite": 1.0})
    assert classifier.refused(classifier.without_lost_form([lost, four[1]])).tolist() == [True, False]


@pytest.mark.parametrize(("most_harm", "threshold", "mean"), [(0.0, 3.5, 1.5), (0.25, 1.5, 4.5), (1.0, 1.5, 4.5)])
def test_a_threshold_keeps_to_the_harm_that_is_allowed(most_harm, threshold, mean, classifier):
    made = cells(classifier, "task", num_tasks=1)[:4]
    four = [replace(cell, gain=gain) for cell, gain in zip(made, (-5.0, 14.0, -2.0, 6.0), strict=True)]
    scores = np.array([1.0, 2.0, 3.0, 4.0])
    found = classifier.threshold_of(four, scores, most_harm)
    assert (found, np.where(scores >= found, classifier.gains_of(four), 0).mean()) == (threshold, mean)


def test_cells_are_read_from_a_comparison(classifier, pipeline, tmp_path):
    results = evaluate_methods(
        pipeline, [task("film", "film", 2)], methods(pipeline), tmp_path, settings=ADAPTATION, signals=True, show_progress=False
    )  # fmt: skip
    results.save(tmp_path)
    found = classifier.read_cells(tmp_path / "results.parquet", methods=["dense"])
    assert [(cell.method, cell.task, cell.query_set) for cell in found] == [("dense", "film", 0), ("dense", "film", 1)]
    rows = results.predictions.to_pandas()
    score = rows.groupby(["method", "query_set"]).exact_match.mean() * 100
    for cell in found:
        assert cell.base == pytest.approx(score["none", -1])
        assert cell.gain == pytest.approx(score["dense", cell.query_set] - score["none", -1])
        assert cell.numbers["num_answers"] == 3
        assert 0 < cell.numbers["top_task_share"] <= 1
    with pytest.raises(SystemExit, match="Expected cells with signals"):
        classifier.read_cells(tmp_path, methods=["none"])
