"""The page serves any pipeline: a decoder-only model, an upstream model that is an adapter, one with a reranker, one that was adapted."""

import copy
import zipfile

import pytest
import tiny

from recross_hf import CrossEncoderReranker, ReCrossPipeline
from recross_hf.web.actions import Actions
from recross_hf.web.inputs import given_as_text
from recross_hf.web.limits import Limits
from recross_hf.web.served import ServedPipeline
from recross_hf.web.visits import Visits

peft = pytest.importorskip("peft", reason="the page trains adapters")
LIMITS = Limits(retrieved=12, steps=2)
ADAPTATION = {"max_input_length": 64, "max_target_length": 8, "learning_rate": 1e-2}
TEXT = "\n".join(tiny.queries())
KINDS = {"bart": (tiny.bart, "SEQ_2_SEQ_LM"), "llama": (tiny.llama, "CAUSAL_LM")}


@pytest.fixture(scope="module", params=[(kind, on) for kind in KINDS for on in ("whole", "adapter")], ids="-".join)
def served(request, examples, tmp_path_factory):
    kind, upstream = request.param
    build, task_type = KINDS[kind]
    tokenizer = tiny.tokenizer()
    model = build(tokenizer, dropout=0.0)
    if upstream == "adapter":
        config = peft.LoraConfig(task_type=task_type, r=4, target_modules="all-linear", init_lora_weights=False)
        model = peft.get_peft_model(model, config).eval()
    folder = tmp_path_factory.mktemp("built") / "pipeline"
    ReCrossPipeline.build(model, tokenizer, examples, folder, adaptation=ADAPTATION)
    return ServedPipeline(ReCrossPipeline.from_pretrained(folder), LIMITS, str(folder))


@pytest.fixture
def actions(served):
    actions = Actions(served, Visits(LIMITS))
    yield actions
    actions.visits.end_all()


def test_any_pipeline_goes_the_whole_way(actions, served, tmp_path, monkeypatch):
    actions.retrieve("me", TEXT, "", None)
    *_, result = actions.adapt("me", gate="off")
    assert list(result.answers[0]) == served.answers(served.base, tiny.queries())
    assert list(result.answers[1]) == served.answers(result.pipeline, tiny.queries())
    zipped, _ = actions.take_away("me")
    zipfile.ZipFile(zipped).extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    pipeline = ReCrossPipeline.from_pretrained(served.name)
    pipeline.add_adapted("mine", "adapter")
    assert pipeline.adapted_as("mine")(tiny.queries()) == list(result.answers[1])
    compile(result.code, "code", "exec")
    rate = result.settings["learning_rate"]
    has_adapter = hasattr(served.base.upstream_model, "peft_config")
    assert rate == pytest.approx(1e-2 if has_adapter else 5e-2)
    assert ("LoraConfig" in result.code) != has_adapter


def test_what_an_adapted_pipeline_was_adapted_from_is_what_is_shown(pipeline):
    adapted = pipeline.adapt(tiny.queries(), num_retrieved=8, max_steps=4, learning_rate=0.5, gate="off")
    assert adapted(tiny.queries()) != pipeline(tiny.queries())
    served = ServedPipeline(adapted, LIMITS, "x")
    assert served.answers(served.base, tiny.queries()) == pipeline(tiny.queries())
    assert adapted.adapted_model is not None


def test_a_reranker_chooses_what_is_learned_from(pipeline, pair_tokenizer, cross_encoder):
    with_reranker = copy.copy(pipeline)
    with_reranker.reranker = CrossEncoderReranker(cross_encoder, pair_tokenizer, max_length=50)
    served = [ServedPipeline(one, LIMITS, "x") for one in (pipeline, with_reranker)]
    found = [one.retrieve(given_as_text(TEXT, "", LIMITS)) for one in served]
    assert "score" not in found[0].retrieved.column_names
    assert "score" in found[1].retrieved.column_names
    assert [[row["id"] for row in rows] for rows in found[0].neighbours] == [
        [row["id"] for row in rows] for rows in found[1].neighbours
    ]


def test_an_index_of_fewer_examples_than_are_shown(answering_bart, tokenizer, examples, tmp_path):
    few = ReCrossPipeline.build(answering_bart, tokenizer, examples.select(range(3)), tmp_path / "few")
    actions = Actions(ServedPipeline(few, LIMITS, "x"), Visits(LIMITS))
    _, found = actions.retrieve("me", TEXT, "", None)
    assert [len(rows) for rows in found.neighbours] == [3] * 4
    assert found.places.shape == (4, 2)
