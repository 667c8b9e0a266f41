"""The plan of an evaluation, beside the evaluation."""

import numpy as np
import pytest
import torch
from evaluation_cases import ADAPTATION, methods, task, tasks

from recross_hf import DenseRetriever, Method, Retriever, TargetTask, evaluate_methods, load_queries
from recross_hf.evaluation.cells import CellMismatchError
from recross_hf.evaluation.overlaps import OverlapError
from recross_hf.evaluation.run import EvaluationRun
from recross_hf.planning import evaluation as plan_module
from recross_hf.planning.evaluation import plan_evaluation
from recross_hf.planning.resources import peak_memory
from recross_hf.planning.text_lengths import TextLengths
from recross_hf.retrieval.aggregation import Ranking

MB, GB = 10**6, 10**9
ALL_ALIKE = ADAPTATION | {"max_input_length": 3}
"""Settings with which all inputs have the same number of tokens."""


def planned(pipeline, folder, of, by, *, settings=ADAPTATION, **kwargs):
    return plan_evaluation(pipeline, of, by, folder, settings=settings, show_progress=False, **kwargs)


def test_cells_are_those_that_come_out_and_nothing_is_left(pipeline, tmp_path):
    of, by = [*tasks(), task("song", "song", num_sets=1)], methods(pipeline)
    plan = planned(pipeline, tmp_path, of, by)
    assert list(tmp_path.iterdir()) == []
    assert plan.device_memory is None
    results = evaluate_methods(pipeline, of, by, tmp_path, settings=ADAPTATION, show_progress=False)
    cells = [cell for cell in results.cells if cell.kind != "floor"]
    assert plan.work == f"{len(cells)} cells: 3 methods, 3 tasks, 5 query sets in all"
    written = sum(path.stat().st_size for path in tmp_path.rglob("*.json"))
    assert written / 2 < plan.disk < 2 * written
    assert plan.seconds.low < plan.seconds.expected < plan.seconds.high


def test_time_grows_with_test_sets_where_it_depends_on_them(pipeline, tmp_path, monkeypatch):
    def evaluated(*args, **kwargs):
        results = evaluate_methods(*args, **kwargs)
        for cell in results.cells:
            cell.seconds.clear()
            cell.seconds.update({"train": 5.0, "predict": 1.0, "rank": 1.0})
        return results

    monkeypatch.setattr(plan_module, "evaluate_methods", evaluated)
    monkeypatch.setattr(TextLengths, "learned", lambda self, key: 1.0)  # as if all learned from examples of one length
    small, large = task("film", "film"), task("book", "book")  # of 8 test examples and two query sets
    small = TargetTask("film", small.test.select(range(4)), small.query_sets, small.answers[:4])
    plan = planned(pipeline, tmp_path, [small, large], methods(pipeline)[::2], settings=ALL_ALIKE)
    # The base is tested on 8 + 4 examples, at 2 s for 8, and trains (here) for each task; dense on twice as many, in four cells.
    assert plan.seconds.expected == pytest.approx((2 * 5 + 2 * 12 / 8) + (4 * 5 + 2 * 24 / 8))


def test_time_grows_with_texts(pipeline, tmp_path, monkeypatch):
    def evaluated(*args, **kwargs):
        results = evaluate_methods(*args, **kwargs)
        for cell in results.cells:
            trained = {"train": 5.0} if cell.method == "learning" else {}
            cell.seconds.clear()
            cell.seconds.update(trained | {"predict": 1.0, "rank": 1.0, "prepare": 1.0})
        return results

    class OneOfEach(Retriever):
        """Examples of one of two tasks, as the queries say."""

        def rank(self, inputs, num_retrieved):
            rows = [
                row
                for row, name in enumerate(self.upstream["task"])
                if name == ("sum" if "long" in inputs[0] else "colour")
            ]
            return Ranking(np.array(rows[:4]), np.zeros(4, dtype=np.int64), np.zeros(4))

    monkeypatch.setattr(plan_module, "evaluate_methods", evaluated)
    short = task("book", "book", num_sets=1)  # the task that is tried out
    inputs = [f"{text} and a long, long story" for text in short.test["input"]]
    test = short.test.remove_columns("input").add_column("input", inputs)
    long = TargetTask("film", test, [load_queries([f"{text} Or not?" for text in inputs])], answers=short.answers)
    learning = Method("learning", OneOfEach(pipeline.index.dataset))
    plan = planned(
        pipeline, tmp_path, [long, short], [Method("none"), learning], settings=ADAPTATION | {"max_input_length": 64}
    )

    def tokens(texts, length):
        return sum(map(len, pipeline.processing_class([*texts], truncation=True, max_length=length)["input_ids"]))

    most, answer = 64, ADAPTATION["max_target_length"]
    examples = pipeline.index.dataset.to_pandas()
    learned = {
        name: tokens(found["input"][:4], most) + tokens([one[0] for one in found["references"][:4]], answer)
        for name, found in examples.groupby("task")
    }
    predict = (tokens(inputs, most) + 8 * answer) / (tokens(short.test["input"], most) + 8 * answer)
    choices = tokens([one for some in short.answers for one in some], answer)
    rank = (tokens(inputs, most) + choices) / (tokens(short.test["input"], most) + choices)
    assert learned["sum"] != learned["colour"] and predict > 1.1
    expected = 2 * (2 + 2 + predict + rank) + 5 * (1 + learned["sum"] / learned["colour"])
    assert plan.seconds.expected == pytest.approx(expected)


def test_a_task_for_which_nothing_is_found_does_not_end_the_plan(pipeline, tmp_path):
    class ForBooks(DenseRetriever):
        def rank(self, inputs, num_retrieved):
            found = super().rank(inputs, num_retrieved)
            return found if "book" in inputs[0] else Ranking(*(values[:0] for values in found))

    plan = planned(pipeline, tmp_path, tasks(), [Method("books alone", ForBooks(pipeline.index))])
    assert plan.seconds.expected > 0


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


def test_what_the_run_would_refuse_of_any_task_is_refused_before_anything_is_tried_out(
    pipeline, tmp_path, monkeypatch
):
    monkeypatch.delattr(plan_module, "evaluate_methods")
    film, book = tasks()  # of the two, the plan tries out the second
    with pytest.raises(ValueError, match="Expected tasks with different names, found none"):
        planned(pipeline, tmp_path, [], methods(pipeline))
    # In the last query set, which the plan does not try out either.
    overlapping = TargetTask("film", film.test, [*film.query_sets, load_queries(film.test["input"][:2])])
    with pytest.raises(OverlapError, match="film: 2 of 8 test examples in query sets"):
        planned(pipeline, tmp_path, [overlapping, book], methods(pipeline))
    nothing_left = TargetTask("film", film.test, [*film.query_sets, load_queries(film.test["input"][:])])
    with pytest.raises(OverlapError, match="film: all 8 test examples are queries"):
        planned(pipeline, tmp_path, [nothing_left, book], methods(pipeline), on_overlap="drop")
    assert list(tmp_path.iterdir()) == []


def test_cells_of_other_settings_in_the_folder_are_refused_and_those_of_the_same_are_not(pipeline, tmp_path):
    of, by = tasks(), methods(pipeline)
    evaluate_methods(pipeline, of[:1], by[-1:], tmp_path, settings=ADAPTATION, show_progress=False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert planned(pipeline, tmp_path, of, by).work.startswith("10 cells")
    with pytest.raises(CellMismatchError, match=r"adaptation\.learning_rate: 0\.001 there, 0\.1 here"):
        planned(pipeline, tmp_path, of, by, settings=ADAPTATION | {"learning_rate": 0.1})
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_dropped_test_examples_take_no_time(pipeline, tmp_path, monkeypatch):
    def evaluated(*args, **kwargs):
        results = evaluate_methods(*args, **kwargs)
        for cell in results.cells:
            cell.seconds.clear()
            cell.seconds["predict"] = 6.0
        return results

    monkeypatch.setattr(plan_module, "evaluate_methods", evaluated)
    film, book = tasks()
    film = TargetTask("film", film.test, [*film.query_sets, load_queries(film.test["input"][:2])])
    # 6 examples of 8 are left of one task, on which it takes a second an example or, the task of 8 being tried out, 3/4 s.
    plan = planned(pipeline, tmp_path, [film, book], [Method("none")], on_overlap="drop", settings=ALL_ALIKE)
    assert plan.seconds.expected == pytest.approx((6 + 8) * 6 / 8)


def test_the_memory_is_what_the_methods_hold_at_their_peak(pipeline, tmp_path):
    # The peak is that of the whole process: other tests' until more than theirs is held.
    more = peak_memory() + 100 * MB

    class Holding(DenseRetriever):
        def rank(self, inputs, num_retrieved):
            held = []
            while peak_memory() < more + 10 * MB:  # Linux corrects its peak by some pages afterwards
                held.append(np.ones(50 * MB, dtype=np.uint8))
            return super().rank(inputs, num_retrieved)

    plan = planned(pipeline, tmp_path, tasks(), [Method("holding", Holding(pipeline.index))])
    assert plan.memory >= more


class GPU:
    """The memory of a GPU as PyTorch tells of it: 1 GB is held, 5 GB were once, 3 GB are free."""

    def __init__(self, monkeypatch):
        self.held, self.peak = GB, 5 * GB
        told = {
            "init": lambda: None,
            "empty_cache": lambda: None,
            "mem_get_info": lambda device: (3 * GB, 80 * GB),
            "memory_reserved": lambda device: self.held,
            "max_memory_reserved": lambda device: self.peak,
            "reset_peak_memory_stats": lambda device: setattr(self, "peak", self.held),
        }
        for name, answer in told.items():
            monkeypatch.setattr(torch.cuda, name, answer)


@pytest.mark.parametrize(("more", "fits"), [(2 * GB, True), (4 * GB, False)])
def test_the_memory_of_a_gpu_is_that_of_the_methods_alone(more, fits, pipeline, tmp_path, monkeypatch):
    gpu = GPU(monkeypatch)
    monkeypatch.setattr(EvaluationRun, "device", torch.device("cuda", 0))

    class OnGPU(DenseRetriever):
        def rank(self, inputs, num_retrieved):
            gpu.peak = max(gpu.peak, gpu.held + more)
            return super().rank(inputs, num_retrieved)

    plan = planned(pipeline, tmp_path, tasks(), [Method("on a GPU", OnGPU(pipeline.index))])
    assert (plan.device_memory, plan.resources.device_memory) == (GB + more, 4 * GB)
    warnings = [] if fits else ["This cannot fit: GPU memory of 5 GB is needed, there is 4 GB."]
    assert [warning.partition(" Use smaller batches")[0] for warning in plan.warnings] == warnings
