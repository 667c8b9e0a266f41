"""The signals of adaptations in a comparison."""

import json

import pytest
from evaluation_cases import ADAPTATION, methods, task

from recross_hf import DenseRetriever, EvaluationResults, Method, evaluate_methods
from recross_hf.evaluation.cells import CellMismatchError


def evaluate(pipeline, folder, **kwargs):
    settings = ADAPTATION | kwargs.pop("settings", {})
    by = kwargs.pop("by", None) or methods(pipeline)
    return evaluate_methods(pipeline, [task("film", "film", 1)], by, folder, settings=settings, show_progress=False, **kwargs)  # fmt: skip


def test_signals_are_recorded_and_change_no_answer(pipeline, tmp_path):
    plain, recorded = evaluate(pipeline, tmp_path / "plain"), evaluate(pipeline, tmp_path / "with", signals=True)
    assert recorded.predictions.to_list() == plain.predictions.to_list()
    recorded.save(tmp_path / "with")
    for cell in EvaluationResults.load(tmp_path / "with").cells:
        assert ("signals" in cell.details) == (cell.kind == "method")
        if cell.kind == "method":
            signals = cell.details["signals"]
            assert signals["numbers"]["num_answers"] == cell.num_queries
            assert len(signals["held_out"]["base"]) == signals["numbers"]["num_held_out"] > 0
            assert cell.seconds["signals"] > 0
            held_out = set(signals["held_out"]["id"])
            content = json.loads((tmp_path / "with" / cell.details["file"]).read_text())
            assert not held_out & set(content["retrieved"]["id"])
            assert content["cell"]["details"]["signals"] == signals


def test_cells_without_signals_are_not_taken_for_such_with_them(pipeline, tmp_path):
    evaluate(pipeline, tmp_path / "plain")
    with pytest.raises(CellMismatchError, match=r"signals: None there, True here"):
        evaluate(pipeline, tmp_path / "plain", signals=True)
    evaluate(pipeline, tmp_path / "with", signals=True)
    for results in (evaluate(pipeline, tmp_path / "with"), evaluate(pipeline, tmp_path / "with", signals=True)):
        assert all("signals" in cell.details for cell in results.cells if cell.kind == "method")


def test_signals_of_what_a_gate_may_undo_are_refused(pipeline, tmp_path):
    gated = Method("gated", DenseRetriever(pipeline.index), settings={"gate": "form"})
    with pytest.raises(
        ValueError, match=r"`gate='off'` where signals are recorded, found 'form' for the method gated"
    ):
        evaluate(pipeline, tmp_path, by=[Method("none"), gated], signals=True)
    assert not list(tmp_path.rglob("*.json"))
