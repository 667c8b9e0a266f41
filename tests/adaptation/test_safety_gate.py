import copy
import json
from dataclasses import asdict

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel

from recross_hf import AdaptationArguments, DenseRetriever, ReCrossPipeline, RetrievalAugmentedAdapter
from recross_hf.adaptation.results import adaptation_results, format_results
from recross_hf.adaptation.safety_gate import AnswerStats, GateEvidence, GateVerdict, hold_out, token_loss
from recross_hf.models.architectures import architecture_of
from recross_hf.models.tokenization import TokenizedExamples

# ---- what is held out --------------------------------------------------------------------------------------------------


def dataset_of(inputs: list[int]) -> Dataset:
    return Dataset.from_dict({"input": [f"text {number}" for number in inputs], "row": [*range(len(inputs))]})


@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=40).filter(lambda inputs: len(set(inputs)) > 1),
    st.floats(0.01, 0.99),
    st.integers(0, 3),
)
def test_nothing_that_is_held_out_is_trained_on(inputs, fraction, seed):
    learned, held_out = hold_out(dataset_of(inputs), fraction, seed)
    of_learned, of_held_out = set(learned["input"]), held_out["input"][:]
    assert not of_learned & set(of_held_out)
    assert len(of_held_out) == len(set(of_held_out))  # each once
    assert len(of_learned) + len(of_held_out) == len(set(inputs))
    assert min(len(learned), len(held_out)) >= 1
    assert abs(len(of_held_out) - fraction * len(set(inputs))) <= 1
    # Every repetition of what is learned stays, in its order.
    rows = learned["row"][:]
    assert rows == [row for row, number in enumerate(inputs) if f"text {number}" in of_learned]


def test_the_seed_decides_what_is_held_out():
    inputs = [*range(100)]
    first = hold_out(dataset_of(inputs), 0.1, 1)[1]["row"][:]
    assert len(first) == 10
    assert hold_out(dataset_of(inputs), 0.1, 1)[1]["row"][:] == first
    assert hold_out(dataset_of(inputs), 0.1, 2)[1]["row"][:] != first


def test_there_must_be_two_examples():
    with pytest.raises(
        ValueError, match=r"two distinct retrieved examples or more, .* found 1\. Raise `num_retrieved`"
    ):
        hold_out(dataset_of([3, 3, 3]), 0.1, 0)


@pytest.mark.parametrize("kind", ["bart", "gpt2"])
def test_the_loss_is_the_mean_over_all_tokens(kind, bart, tokenizer, examples):
    tokenizer = tokenizer if kind == "bart" else tiny.causal_tokenizer()
    model = copy.deepcopy(bart) if kind == "bart" else tiny.gpt2(tokenizer)
    model.train()
    architecture = architecture_of(model)
    answers = ["yes", "it is not known at all", "no"] * 4
    asked = (
        examples.select(range(12)).remove_columns("references").add_column("references", [[text] for text in answers])
    )
    tokenized = TokenizedExamples(asked, tokenizer, 60, 30, architecture=architecture)
    collate = architecture.collator(tokenizer, model)
    sums, counts = [], []
    model.eval()
    for item in tokenized:
        with torch.no_grad():
            sums.append(float(model(**collate([item])).loss) * len(item["labels"]))
        counts.append(len(item["labels"]))
    model.train()
    assert len(set(counts)) > 1
    for token_budget in (1, 200, 10_000):
        found = token_loss(model, tokenized, collate, token_budget=token_budget)
        assert found == pytest.approx(sum(sums) / sum(counts), abs=1e-4)
    assert model.training


# ---- what is a collapse ------------------------------------------------------------------------------------------------


def signs(answers: list[str], cut: int = 0) -> AnswerStats:
    return AnswerStats.of(answers, [10] * cut + [9] * (len(answers) - cut), 9)


DIVERSE = [f"answer {number}" for number in range(16)]
HALVES = ["yes"] * 8 + ["no"] * 8


def test_the_signs_are_shares():
    found = signs(["yes", "", "yes", "no"], cut=1)
    assert found == AnswerStats(4, "yes", 0.5, 0.25, 0.25)


@pytest.mark.parametrize(
    ("base", "adapted", "expected"),
    [
        (signs(DIVERSE), signs(DIVERSE), None),
        (signs(DIVERSE), signs(HALVES), None),
        (signs(DIVERSE), signs(["yes"] * 15 + ["no"]), "94% of the answers are 'yes' (base: 6% the same)"),
        (signs(DIVERSE), signs(["yes"] * 14 + ["no"] * 2), None),
        (signs(HALVES), signs(["yes"] * 16), "100% of the answers are 'yes' (base: 50% the same)"),
        (signs(["yes"] * 9 + ["no"] * 7), signs(["yes"] * 16), None),
        (signs(DIVERSE[:7]), signs(["yes"] * 7), None),
        (signs(DIVERSE), signs([""] * 5 + DIVERSE[5:]), "31% of the answers are empty (base: 0%)"),
        (signs(DIVERSE), signs([""] * 4 + DIVERSE[4:]), None),
        (signs(["a", ""]), signs(["a", ""]), None),
        (signs(DIVERSE, cut=2), signs(DIVERSE, cut=7), "44% of the answers do not end (base: 12%)"),
        (signs(DIVERSE, cut=3), signs(DIVERSE, cut=7), None),
    ],
)
def test_a_collapse_is_measured_by_the_base(base, adapted, expected):
    assert adapted.collapse_from(base) == expected


@pytest.mark.parametrize(
    ("loss", "answers", "kept", "reason"),
    [
        (
            0.5,
            DIVERSE,
            True,
            "The loss on 51 held-out retrieved examples went from 1.0000 to 0.5000, and the answers to the inputs did not "
            "collapse.",
        ),
        (
            1.0,
            DIVERSE,
            False,
            "The loss on 51 held-out retrieved examples went from 1.0000 to 1.0000, which is no improvement.",
        ),
        (
            0.5,
            ["Yes"] * 16,
            False,
            "100% of the answers are 'Yes' (base: 6% the same), though the loss on 51 held-out retrieved examples went from "
            "1.0000 to 0.5000.",
        ),
        (
            float("nan"),
            ["Yes"] * 16,
            False,
            "The loss on 51 held-out retrieved examples went from 1.0000 to nan, which is no improvement; 100% of the answers are "
            "'Yes' (base: 6% the same).",
        ),
    ],
)
def test_the_verdict_says_why(loss, answers, kept, reason):
    base, adapted = GateEvidence(1.0, signs(DIVERSE)), GateEvidence(loss, signs(answers))
    verdict = GateVerdict.on(base, adapted, 51)
    assert (verdict.kept, verdict.reason) == (kept, reason)


# ---- in an adaptation --------------------------------------------------------------------------------------------------

GOOD, HARMFUL = 1e-4, 3.0


@pytest.fixture
def make_adapter(answering_bart, tokenizer, index, tmp_path):
    def make(model=answering_bart, *, method="full", folder="adapted", query_dataset=None, **settings):
        settings = {"num_retrieved": 24, "max_steps": 4, "max_target_length": 10, "safety_gate": True} | settings
        return RetrievalAugmentedAdapter(
            model,
            AdaptationArguments(output_dir=str(tmp_path / folder), use_cpu=True, disable_tqdm=True, **settings),
            retriever=DenseRetriever(index),
            query_dataset=query_dataset or tiny.queries(),
            processing_class=tokenizer,
            peft_config=LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, lora_alpha=64) if method == "lora" else None,
        )

    return make


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_does_harm_is_not_kept(method, make_adapter, answering_bart, tokenizer, index, tmp_path, caplog):
    adapter = make_adapter(method=method, learning_rate=HARMFUL)
    before = weights(adapter.model)
    adapter.train()
    assert not adapter.gate.kept
    assert not adapter.gate.adapted.loss < adapter.gate.base.loss
    assert "The base model's weights were put back. The loss on" in caplog.text
    assert same(weights(adapter.model), before)
    adapter.save_model()
    if method == "lora":
        loaded = PeftModel.from_pretrained(copy.deepcopy(answering_bart), tmp_path / "adapted").eval()
    else:
        loaded = type(answering_bart).from_pretrained(tmp_path / "adapted").eval()
    batch = tokenizer(["Is it good?"], return_tensors="pt") | {"decoder_input_ids": torch.tensor([[2, 0, 9]])}
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, answering_bart(**batch).logits)
    pipeline = ReCrossPipeline(answering_bart, tokenizer, index)
    gated = pipeline.adapted(adapter)
    assert pipeline.gate is None
    assert gated.gate is adapter.gate
    assert gated(tiny.queries()) == pipeline(tiny.queries(), max_new_tokens=10)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_helps_is_kept_as_it_was_trained(method, make_adapter, bart):
    adapter = make_adapter(bart, method=method, learning_rate=GOOD, max_steps=8)
    before = weights(adapter.model)
    adapter.train()
    assert adapter.gate.kept, adapter.gate.reason
    assert adapter.gate.adapted.loss < adapter.gate.base.loss
    assert not same(weights(adapter.model), before)


def test_what_is_held_out_is_measured_and_not_trained_on(make_adapter, bart):
    adapter = make_adapter(bart, learning_rate=GOOD, gate_fraction=0.3, seed=5)
    adapter.train()
    learned, held_out = hold_out(adapter.retrieved, 0.3, 5)
    assert len(adapter.retrieved) == 24  # what was retrieved is told as it is
    assert adapter.gate.num_held_out == len(held_out) > 1
    decoded = adapter.processing_class.batch_decode(
        [item["input_ids"] for item in adapter.train_dataset], skip_special_tokens=True
    )
    assert decoded == learned["input"][:]
    assert adapter.gate.adapted.loss == pytest.approx(
        token_loss(adapter.model, adapter.tokenize(held_out), adapter.data_collator), abs=1e-6
    )


def test_the_seed_alone_decides_the_verdict(make_adapter):
    first, again, other = (make_adapter(learning_rate=GOOD, seed=seed) for seed in (1, 1, 2))
    for adapter in (first, again, other):
        adapter.train()
    assert again.gate == first.gate
    assert same(weights(again.model), weights(first.model))
    assert other.gate != first.gate


@pytest.mark.parametrize("learning_rate", [GOOD, HARMFUL])
def test_a_resumed_run_has_the_verdict_of_the_unbroken_one(learning_rate, make_adapter, tmp_path):
    saving = {"learning_rate": learning_rate, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    unbroken, resumed = make_adapter(**saving), make_adapter(folder="resumed", **saving)
    unbroken.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "adapted" / "checkpoint-2"))
    assert resumed.gate == unbroken.gate
    assert same(weights(resumed.model), weights(unbroken.model))
    ungated = make_adapter(folder="resumed", **saving | {"safety_gate": False})
    with pytest.raises(ValueError, match="found `safety_gate` False in place of True"):
        ungated.train(resume_from_checkpoint=str(tmp_path / "adapted" / "checkpoint-2"))


def test_answers_that_were_cut_are_seen(make_adapter):
    """ "yes" has five tokens, first and last among them."""
    shares = []
    for max_target_length in (3, 30):
        adapter = make_adapter(learning_rate=GOOD, max_steps=1, max_target_length=max_target_length)
        adapter.train()
        shares.append(adapter.gate.base.answers.unended_share)
    assert shares == [1.0, 0.0]


def test_without_it_nothing_is_held_out(make_adapter):
    adapter = make_adapter(learning_rate=HARMFUL, safety_gate=False)
    before = weights(adapter.model)
    adapter.train()
    assert adapter.gate is None
    assert len(adapter.train_dataset) == 24
    assert not same(weights(adapter.model), before)


def test_weights_that_are_spread_over_devices_are_refused(make_adapter):
    adapter = make_adapter()
    adapter.is_fsdp_enabled = True
    with pytest.raises(ValueError, match=r"whole weights in each process for `safety_gate`.*FSDP or DeepSpeed"):
        adapter.train()


def test_the_verdict_is_in_results_table_and_card(make_adapter, tmp_path):
    adapter = make_adapter(learning_rate=HARMFUL)
    adapter.train()
    assert adapter.seconds["gate"] > 0
    results = json.loads(
        json.dumps(adaptation_results(adapter.adaptation, adapter.retrieved, task="mine", seconds=adapter.seconds))
    )
    np.testing.assert_equal(results["gate"], asdict(adapter.gate))
    assert f"safety gate: not kept, the base's weights were put back. {adapter.gate.reason}" in format_results(results)
    adapter.create_model_card()
    card = (tmp_path / "adapted" / "README.md").read_text()
    assert "**The weights are those of the upstream model:** the adapted ones were not kept." in card
    assert adapter.gate.reason in card


def test_a_decoder_has_a_gate(make_adapter, examples, tmp_path):
    from recross_hf import RandomRetriever

    tokenizer = tiny.causal_tokenizer()
    adapter = RetrievalAugmentedAdapter(
        tiny.gpt2(tokenizer),
        AdaptationArguments(
            output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, max_steps=8, learning_rate=GOOD, num_retrieved=24,
            max_target_length=10, safety_gate=True,
        ),
        retriever=RandomRetriever(examples),
        query_dataset=tiny.queries(),
        processing_class=tokenizer,
    )  # fmt: skip
    adapter.train()
    assert adapter.gate.adapted.loss < adapter.gate.base.loss
    assert adapter.gate.adapted.answers.num_answers == 4
