import copy
import gc
import json
import weakref
from dataclasses import asdict

import numpy as np
import pytest
import tiny
import torch
from contents import same, weights
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel

from recross_hf import AdaptationArguments, DenseRetriever, ReCrossPipeline, RetrievalAugmentedAdapter
from recross_hf.adaptation.answer_form import MOST_ANSWERS, AnswerForm, gate_inputs
from recross_hf.adaptation.results import adaptation_results, format_results
from recross_hf.adaptation.safety_gate import (
    GateEvidence,
    GateVerdict,
    hold_out,
    level_in_force,
    token_loss,
)
from recross_hf.adaptation.weights_before import WeightsBefore
from recross_hf.data.conversations import Conversation
from recross_hf.models.architectures import architecture_of
from recross_hf.models.generation import Answer
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


# ---- the verdict ---------------------------------------------------------------------------------------------------------

LOST = ["15 of 16 answers ended; now 2 do.", "16 of 16 answers had text; now 9 have."]


def evidence(loss: float | None = None) -> GateEvidence:
    return GateEvidence(loss, AnswerForm.of([Answer("yes", True)] * 16, [frozenset()] * 16))


@pytest.mark.parametrize(
    ("loss", "lost", "kept", "reason"),
    [
        (0.5, [], True, "The loss on 51 held-out retrieved examples went from 1.0000 to 0.5000, and the answers to the inputs kept their form."),
        (1.0, [], False, "The loss on 51 held-out retrieved examples went from 1.0000 to 1.0000, which is no improvement."),
        (0.5, LOST, False, f"{' '.join(LOST)} The loss on 51 held-out retrieved examples went from 1.0000 to 0.5000, all the same."),
        (float("nan"), LOST[:1], False, f"The loss on 51 held-out retrieved examples went from 1.0000 to nan, which is no improvement. {LOST[0]}"),
    ],
)  # fmt: skip
def test_the_strict_verdict_says_why(loss, lost, kept, reason):
    verdict = GateVerdict.on(evidence(1.0), evidence(loss), lost, 51)
    assert (verdict.kept, verdict.reason, verdict.level, verdict.num_held_out) == (kept, reason, "strict", 51)


@pytest.mark.parametrize("loss", [0.5, 2.0])
def test_a_reason_says_where_held_out_examples_are_too_few_to_tell_and_the_verdict_stays(loss):
    few, enough = (GateVerdict.on(evidence(1.0), evidence(loss), [], number) for number in (4, 5))
    assert "So few examples do not tell a change of the loss from chance" in few.reason
    assert "So few" not in enough.reason
    assert few.kept == enough.kept == (loss < 1)


@pytest.mark.parametrize("lost", [[], LOST])
def test_the_verdict_on_the_form_says_why(lost):
    verdict = GateVerdict.on(evidence(), evidence(), lost)
    assert verdict.kept == (not lost)
    assert verdict.reason == (" ".join(LOST) if lost else "The answers to the inputs kept their form.")
    assert (verdict.level, verdict.num_held_out, verdict.lost_form) == ("form", 0, tuple(lost))


def test_the_inputs_of_the_gate_are_distinct_and_know_no_order():
    inputs = [f"input {number % 100}" for number in range(150)]
    found = gate_inputs(inputs)
    assert len(found) == len(set(found)) == MOST_ANSWERS
    assert gate_inputs(inputs[::-1]) == found
    assert gate_inputs(["b", "a", "b"]) == gate_inputs(["a", "b"])
    system = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    conversations = [Conversation(system), Conversation([system[1] | {"content": "a\n\nb"}])]  # of one text
    assert gate_inputs(conversations) == gate_inputs(conversations[::-1])


# ---- in an adaptation --------------------------------------------------------------------------------------------------

GOOD, HARMFUL = 1e-4, 3.0


@pytest.fixture
def make_adapter(answering_bart, tokenizer, index, tmp_path):
    def make(model=answering_bart, *, method="full", folder="adapted", query_dataset=None, **settings):
        settings = {"num_retrieved": 24, "max_steps": 4, "max_target_length": 10, "gate": "strict"} | settings
        return RetrievalAugmentedAdapter(
            model,
            AdaptationArguments(output_dir=str(tmp_path / folder), use_cpu=True, disable_tqdm=True, **settings),
            retriever=DenseRetriever(index),
            query_dataset=query_dataset or tiny.queries(),
            processing_class=tokenizer,
            peft_config=LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, lora_alpha=64) if method == "lora" else None,
        )

    return make


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
    ungated = make_adapter(folder="resumed", **saving | {"gate": "off"})
    with pytest.raises(ValueError, match="found `gate` form or off in place of strict"):
        ungated.train(resume_from_checkpoint=str(tmp_path / "adapted" / "checkpoint-2"))


@pytest.mark.parametrize(("was", "gate"), [(True, "strict"), (False, "form"), (False, "off")])
def test_a_checkpoint_of_the_old_argument_is_resumed(was, gate, make_adapter, tmp_path):
    saving = {"learning_rate": GOOD, "save_strategy": "steps", "save_steps": 2, "gate": gate}
    make_adapter(**saving).train()
    checkpoint = tmp_path / "adapted" / "checkpoint-2"
    written = json.loads((checkpoint / "training_args.json").read_text())
    del written["gate"]
    (checkpoint / "training_args.json").write_text(json.dumps(written | {"safety_gate": was}))
    make_adapter(folder="resumed", **saving).train(resume_from_checkpoint=str(checkpoint))
    other = make_adapter(folder="resumed", **saving | {"gate": "off" if was else "strict"})
    with pytest.raises(ValueError, match="found `gate`"):
        other.train(resume_from_checkpoint=str(checkpoint))


def test_answers_that_were_cut_are_seen(make_adapter):
    """ "yes" has five tokens, first and last among them."""
    shares = []
    for max_target_length in (3, 30):
        adapter = make_adapter(learning_rate=GOOD, max_steps=1, max_target_length=max_target_length)
        adapter.train()
        shares.append(adapter.gate.base.answers.unended_share)
    assert shares == [1.0, 0.0]


def test_without_it_nothing_is_held_out(make_adapter):
    adapter = make_adapter(learning_rate=HARMFUL, gate="off")
    before = weights(adapter.model)
    adapter.train()
    assert adapter.gate is None
    assert len(adapter.train_dataset) == 24
    assert not same(weights(adapter.model), before)


def test_weights_that_are_spread_over_devices_are_refused(make_adapter):
    adapter = make_adapter()
    adapter.is_fsdp_enabled = True
    with pytest.raises(ValueError, match=r"whole weights in each process for `gate='strict'`.*FSDP or DeepSpeed"):
        adapter.train()


def test_the_default_says_that_it_cannot_put_back_what_is_spread_over_devices(make_adapter, caplog):
    adapter = make_adapter(gate="form")
    assert adapter.answered_by_gate() == gate_inputs(tiny.queries())
    adapter.is_deepspeed_enabled = True
    level_in_force.__globals__["_say_there_is_no_gate"].cache_clear()
    for _ in range(2):
        assert level_in_force(adapter) == "off"
    assert adapter.answered_by_gate() == []
    assert [record.getMessage()[:58] for record in caplog.records].count(
        "The safety gate is off: it needs whole weights in each pro"
    ) == 1


def test_the_verdict_is_in_results_table_and_card(make_adapter, tmp_path):
    adapter = make_adapter(learning_rate=HARMFUL)
    adapter.train()
    assert adapter.seconds["gate"] > 0
    results = json.loads(
        json.dumps(adaptation_results(adapter.adaptation, adapter.retrieved, task="mine", seconds=adapter.seconds))
    )
    np.testing.assert_equal(results["gate"], asdict(adapter.gate))
    assert (
        f"safety gate (strict): not kept, the base's weights were put back. {adapter.gate.reason}"
        in format_results(results)
    )
    adapter.create_model_card()
    card = (tmp_path / "adapted" / "README.md").read_text()
    assert "**The weights are those of the upstream model:** the adapted ones were not kept." in card
    assert adapter.gate.reason in card
    assert "| ended | 4 of 4 |" in card


def test_a_decoder_has_a_gate(make_adapter, examples, tmp_path):
    from recross_hf import RandomRetriever

    tokenizer = tiny.causal_tokenizer()
    adapter = RetrievalAugmentedAdapter(
        tiny.gpt2(tokenizer),
        AdaptationArguments(
            output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, max_steps=8, learning_rate=GOOD, num_retrieved=24,
            max_target_length=10, gate="strict",
        ),
        retriever=RandomRetriever(examples),
        query_dataset=tiny.queries(),
        processing_class=tokenizer,
    )  # fmt: skip
    adapter.train()
    assert adapter.gate.adapted.loss < adapter.gate.base.loss
    assert adapter.gate.adapted.answers.num_answers == 4


# ---- the form alone ------------------------------------------------------------------------------------------------------


@pytest.fixture
def films():
    return [f"Is the review good? It was a {word} film." for word in tiny.TASKS["sentiment"][0][1]] + [
        f"Is the review good? It was a {word} film. (No. {number})"
        for number, word in enumerate(("lovely", "dull") * 6)
    ]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_loses_the_form_of_answers_is_not_kept_by_default(method, make_adapter, answering_bart, films, caplog):
    adapter = make_adapter(method=method, learning_rate=HARMFUL, query_dataset=films, gate="form")
    before, answered = weights(adapter.model), adapter.answer(films)
    adapter.train()
    assert not adapter.gate.kept
    assert len(adapter.train_dataset) == 24  # nothing is held out
    assert adapter.gate.lost_form and adapter.gate.reason == " ".join(adapter.gate.lost_form)
    assert adapter.gate.base.loss is adapter.gate.adapted.loss is None
    assert f"The base model's weights were put back. {adapter.gate.reason}" in caplog.text
    assert same(weights(adapter.model), before)
    assert adapter.answer(films) == answered == [adapter.gate_answers[text][1] for text in films]


def test_what_keeps_the_form_is_kept(make_adapter, films):
    adapter = make_adapter(learning_rate=1e-6, query_dataset=films, gate="form")
    before = weights(adapter.model)
    answered = adapter.answer(films)
    adapter.train()
    assert adapter.gate.kept, adapter.gate.reason
    assert not same(weights(adapter.model), before)
    assert [adapter.gate_answers[text][0] for text in films] == answered


def test_the_gate_changes_nothing_in_what_is_learned(make_adapter, films):
    trained = []
    for gate in ("off", "form"):
        adapter = make_adapter(learning_rate=1e-6, query_dataset=films, gate=gate, folder=gate)
        adapter.train()
        trained.append(weights(adapter.model))
    assert same(*trained)


def test_the_order_of_the_queries_changes_no_verdict(make_adapter, films):
    one, other = (
        make_adapter(learning_rate=HARMFUL, query_dataset=queries, gate="form") for queries in (films, films[::-1])
    )
    other.retrieved = one.retrieve()
    for adapter in (one, other):
        adapter.train()
    assert one.gate == other.gate and not one.gate.kept


def test_choices_of_the_queries_are_options(make_adapter, films):
    queries = Dataset.from_dict(
        {"input": [f"Film number {number}" for number in range(8)], "choices": [["a", "yes"]] * 8}
    )
    adapter = make_adapter(learning_rate=1e-6, query_dataset=queries, gate="form")
    adapter.train()
    assert adapter.gate.base.answers.num_with_options == 8


# ---- the weights from before -----------------------------------------------------------------------------------------------


def test_weights_that_lie_in_the_base_are_not_copied(answering_bart, make_adapter):
    adapter = make_adapter()
    kept = WeightsBefore(adapter.model, answering_bart)
    assert kept.bytes_copied == 0
    before = weights(adapter.model)
    for parameter in adapter.model.parameters():
        parameter.data.add_(1.0)
    kept.put_back()
    assert same(weights(adapter.model), before)


def test_weights_that_lie_nowhere_else_are_copied(answering_bart, make_adapter):
    own = sum(parameter.nbytes for parameter in answering_bart.parameters())
    for source in (None, tiny.bart(make_adapter().processing_class, seed=1)):
        adapter = make_adapter()
        kept = WeightsBefore(adapter.model, source)
        assert kept.bytes_copied >= 0.9 * own  # the layer norms of two new models are equal
        before = weights(adapter.model)
        for parameter in adapter.model.parameters():
            parameter.data.mul_(3.0).add_(1.0)
        kept.put_back()
        assert same(weights(adapter.model), before)
    small = WeightsBefore(make_adapter(method="lora").model, answering_bart)
    assert 0 < small.bytes_copied < own / 10


@pytest.mark.parametrize("change", ["in place", "its data", "half"])
def test_a_base_that_was_changed_is_not_put_back(change, answering_bart, make_adapter):
    base = copy.deepcopy(answering_bart)
    adapter = make_adapter(base)
    kept = WeightsBefore(adapter.model, base)
    if change == "half":
        base.half()
    else:
        weight = next(base.parameters())
        (weight.data if change == "its data" else weight.detach())[0, 0] += 1e-3
    trained = weights(adapter.model)
    with pytest.raises(RuntimeError, match=r"changed while its copy was trained.*gate='off'"):
        kept.put_back()
    assert same(weights(adapter.model), trained)


def test_a_base_in_half_precision_is_put_back_exactly(answering_bart, make_adapter):
    base = copy.deepcopy(answering_bart).to(torch.bfloat16)
    adapter = make_adapter(base)
    kept = WeightsBefore(adapter.model, base)
    assert kept.bytes_copied == 0
    before = weights(adapter.model)
    next(adapter.model.parameters()).data.add_(1.0)
    kept.put_back()
    assert same(weights(adapter.model), before)


def test_a_base_that_nobody_holds_any_more_is_let_go(answering_bart, make_adapter):
    base = copy.deepcopy(answering_bart)
    watched = weakref.ref(base)
    adapter = make_adapter(base, learning_rate=HARMFUL)
    before = weights(adapter.model)
    del base
    gc.collect()
    assert watched() is None
    adapter.train()
    assert not adapter.gate.kept
    assert same(weights(adapter.model), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float16])
def test_weights_of_any_size_and_place_have_the_same_sum_and_one_that_differs_another(dtype):
    for number in (1, 2, 3, 4, 7, 8, 33):
        base = torch.nn.Linear(number, 1, dtype=dtype)
        storage = torch.zeros(number + 1, dtype=dtype)  # its second value begins at no multiple of eight bytes
        model = torch.nn.Linear(number, 1, dtype=dtype)
        model.load_state_dict(base.state_dict())
        base.weight.data = storage[1:].copy_(base.weight.data[0]).unsqueeze(0)
        kept = WeightsBefore(model, base)
        assert kept.bytes_copied == 0
        model.weight.data.add_(1.0)
        kept.put_back()
        assert torch.equal(model.weight, base.weight)
        base.weight.data[0, number - 1] += 1.0
        with pytest.raises(RuntimeError, match="changed"):
            kept.put_back()
