"""What visitors can do, without a browser: retrieve, adapt, stop it, compare, take it away."""

import copy
import threading
import zipfile

import numpy as np
import pytest
import tiny

from recross_hf import LanceIndex, ReCrossPipeline
from recross_hf.data.schema import ExampleError
from recross_hf.retrieval.index_map import IndexMap
from recross_hf.web.actions import Actions
from recross_hf.web.adapted_visit import AdaptedVisit
from recross_hf.web.limits import Limits
from recross_hf.web.served import LORA_RATE, ServedPipeline
from recross_hf.web.training import Progress, Training
from recross_hf.web.visits import Visits

pytest.importorskip("peft", reason="the page trains adapters")
LIMITS = Limits(inputs=8, retrieved=24, steps=3)
TEXT = "\n".join(tiny.queries())


@pytest.fixture(scope="module", params=["faiss", pytest.param("lance", marks=pytest.mark.slow)])
def served(request, pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "pipeline"
    if request.param == "lance":
        pytest.importorskip("lance", reason="pylance is absent: pip install 'recross_hf[cluster]'")
        index, pipeline = pipeline.index, copy.copy(pipeline)
        pipeline.index = LanceIndex.build(index.dataset, index.encoder, folder.parent / "index.lance")
    pipeline.save_pretrained(folder)
    return ServedPipeline(ReCrossPipeline.from_pretrained(folder), LIMITS, str(folder))


@pytest.fixture
def actions(served, tmp_path):
    actions = Actions(served, Visits(LIMITS, tmp_path))
    yield actions
    actions.visits.end_all()


def adapted(actions, session="me", **settings):
    actions.retrieve(session, TEXT, settings.pop("labels", ""), None)
    *told, result = actions.adapt(session, **settings)
    assert all(isinstance(one, Progress) for one in told)
    return result


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_what_is_near_is_found_with_distances_and_without_a_task(actions):
    given, found = actions.retrieve("me", TEXT, "", None)
    assert given.texts == tiny.queries()
    assert len(found.retrieved) == LIMITS.retrieved
    assert found.places.shape == (len(given.texts), 2)
    taken = set(found.retrieved["id"][:])
    for rows in found.neighbours:
        assert len(rows) == 5
        distances = [row["distance"] for row in rows]
        assert distances == sorted(distances)
        assert all(row["is_taken"] == (row["id"] in taken) for row in rows)
    first = next(iter(found.shares))
    _, other = actions.exclude("me", [first])
    assert first not in other.shares
    assert not [row for rows in other.neighbours for row in rows if row["task"] == first]
    with pytest.raises(ValueError, match="Nothing is left"):
        actions.exclude("me", actions.served.tasks)
    assert actions.visits.of("me").found is other


def test_the_nearest_examples_are_those_of_a_search(actions, served):
    _, found = actions.retrieve("me", TEXT, "", None)
    hits = served.base.index.search(served.base.index.encoder.encode(tiny.queries()), k=5)
    ids = served.rows.select(np.arange(48))["id"][:]
    assert [[row["id"] for row in rows] for rows in found.neighbours] == [
        [ids[n] for n in row] for row in hits.positions
    ]
    assert np.allclose([[row["distance"] for row in rows] for rows in found.neighbours], hits.distances)


def test_an_adaptation_changes_nothing_for_others_and_says_what_changed(actions, served):
    before = weights(served.base.upstream_model)
    labels = "\n".join(["yes"] * 4)
    result = adapted(actions, labels=labels, max_steps=3)
    assert isinstance(result, AdaptedVisit)
    after = weights(served.base.upstream_model)
    assert all((before[name] == after[name]).all() for name in before)
    assert result.results["base"]["n"] == result.results["adapted"]["n"] == 4
    assert [pair["input"] for pair in result.pairs] == tiny.queries()
    assert list(result.answers[0]) == served.answers(served.base, tiny.queries())
    assert list(result.answers[1]) == served.answers(result.pipeline, tiny.queries())
    assert "exact match on 4 labelled examples went from" in result.verdict[0]
    assert not [sentence for sentence in result.verdict if "--gate" in sentence]
    # The base's weights are in memory once.
    shared = {value.data_ptr() for value in served.base.upstream_model.parameters()}
    theirs = [value for name, value in result.pipeline.adapted_model.named_parameters() if "lora" not in name]
    assert all(value.data_ptr() in shared for value in theirs)
    pair = actions.answer("me", tiny.queries()[0])
    assert "".join(text for text, _ in pair["answers"][0]) == result.answers[0][0]


def test_limits_hold_whatever_the_browser_asks_for(actions, served):
    args = served.arguments(num_retrieved=10**6, max_steps=10**6)
    assert (args.num_retrieved, args.max_steps) == (LIMITS.retrieved, LIMITS.steps)
    assert args.learning_rate == pytest.approx(LORA_RATE * served.base.arguments().learning_rate)
    assert served.arguments().max_steps == LIMITS.steps
    with pytest.raises(ExampleError, match="at most 8 inputs, found 9"):
        actions.retrieve("me", "a\n" * 9, "", None)
    result = adapted(actions, max_steps=1)
    assert result.settings["max_steps"] == 1
    with pytest.raises(ExampleError, match=r"at most 4,000 characters, found 5,000"):
        actions.answer("me", "a" * 5000)


def test_a_number_of_examples_of_the_visitor_is_retrieved_anew(actions):
    result = adapted(actions, max_steps=1, num_retrieved=16)
    assert len(result.found.retrieved) == 16


def test_what_comes_first_has_to_be_done_first(actions):
    for act in (lambda: next(actions.adapt("me")), lambda: actions.exclude("me", [])):
        with pytest.raises(ExampleError, match="Retrieve first"):
            act()
    for act in (lambda: actions.answer("me", "x"), lambda: actions.take_away("me")):
        with pytest.raises(ExampleError, match="Adapt first"):
            act()
    adapted(actions, max_steps=1)
    with pytest.raises(ExampleError, match="found none"):
        actions.answer("me", "  ")
    actions.retrieve("me", TEXT, "", None)  # what was adapted to other inputs is not shown beside these
    with pytest.raises(ExampleError, match="Adapt first"):
        actions.answer("me", "x")


def test_visitors_do_not_see_one_another(actions):
    mine, theirs = adapted(actions, "me", max_steps=1), None
    actions.retrieve("them", "Something else?", "", None)
    with pytest.raises(ExampleError, match="Adapt first"):
        actions.answer("them", "x")
    theirs = adapted(actions, "them", max_steps=2)
    assert actions.visits.of("me").adapted is mine
    assert actions.visits.of("them").adapted is theirs
    assert not set(actions.visits.of("me").downloads) & set(actions.visits.of("them").downloads)


def stopping_after(actions, session, step):
    """Cancels as soon as a training has done a step."""
    stepped = Training.stepped

    def stop(training, *numbers):
        stepped(training, *numbers)
        if training.progress.step == step:
            actions.cancel(session)

    return stop


def test_a_cancelled_adaptation_leaves_nothing_and_the_next_one_works(actions, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Training, "stepped", stopping_after(actions, "me", 1))
        actions.retrieve("me", TEXT, "", None)
        assert all(isinstance(told, Progress) and told.step <= 1 for told in actions.adapt("me", max_steps=3))
    assert actions.visits.of("me").adapted is None
    assert not actions.served.one_at_a_time.locked()
    actions.queue("me")
    assert isinstance(adapted(actions, max_steps=1), AdaptedVisit)


def test_an_adaptation_that_is_asked_for_at_once_does_not_wake_the_one_that_was_cancelled(actions, monkeypatch):
    begun, asked = threading.Event(), threading.Event()

    def stepped(training, step, *_):
        begun.set()
        asked.wait(60)
        assert step == 1

    monkeypatch.setattr(Training, "stepped", stepped)
    actions.retrieve("me", TEXT, "", None)
    telling = actions.adapt("me", max_steps=3)
    next(telling)
    assert begun.wait(60)
    actions.cancel("me")
    actions.queue("me")
    asked.set()
    assert all(isinstance(told, Progress) for told in telling)


def test_a_visitor_who_leaves_stops_the_training_and_the_folder_goes(actions, monkeypatch):
    begun = threading.Event()

    def stepped(training, *_):
        begun.set()
        training.visit.is_cancelled.wait(60)

    monkeypatch.setattr(Training, "stepped", stepped)
    actions.retrieve("me", TEXT, "", None)
    visit = actions.visits.of("me")
    telling = actions.adapt("me", max_steps=3)
    next(telling)
    assert begun.wait(60)
    folder = visit.folder
    assert folder.is_dir()
    actions.visits.end("me")
    telling.close()  # waits for the end of the training
    assert not folder.exists()
    assert not actions.served.one_at_a_time.locked()


def test_one_training_waits_for_the_other_and_may_be_cancelled_meanwhile(actions):
    actions.retrieve("me", TEXT, "", None)
    with actions.served.one_at_a_time:
        telling = actions.adapt("me", max_steps=1)
        assert next(telling).stage == Training.WAITING
        actions.cancel("me")
        assert all(told.stage == Training.WAITING for told in telling)
    assert actions.visits.of("me").adapted is None


def test_a_training_does_not_mind_what_others_do_meanwhile(actions, monkeypatch):
    adapted(actions, "them", max_steps=1)
    stepped = Training.stepped

    def step(training, *numbers):
        stepped(training, *numbers)
        actions.retrieve("them", TEXT, "", None)
        actions.exclude("them", [])
        actions.visits.of("them").adapted = theirs
        actions.answer("them", "Is this review good?")

    theirs = actions.visits.of("them").adapted
    actions.retrieve("me", TEXT, "", None)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "stepped", step)
        *_, result = actions.adapt("me", max_steps=3)
    assert isinstance(result, AdaptedVisit)


def test_an_error_of_the_training_is_raised_where_it_is_shown(actions, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of memory")

    actions.retrieve("me", TEXT, "", None)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "stepped", broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            list(actions.adapt("me", max_steps=1))
    assert not actions.served.one_at_a_time.locked()


def test_the_adapter_is_taken_away_and_the_ten_lines_load_it_and_make_it_anew(
    actions, served, tmp_path, monkeypatch, capsys
):
    first = next(iter(actions.retrieve("me", TEXT, "", None)[1].shares))
    actions.exclude("me", [first])
    *_, result = actions.adapt("me", max_steps=3, gate="off")
    zipped, report = actions.take_away("me")
    assert "What was adapted: " in report.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(zipped) as archive:
        names = {name.removeprefix("adapter/") for name in archive.namelist()} - {""}
        archive.extractall(tmp_path)
    assert {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
        "report.html",
        "retrieved.parquet",
    } <= names
    for name in names - {"adapter_model.safetensors", "retrieved.parquet"}:
        text = (tmp_path / "adapter" / name).read_text(encoding="utf-8")
        assert str(zipped.parent) not in text, name
        assert name == "report.html" or served.name not in text, name  # its Python opens the pipeline by its name
    (tmp_path / "inputs.txt").write_text(TEXT)
    assert len([line for line in result.code.splitlines() if line]) <= 11
    assert max(map(len, result.code.splitlines())) <= 120
    made = {}
    exec(result.code.replace('"one more input"', repr(tiny.queries()[0])), made)
    assert capsys.readouterr().out.startswith(result.answers[1][0])
    assert made["adapted"](tiny.queries()) == list(result.answers[1])


def test_where_the_gate_refuses_there_is_no_adapter_to_take(actions, monkeypatch):
    from recross_hf.adaptation import safety_gate

    monkeypatch.setattr(safety_gate, "lost_form", lambda *_: ["The answers got longer."])
    result = adapted(actions, max_steps=3, gate="form")
    assert not result.is_kept
    assert "The base model's weights were put back. The answers got longer." in result.verdict
    assert not [pair for pair in result.pairs if pair["is_changed"]]
    zipped, report = actions.take_away("me")
    assert zipped is None
    assert report.is_file()


def test_a_file_comes_before_what_is_pasted_and_is_removed(actions, tmp_path):
    path = tmp_path / "inputs.txt"
    path.write_text("From a file?\n")
    actions.drop("me", path)
    assert not path.exists()
    assert actions.retrieve("me", TEXT, "", None)[0].texts == ["From a file?"]
    actions.undrop("me")
    assert actions.retrieve("me", TEXT, "", None)[0].texts == tiny.queries()
    path.write_bytes(b"\x89PNG")
    with pytest.raises(ExampleError):
        actions.drop("me", path)
    assert not path.exists()


def test_the_inputs_of_a_starter_task_are_scored_on_its_test_examples(actions):
    from recross_hf import load_starter_task

    inputs = load_starter_task("bus_stop")[0]["input"][:]
    many = Actions(ServedPipeline(actions.served.base, Limits(scored=5), "x"), actions.visits)
    given, _ = many.retrieve("me", "\n".join(inputs), "", "bus_stop")
    assert (given.task, len(given.labelled)) == ("bus_stop", 5)
    assert many.retrieve("me", "\n".join(inputs[1:]), "", "bus_stop")[0].labelled is None  # somebody changed them
    assert many.retrieve("me", inputs[0], "hive", "bus_stop")[0].labelled["references"][:] == [["hive"]]


@pytest.mark.parametrize(
    ("repo_id", "token", "said"),
    [("", "hf_x", "name of a repository"), ("a b", "hf_x", "name of a repository"), ("me/x", " ", "a token of yours")],
)
def test_nothing_is_pushed_without_a_name_and_a_token_of_the_visitor(repo_id, token, said, actions):
    adapted(actions, max_steps=1)
    with pytest.raises(ExampleError, match=said):
        actions.push("me", repo_id, token, private=True)


def test_what_answers_is_copied_and_encodes_while_nobody_else_uses_it(actions, served, monkeypatch):
    model, held = served.base.upstream_model, []

    def copied(memo):
        held.append(served.lock.locked())
        del vars(model)["__deepcopy__"]
        try:
            return copy.deepcopy(model, memo)
        finally:
            vars(model)["__deepcopy__"] = copied

    def drawn(index):
        held.append(fresh.lock.locked())

    monkeypatch.setitem(vars(model), "__deepcopy__", copied)
    adapted(actions)
    monkeypatch.undo()
    fresh = ServedPipeline(served.base, LIMITS)
    monkeypatch.setattr(IndexMap, "of", drawn)
    assert fresh.index_map is None
    assert len(held) == 3 and all(held)
