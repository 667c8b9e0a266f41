"""The plan of a benchmark, beside the benchmark."""

import pytest
from evaluation_cases import ADAPTATION, methods, task, tasks

from recross_hf import DenseRetriever, Method, ReCrossPipeline, TargetTask, evaluate_methods
from recross_hf import benchmark_plan as plan_module
from recross_hf.benchmark_plan import plan_benchmark
from recross_hf.overlaps import OverlapError


@pytest.fixture(scope="module")
def pipeline(answering_bart, tokenizer, examples, tmp_path_factory):
    return ReCrossPipeline.build(answering_bart, tokenizer, examples, tmp_path_factory.mktemp("built") / "pipeline")


def planned(pipeline, folder, of, by, **kwargs):
    return plan_benchmark(pipeline, of, by, folder, settings=ADAPTATION, show_progress=False, **kwargs)


def test_cells_are_those_that_come_out_and_nothing_is_left(pipeline, tmp_path):
    of, by = [*tasks(), task("song", "song", num_sets=1)], methods(pipeline)
    plan = planned(pipeline, tmp_path, of, by)
    assert list(tmp_path.iterdir()) == []
    results = evaluate_methods(pipeline, of, by, tmp_path, settings=ADAPTATION, show_progress=False)
    cells = [cell for cell in results.cells if cell.kind != "floor"]
    assert plan.work == f"{len(cells)} cells: 3 methods, 3 tasks, 5 query sets in all"
    written = sum(path.stat().st_size for path in tmp_path.rglob("*.json"))
    assert written / 2 < plan.disk < 2 * written
    assert plan.memory > 0
    assert plan.seconds.low < plan.seconds.expected < plan.seconds.high


def test_time_grows_with_test_sets_where_it_depends_on_them(pipeline, tmp_path, monkeypatch):
    def evaluated(*args, **kwargs):
        results = evaluate_methods(*args, **kwargs)
        for cell in results.cells:
            cell.seconds.clear()
            cell.seconds.update({"train": 5.0, "predict": 1.0, "rank": 1.0})
        return results

    monkeypatch.setattr(plan_module, "evaluate_methods", evaluated)
    small, large = task("film", "film"), task("book", "book")  # of 8 test examples and two query sets
    small = TargetTask("film", small.test.select(range(4)), small.query_sets)
    plan = planned(pipeline, tmp_path, [small, large], methods(pipeline)[::2])
    # The base is tested on 8 + 4 examples, at 2 s for 8, and trains (here) for each task; dense on twice as many, in four cells.
    assert plan.seconds.expected == pytest.approx((2 * 5 + 2 * 12 / 8) + (4 * 5 + 2 * 24 / 8))


def test_a_method_that_fails_and_overlaps_are_said(pipeline, tmp_path):
    class Failing(DenseRetriever):
        def rank(self, inputs, num_retrieved):
            raise OSError("no such shelf")

    with pytest.raises(RuntimeError, match=r"The method broken fails on .*no such shelf"):
        planned(pipeline, tmp_path, tasks(), [Method("broken", Failing(pipeline.index))])
    overlapping = task("film", "film")
    overlapping = TargetTask("film", overlapping.test, [overlapping.test.remove_columns("references")])
    with pytest.raises(OverlapError):
        planned(pipeline, tmp_path, [overlapping], methods(pipeline))
