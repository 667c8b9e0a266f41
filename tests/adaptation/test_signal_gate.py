"""The gate by signals: its score, its words, and what it does to an adaptation."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import tiny
from contents import same, weights
from peft import LoraConfig

from recross_hf import AdaptationArguments, DenseRetriever, ReCrossPipeline, RetrievalAugmentedAdapter
from recross_hf.adaptation import signal_gate
from recross_hf.adaptation.gate_score import CALIBRATED, GateScore, WeighedSignal, in_words
from recross_hf.adaptation.results import adaptation_results, format_results

FELL = WeighedSignal("held_out_fall", weight=2.0, mean=0.1, scale=0.5, low=-1.0, high=0.6)
SCORE = GateScore((FELL, WeighedSignal("changed", -1.0, 0.5, 0.25, 0.0, 1.0)), intercept=0.5, threshold=0.5)


def test_the_score_is_that_of_the_regression():
    numbers = {"held_out_fall": 0.35, "changed": 1.0, "is_finite": 1.0}
    assert SCORE.probability(numbers) == pytest.approx(1 / (1 + math.exp(-(0.5 + 1.0 - 2.0))))
    # Beyond what was seen, a signal says no more.
    assert SCORE.probability(numbers | {"held_out_fall": 9.0}) == SCORE.probability(numbers | {"held_out_fall": 0.6})
    # What is not known is taken as usual.
    assert SCORE.probability({"held_out_fall": None}) == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert SCORE.probability(numbers | {"is_finite": 0.0}) == 0
    assert CALIBRATED.probability({}) >= CALIBRATED.threshold


def test_a_score_is_read_as_the_benchmark_writes_it():
    content = {"signals": [asdict(FELL)], "intercept": 0.5, "threshold": 0.4, "rates": {}, "auc": 0.8}
    assert GateScore.from_json(json.loads(json.dumps(content))) == GateScore((FELL,), 0.5, 0.4)
    assert not GateScore.from_json(content | {"asks_form": False}).asks_form


def test_the_score_is_told_in_words():
    numbers = {"held_out_fall": 0.12, "held_out_fall_error": 0.03, "num_held_out": 32.0, "changed": 0.25}
    assert SCORE.reason(numbers) == (
        "Of adaptations with such signs, about 83 in 100 help, and 50 are asked for: the loss on 32 further neighbours fell by "
        "0.12 nats a token (standard error 0.03); 25% of the answers changed."
    )
    assert "neighbours rose by 0.12" in SCORE.reason(numbers | {"held_out_fall": -0.12})
    assert SCORE.reason({}) == "Of adaptations with such signs, about 62 in 100 help, and 50 are asked for."
    assert "diverged" in SCORE.reason({"is_finite": 0.0})
    assert (
        in_words("options_margin_gain", {"options_margin_gain": -0.1})
        == "the lead of the likeliest option fell by 10%"
    )
    assert in_words("a_new_one", {"a_new_one": 1.5}) == "the signal a_new_one is 1.50"


# ---- in an adaptation ---------------------------------------------------------------------------------------------------


@pytest.fixture
def make_adapter(answering_bart, tokenizer, index, tmp_path, monkeypatch):
    def make(score, *, model=answering_bart, method="full", folder="adapted", **settings):
        monkeypatch.setattr(signal_gate, "CALIBRATED", score)
        settings = {"num_retrieved": 24, "max_steps": 4, "max_target_length": 10, "gate": "off"} | settings
        adapter = RetrievalAugmentedAdapter(
            model,
            AdaptationArguments(output_dir=str(tmp_path / folder), use_cpu=True, disable_tqdm=True, **settings),
            retriever=DenseRetriever(index),
            query_dataset=tiny.queries(),
            processing_class=tokenizer,
            peft_config=LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, lora_alpha=64) if method == "lora" else None,
        )
        adapter.args.gate = settings["gate"] if settings["gate"] == "form" else signal_gate.LEVEL
        return adapter

    return make


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_has_too_low_a_score_is_not_kept(method, make_adapter, answering_bart, tokenizer, index, caplog):
    never = replace(CALIBRATED, threshold=0.9)
    adapter = make_adapter(never, method=method, learning_rate=1e-2)
    before = weights(adapter.model)
    adapter.train()
    assert not adapter.gate.kept
    assert (adapter.gate.level, adapter.gate.probability) == ("signals", 0.5)
    assert adapter.gate.reason in caplog.text
    assert same(weights(adapter.model), before)
    assert adapter.gate.signals["first_divergence"] > 0  # of what was trained
    pipeline = ReCrossPipeline(answering_bart, tokenizer, index)
    assert pipeline.adapted(adapter)(tiny.queries()) == pipeline(tiny.queries(), max_new_tokens=10)
    assert all(before == after for before, after in adapter.gate_answers.values())
    assert sorted(adapter.gate_answers) == sorted(adapter.answered_by_gate()) == sorted(tiny.queries())


def test_what_is_kept_is_what_is_trained_without_a_gate(make_adapter, bart):
    kept = make_adapter(SCORE, model=bart, learning_rate=1e-3)
    kept.train()
    assert kept.gate.kept, kept.gate.reason
    assert "further neighbours fell" in kept.gate.reason
    assert len(kept.train_dataset) == 24  # all that was retrieved
    assert kept.gate.num_held_out == kept.gate.signals["num_held_out"] > 0
    assert kept.gate.adapted.loss < kept.gate.base.loss
    ungated = make_adapter(SCORE, model=bart, learning_rate=1e-3, folder="ungated")
    ungated.args.gate = "off"
    ungated.train()
    assert same(weights(kept.model), weights(ungated.model))


def test_a_lost_form_is_refused_whatever_the_score(make_adapter, monkeypatch):
    always = replace(CALIBRATED, threshold=0.0)
    monkeypatch.setattr(
        "recross_hf.adaptation.signal_recorder.lost_form", lambda *args: ["4 of 4 answers ended; now none do."]
    )
    adapter = make_adapter(always, learning_rate=1e-5)
    adapter.train()
    assert not adapter.gate.kept
    assert adapter.gate.reason.startswith("4 of 4 answers ended; now none do. Of adaptations")
    lenient = make_adapter(replace(always, asks_form=False), learning_rate=1e-5, folder="lenient")
    lenient.train()
    assert lenient.gate.kept


def test_a_resumed_run_has_the_verdict_of_the_unbroken_one(make_adapter, tmp_path):
    saving = {"learning_rate": 1e-4, "save_strategy": "steps", "save_steps": 2}
    unbroken, resumed = make_adapter(SCORE, **saving), make_adapter(SCORE, folder="resumed", **saving)
    unbroken.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "adapted" / "checkpoint-2"))
    assert resumed.gate == unbroken.gate
    assert same(weights(resumed.model), weights(unbroken.model))


def test_the_verdict_and_the_signals_are_in_results_table_and_card(make_adapter, tmp_path):
    adapter = make_adapter(replace(CALIBRATED, threshold=0.9), learning_rate=1e-3)
    adapter.train()
    found = adaptation_results(adapter.adaptation, adapter.retrieved, task="mine", seconds=adapter.seconds)
    results = json.loads(json.dumps(found, allow_nan=False))
    np.testing.assert_equal(results["gate"], asdict(adapter.gate) | {"lost_form": list(adapter.gate.lost_form)})
    assert results["gate"]["signals"]["num_answers"] == 4
    said = f"safety gate (signals): not kept, the base's weights were put back. {adapter.gate.reason}"
    assert said in format_results(results)
    adapter.create_model_card()
    card = (tmp_path / "adapted" / "README.md").read_text()
    assert adapter.gate.reason in card
