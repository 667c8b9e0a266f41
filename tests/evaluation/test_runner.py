"""The comparison of methods: cells, resuming, sharing, failures, scores."""

import copy
import gc
import json
import shutil

import evaluation_script
import numpy as np
import pytest
import tiny
from chat_templates import CHATML, chat_tokenizer
from evaluation_cases import ADAPTATION, LOG, LoggedRetriever, methods, task, tasks
from forks import fork
from peft import LoraConfig

from recross_hf import (
    DenseRetriever,
    EvaluationResults,
    Method,
    ReCrossPipeline,
    RetrievalAugmentedAdapter,
    TargetTask,
    evaluate_methods,
    load_examples,
    load_queries,
    rank_choices,
)
from recross_hf.evaluation import runner as evaluation_module
from recross_hf.evaluation.cells import CellKey, CellMismatchError
from recross_hf.evaluation.overlaps import OverlapError
from recross_hf.evaluation.run import prepare_evaluation
from recross_hf.evaluation.runner import compute_free_cells
from recross_hf.models.chat import set_chat_format


def evaluate(pipeline, folder, *, of=None, by=None, **kwargs):
    settings = ADAPTATION | kwargs.pop("settings", {})
    found = of or tasks(), by or methods(pipeline)
    return evaluate_methods(pipeline, *found, folder, settings=settings, show_progress=False, **kwargs)


@pytest.fixture(scope="module")
def finished(pipeline, tmp_path_factory):
    """The folder of a finished benchmark and its results."""
    folder = tmp_path_factory.mktemp("finished")
    results = evaluate(pipeline, folder)
    results.save(folder)
    return folder, results


def logged(path):
    return path.read_text().splitlines() if path.is_file() else []


def test_every_method_task_and_query_set_has_a_cell_in_the_order_of_tables(finished):
    folder, results = finished
    found = [(cell.method, cell.task, cell.query_set) for cell in results.cells if cell.kind != "floor"]
    assert found == [
        *(("none", name, -1) for name in ("film", "book")),
        *((method, name, number) for method in ("random", "dense") for name in ("film", "book") for number in (0, 1)),
    ]
    assert [cell.kind for cell in results.cells] == ["base"] * 2 + ["method"] * 8 + ["floor"] * 6
    assert len(results.predictions) == 8 * 16
    dense = next(cell for cell in results.cells if cell.method == "dense")
    assert (dense.num_queries, dense.num_retrieved, dense.upsampling_ratio, dense.family) == (3, 8, None, "dense")
    assert sum(dense.retrieved_tasks.values()) == pytest.approx(1)
    assert set(dense.seconds) == {"prepare", "retrieve", "train", "predict", "rank"}
    assert dense.details["settings"]["adaptation"]["num_retrieved"] == 8
    cell = json.loads((folder / dense.details["file"]).read_text())
    assert [len(cell["retrieved"][name]) for name in ("id", "task", "distance")] == [8, 8, 8]
    loaded = EvaluationResults.load(folder)
    assert loaded.predictions.to_list() == results.predictions.to_list()
    assert loaded.cells == results.cells


def test_predictions_are_those_of_the_pipeline(finished, pipeline):
    _, results = finished
    (film, _), rows = tasks(), results.predictions.to_pandas()
    base = rows[(rows.method == "none") & (rows.task == "film")]
    assert base.prediction.tolist() == pipeline(film.test["input"][:], max_new_tokens=4)
    assert base.id.tolist() == film.test["id"][:]
    adapted = pipeline.adapt(
        film.query_sets[1].select(range(3)), **{**ADAPTATION, "disable_tqdm": True, "seed": 43}, rerank=False
    )
    dense = rows[(rows.method == "dense") & (rows.task == "film") & (rows.query_set == 1)]
    assert dense.prediction.tolist() == adapted(film.test["input"][:])


def test_the_base_answers_with_the_settings_of_the_others(pipeline, tmp_path):
    of = [task("film", "film", 1)]
    results = evaluate(pipeline, tmp_path, of=of, settings={"max_target_length": 1})
    rows = results.predictions.to_pandas()
    inputs = of[0].test["input"][:]
    assert rows[rows.method == "none"].prediction.tolist() == pipeline(inputs, max_new_tokens=1)
    assert pipeline(inputs, max_new_tokens=1) != pipeline(inputs, max_new_tokens=4)


def test_cells_of_inputs_cut_at_the_left_are_none_of_those_cut_at_the_right(pipeline, tmp_path, monkeypatch):
    of, by = [task("film", "film", 1)], [Method("none")]
    evaluate_methods(pipeline, of, by, tmp_path, show_progress=False)
    monkeypatch.setattr(pipeline.processing_class, "truncation_side", "left")
    with pytest.raises(CellMismatchError, match="truncation_side"):
        evaluate_methods(pipeline, of, by, tmp_path, show_progress=False)


def test_cells_of_one_chat_template_are_none_of_another(tmp_path):
    tokenizer, of, by = chat_tokenizer(CHATML), [task("film", "film", 1)], [Method("none")]
    pipeline = ReCrossPipeline.build(tiny.llama(tokenizer), tokenizer, tiny.examples(), tmp_path / "built")
    evaluate_methods(pipeline, of, by, tmp_path / "cells", show_progress=False)
    evaluate_methods(pipeline, of, by, tmp_path / "cells", show_progress=False)
    set_chat_format(tokenizer, system_prompt="Be short.")
    with pytest.raises(CellMismatchError, match="chat"):
        evaluate_methods(pipeline, of, by, tmp_path / "cells", show_progress=False)


def test_a_task_of_other_turns_is_another_though_its_texts_are_the_same():
    turns = [
        [{"role": "system", "content": "Answer."}, {"role": "user", "content": f"Is {n} even?"}] for n in range(4)
    ]
    test = load_examples({"prompt": turns, "completion": ["yes", "no", "yes", "no"]})
    texts = load_examples({"input": test["input"][:], "references": test["references"][:]})
    spoken, written = (
        TargetTask("even", examples, [examples.select_columns([*{"id", "input", "messages"} & {*examples.features}])])
        for examples in (test, texts)
    )
    assert all(spoken.identity(0)[name] != written.identity(0)[name] for name in ("test", "queries"))


def test_choices_are_ranked_by_the_adapted_model(finished, pipeline):
    (film, _), rows = tasks(), finished[1].predictions.to_pandas()
    places = rank_choices(pipeline.model, pipeline.processing_class, film.test["input"][:], film.answers)
    right = [film.answers[row][place] in film.test[row]["references"] for row, place in enumerate(places)]
    assert rows[(rows.method == "none") & (rows.task == "film")].rank_correct.tolist() == right


def test_scores_and_floors_stand_in_the_same_table(finished):
    rows = finished[1].predictions.to_pandas()
    floors = rows[rows.method == "best constant"]
    assert set(floors.prediction) <= {"yes no", "no yes"}
    assert floors.soft_em.all() and not floors.exact_match.any() and not floors.in_answers.any()
    assert rows[rows.method == "majority answer"].exact_match.mean() == 0.5
    assert (rows[rows.method == "majority answer"].rank_correct == [True, False] * 8).sum() in (0, 8, 16)
    assert set(rows.num_words[rows.method == "echo"]) == {6}


def test_random_examples_differ_by_task_and_query_set(finished):
    folder, results = finished
    files = [folder / cell.details["file"] for cell in results.cells if cell.method == "random"]
    drawn = [tuple(json.loads(path.read_text())["retrieved"]["id"]) for path in files]
    assert len(set(drawn)) == 4
    assert json.loads(files[0].read_text())["retrieved"]["distance"] == [None] * 8


def test_a_killed_run_resumes_without_repeating_and_gives_the_same_bytes(finished, pipeline, tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv(LOG, str(log))
    compute, computed = evaluation_module.compute_cell, []

    def until_the_sixth(run, key):
        if len(computed) == 5:
            raise KeyboardInterrupt
        computed.append(key)
        return compute(run, key)

    monkeypatch.setattr(evaluation_module, "compute_cell", until_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        evaluate(pipeline, tmp_path)
    # Query set by query set: a run that is cut short has all tasks.
    assert computed == [
        *(CellKey("none", "film"), CellKey("none", "book")),
        *(CellKey("random", "film", 0), CellKey("dense", "film", 0), CellKey("random", "book", 0)),
    ]
    monkeypatch.setattr(evaluation_module, "compute_cell", compute)
    evaluate(pipeline, tmp_path).save(tmp_path)
    assert len(logged(log)) == 4
    assert (tmp_path / "results.parquet").read_bytes() == (finished[0] / "results.parquet").read_bytes()
    evaluate(pipeline, tmp_path)
    assert len(logged(log)) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"learning_rate": 1e-4}}, r"adaptation\.learning_rate: 0\.001 there, 0\.0001 here"),
        ({"of": [task("film", "movie"), task("book", "book")]}, r"task\.test: \w+\.\.\. there, \w+\.\.\. here"),
        ({"by": ["dense", 2]}, r"method\.num_queries: 3 there, 2 here; task\.queries"),
    ],
    ids=["a setting", "the test set", "the method"],
)
def test_a_cell_of_other_settings_is_refused(change, message, finished, pipeline):
    if "by" in change:
        change = {"by": [Method("dense", LoggedRetriever(pipeline.index), num_queries=2)]}
    with pytest.raises(CellMismatchError, match=message):
        evaluate(pipeline, finished[0], **change)


def test_what_says_nothing_about_the_result_is_no_other_setting(finished, pipeline, tmp_path):
    settings = {"output_dir": str(tmp_path), "disable_tqdm": False, "hub_token": "hf_secret"}
    assert (
        evaluate(pipeline, finished[0], settings=settings).predictions.to_list() == finished[1].predictions.to_list()
    )


class Failing(DenseRetriever):
    fails = True

    def rank(self, inputs, num_retrieved):
        if self.fails and "film" in inputs[0]:
            raise RuntimeError("the index\nis under water")
        return super().rank(inputs, num_retrieved)


def test_a_cell_that_fails_is_reported_and_tried_again_by_the_next_run(pipeline, tmp_path, monkeypatch):
    failing = [Method("none"), Method("failing", Failing(pipeline.index))]
    results = evaluate(pipeline, tmp_path, by=failing)
    errors = {(cell.task, cell.query_set): cell.error for cell in results.cells if cell.method == "failing"}
    assert errors == {
        ("film", 0): "is under water",
        ("film", 1): "is under water",
        ("book", 0): None,
        ("book", 1): None,
    }
    assert len(results.predictions.filter(lambda row: row["method"] == "failing")) == 16
    trace = json.loads((tmp_path / "cells" / "film" / "failing-0.failed.json").read_text())["traceback"]
    assert "RuntimeError: the index\nis under water" in trace
    monkeypatch.setattr(Failing, "fails", False)
    again = evaluate(pipeline, tmp_path, by=failing)
    assert not any(cell.error for cell in again.cells)
    assert not list(tmp_path.rglob("*.failed.json"))


def test_lora_and_a_reranker_go_through(pipeline, tmp_path):
    from evaluation_cases import ByLength

    reranker = ByLength()
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=2)
    chosen = [
        Method(f"by {way}", DenseRetriever(pipeline.index), reranker, {"select_by": way}, 3, lora)
        for way in ("example", "task")
    ]
    results = evaluate(pipeline, tmp_path, of=[task("film", "film", 1)], by=chosen)
    assert [cell.error for cell in results.cells[:2]] == [None, None]
    assert [cell.upsampling_ratio for cell in results.cells[:2]] == [2.0, 2.0]
    assert reranker.asked <= 16  # distinct candidates, once for both
    assert results.cells[0].details["settings"]["method"]["peft_config"]["r"] == 2


def test_what_the_safety_gate_said_stands_in_the_cell(pipeline, tmp_path):
    of, by = [task("film", "film", 1)], [Method("none"), Method("dense", DenseRetriever(pipeline.index))]
    # No loss falls where nothing is learned.
    results = evaluate(pipeline, tmp_path, of=of, by=by, settings={"gate": "strict", "learning_rate": 0.0})
    dense = next(cell for cell in results.cells if cell.method == "dense")
    assert dense.details["gate"]["kept"] is False
    assert "which is no improvement" in dense.details["gate"]["reason"]
    assert dense.seconds["gate"] > 0 and dense.seconds["train"] > 0
    rows = results.predictions.to_pandas()
    assert rows[rows.method == "dense"].prediction.tolist() == rows[rows.method == "none"].prediction.tolist()


def test_a_method_has_a_gate_where_it_says_so(pipeline, tmp_path):
    of = [task("film", "film", 1)]
    dense = DenseRetriever(pipeline.index)
    by = [Method("dense", dense), Method("gated", dense, settings={"gate": "form"})]
    results = evaluate(pipeline, tmp_path, of=of, by=by)
    gates = {cell.method: cell.details.get("gate") for cell in results.cells if cell.kind == "method"}
    assert gates["dense"] is None
    assert gates["gated"]["level"] == "form"
    adaptation = {
        cell.method: cell.details["settings"]["adaptation"] for cell in results.cells if cell.kind == "method"
    }
    assert (adaptation["dense"].get("gate"), adaptation["gated"]["gate"]) == (None, "form")
    # What is said for all methods does not undo what one says of itself, by whatever name.
    with pytest.warns(DeprecationWarning):
        results = evaluate(pipeline, tmp_path / "all", of=of, by=by, settings={"safety_gate": True})
    levels = {cell.method: cell.details["gate"]["level"] for cell in results.cells if cell.kind == "method"}
    assert levels == {"dense": "strict", "gated": "form"}


@pytest.mark.parametrize(("was", "gate"), [(True, "strict"), (False, "off"), (None, "off")])
def test_cells_of_the_gates_old_name_are_not_computed_again(was, gate, pipeline, tmp_path):
    of, by = [task("film", "film", 1)], [Method("dense", DenseRetriever(pipeline.index))]
    evaluate(pipeline, tmp_path, of=of, by=by, settings={"gate": gate})
    (path,) = tmp_path.glob("cells/film/*.json")
    cell = json.loads(path.read_text())
    cell["settings"]["adaptation"].pop("gate", None)
    if was is not None:
        cell["settings"]["adaptation"]["safety_gate"] = was
    path.write_text(json.dumps(cell))
    written = path.stat().st_mtime_ns
    evaluate(pipeline, tmp_path, of=of, by=by, settings={"gate": gate})
    assert path.stat().st_mtime_ns == written
    for other in {"strict", "off", "form"} - {gate}:
        with pytest.raises(CellMismatchError, match="gate"):
            evaluate(pipeline, tmp_path, of=of, by=by, settings={"gate": other})


def test_methods_tasks_and_settings_are_checked_before_anything_is_computed(pipeline, tmp_path):
    dense = Method("dense", DenseRetriever(pipeline.index))
    with pytest.raises(ValueError, match="Expected methods with different names, found dense twice"):
        evaluate(pipeline, tmp_path, by=[dense, dense])
    with pytest.raises(ValueError, match="Expected tasks with different names, found none"):
        evaluate_methods(pipeline, [], [dense], tmp_path)
    with pytest.raises(TypeError, match="learning_rat"):
        evaluate(pipeline, tmp_path, settings={"learning_rat": 1})
    with pytest.raises(ValueError, match="`on_overlap` must be one of refuse, report, drop, found 'ignore'"):
        evaluate(pipeline, tmp_path, on_overlap="ignore")
    adapted = ReCrossPipeline(
        pipeline.upstream_model, pipeline.processing_class, pipeline.index, adapted_model=pipeline.upstream_model
    )
    with pytest.raises(ValueError, match="Expected a pipeline that was not adapted"):
        evaluate(adapted, tmp_path)
    assert not (tmp_path / "cells").exists()


def overlapping(examples):
    """Two of its queries are test examples, one of its test examples is upstream, and so is its name."""
    film = task("colour", "film", 1)
    texts = [*film.test["input"][:2], "Is it new?"]
    columns = film.test.to_dict()
    columns["input"][5] = examples[0]["input"]
    return TargetTask("colour", type(film.test).from_dict(columns, features=film.test.features), [load_queries(texts)])


@pytest.mark.parametrize(("handling", "num_rows"), [("report", 8), ("drop", 6)])
def test_overlaps_are_refused_reported_or_dropped(handling, num_rows, pipeline, examples, tmp_path):
    of, by = [overlapping(examples)], [Method("dense", DenseRetriever(pipeline.index))]
    with pytest.raises(OverlapError, match="colour: 2 of 8 test examples in query sets"):
        evaluate(pipeline, tmp_path, of=of, by=by)
    results = evaluate(pipeline, tmp_path, of=of, by=by, on_overlap=handling, settings={"num_retrieved": 99})
    (cell,) = [cell for cell in results.cells if cell.kind == "method"]
    assert cell.error is None
    assert cell.details["overlaps"] == {
        "test_in_queries": 2,
        "upstream_in_test": 1,
        "upstream_examples": {"sentiment/0": "exact: " + of[0].test["id"][5]},
        "target_task_excluded_from_upstream": True,
        "handling": handling,
    }
    assert "colour" not in cell.retrieved_tasks
    retrieved = json.loads((tmp_path / cell.details["file"]).read_text())["retrieved"]["id"]
    assert ("sentiment/0" in retrieved) == (handling == "report")
    assert len(results.predictions.filter(lambda row: row["method"] == "dense")) == num_rows


def test_processes_share_the_cells_and_find_what_one_finds(finished, pipeline, tmp_path, monkeypatch):
    pipeline.save_pretrained(tmp_path / "pipeline")
    log = tmp_path / "log"
    monkeypatch.setenv(LOG, str(log))
    fork(evaluation_script.main, tmp_path, number=2)
    assert len(logged(log)) == len({line.split(" ", 1)[1] for line in logged(log)}) == 4
    for rank in range(2):
        assert (tmp_path / f"rank-{rank}" / "results.parquet").read_bytes() == (
            finished[0] / "results.parquet"
        ).read_bytes()


def test_cells_are_computed_in_the_order_that_is_asked_for_until_time_is_up(finished, pipeline, tmp_path, monkeypatch):
    run = prepare_evaluation(pipeline, tasks(), methods(pipeline), tmp_path / "cells", settings=ADAPTATION)
    asked = [CellKey("dense", "book", 1), CellKey("none", "film"), CellKey("dense", "film", 0)]
    compute_free_cells(run, asked, until=0)
    assert not any(map(run.files.is_finished, run.keys()))
    held, order = run.files.claimed(asked[1]), []
    compute = evaluation_module.compute_cell
    monkeypatch.setattr(evaluation_module, "compute_cell", lambda run, key: order.append(key) or compute(run, key))
    with held as is_mine:
        assert is_mine
        compute_free_cells(run, asked)  # it does not wait for the one that is held
    assert order == [asked[0], asked[2]]
    found = evaluate(pipeline, tmp_path / "cells")
    assert found.predictions.to_dict() == finished[1].predictions.to_dict()


def test_objects_that_were_frozen_are_so_again_and_those_of_the_application_stay_so(finished, pipeline):
    try:
        evaluate(pipeline, finished[0])
        assert gc.get_freeze_count() > 0  # the tests freeze what is there before a module
        gc.unfreeze()
        evaluate(pipeline, finished[0])
        assert gc.get_freeze_count() == 0
    finally:
        gc.freeze()


def test_a_users_tests_and_queries_stay_as_they_are(pipeline, tmp_path):
    (film, _), before = tasks(), tasks()[0].test.to_dict()
    evaluate(pipeline, tmp_path, of=[film], by=[Method("none")])
    assert film.test.to_dict() == before
    shutil.rmtree(tmp_path)
    assert np.all([len(queries) == 4 for queries in film.query_sets])


def test_a_model_that_ships_sampling_is_scored_greedily_and_what_else_it_ships_is_said(pipeline, tmp_path):
    shipped = copy.copy(pipeline)
    shipped.upstream_model = copy.deepcopy(pipeline.upstream_model)
    found = []
    for settings in ({"repetition_penalty": 1.5}, {"do_sample": True, "temperature": 5.0}):
        shipped.upstream_model.generation_config.update(**settings)
        results = evaluate(shipped, tmp_path / next(iter(settings)))
        assert {cell.details["settings"]["decoding"]["repetition_penalty"] for cell in results.cells[:10]} == {1.5}
        found.append(results.predictions["prediction"][:])
    assert found[0] == found[1]
    assert all(cell.details["settings"]["do_sample"] is False for cell in results.cells[:10])
    # Cells of earlier versions, which decoded by the model's configuration: those drawn at random are refused, others stay.
    for name, kept in (("repetition_penalty", True), ("do_sample", False)):
        shipped.upstream_model.generation_config.do_sample = None if kept else True
        for path in (tmp_path / name).rglob("*.json"):
            cell = json.loads(path.read_text())
            for added in ("decoding", "do_sample"):
                cell["settings"].pop(added, None)
            path.write_text(json.dumps(cell))
        if kept:
            assert evaluate(shipped, tmp_path / name).predictions["prediction"][:] == found[0]
        else:
            with pytest.raises(CellMismatchError, match="do_sample: None there, False here"):
                evaluate(shipped, tmp_path / name)


def test_the_memory_of_a_device_is_given_back_once_nothing_of_a_cell_is_alive(pipeline, tmp_path, monkeypatch):
    alive = []

    def cleared():
        alive.append([one for one in gc.get_objects() if isinstance(one, RetrievalAugmentedAdapter)])

    monkeypatch.setattr(evaluation_module, "clear_device_cache", cleared)
    dense = Method("dense", DenseRetriever(pipeline.index))
    evaluate_methods(pipeline, [task("film", "film")], [dense], tmp_path, settings=ADAPTATION, show_progress=False)
    assert alive == [[], []]
