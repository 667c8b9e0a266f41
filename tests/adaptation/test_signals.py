"""What is measured of an adaptation without labels."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from chat_templates import TEMPLATES, chat_tokenizer
from datasets import Dataset
from peft import LoraConfig

from recross_hf import AdaptationArguments, DenseRetriever, RandomRetriever, RetrievalAugmentedAdapter, load_examples
from recross_hf.adaptation import signal_recorder
from recross_hf.adaptation.retrieval import further_neighbours
from recross_hf.adaptation.signal_recorder import SignalRecorder
from recross_hf.adaptation.signals import AdaptationSignals, ModelReading
from recross_hf.models.answer_reading import read_answers
from recross_hf.models.architectures import architecture_of
from recross_hf.models.generation import Answer


def model_and_tokenizer(kind, bart, tokenizer):
    if kind == "bart":
        return copy.deepcopy(bart), tokenizer
    causal = tiny.causal_tokenizer()
    return tiny.gpt2(causal), causal


# ---- reading given answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bart", "gpt2"])
@pytest.mark.parametrize("token_budget", [1, 100, 10_000])
def test_an_answer_is_read_as_training_reads_it(kind, token_budget, bart, tokenizer):
    model, tokenizer = model_and_tokenizer(kind, bart, tokenizer)
    architecture = architecture_of(model)
    prompts = architecture.prompt_ids(tokenizer, ["Is it good?", "Which colour has the sky?", "Add."], 60)
    answers = architecture.answer_ids(tokenizer, ["yes", "it is not known at all", ""], 30)
    collate = architecture.collator(tokenizer, model)
    model.train()
    found = read_answers(model, prompts, answers, collate, first_places=[0, 1, 0], token_budget=token_budget)
    assert model.training
    model.eval()
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        batch = collate([{"input_ids": prompt, "labels": answer}])
        with torch.no_grad():
            output = model(**batch)
        assert found.num_tokens[row] == len(answer)
        assert float(found.log_likelihoods[row]) == pytest.approx(-float(output.loss), abs=1e-4)
        start = 0 if kind == "bart" else len(prompt) - 1
        logits = torch.log_softmax(output.logits[0, start : start + len(answer)], dim=-1)
        best = logits.topk(2, dim=-1).values
        assert float(found.margins[row]) == pytest.approx(float((best[:, 0] - best[:, 1]).mean()), abs=1e-4)
        np.testing.assert_allclose(found.first[row], logits[[0, 1, 0][row]], atol=1e-4)


# ---- held-out neighbours -------------------------------------------------------------------------------------------------


def test_the_next_neighbours_are_held_out(index):
    retriever, inputs = DenseRetriever(index), tiny.queries()
    whole, learned = retriever.retrieve(inputs, 4 * 48), retriever.retrieve(inputs, 12)
    held_out = further_neighbours(retriever, inputs, learned, 6)
    expected = [text for text in dict.fromkeys(whole["id"]) if text not in set(learned["id"])][:6]
    assert held_out["id"][:] == expected
    assert not set(held_out["input"]) & set(learned["input"])
    assert len(further_neighbours(retriever, inputs, learned, 100)) == 48 - len(set(learned["id"]))
    assert not len(further_neighbours(retriever, inputs, whole, 5))


def test_another_rendering_of_what_is_learned_is_not_held_out():
    rows = [
        {"id": f"a|train|{template}|#{number}", "task": "a", "input": f"{template} {number}", "references": ["yes"]}
        for number in range(6)
        for template in ("plain", "long")
    ]
    upstream = load_examples(Dataset.from_list(rows))
    learned = upstream.select([0, 2])  # the plain ones of 0 and 1
    held_out = further_neighbours(RandomRetriever(upstream), ["text"], learned, 10)
    assert sorted(identity.rpartition("#")[2] for identity in held_out["id"]) == ["2", "3", "4", "5"]


# ---- the signals of an adaptation -----------------------------------------------------------------------------------------


def adapter_of(model, tokenizer, examples, tmp_path, **settings):
    peft_config = settings.pop("peft_config", None)
    settings = {"num_retrieved": 24, "max_target_length": 10, "gate": "off", "max_steps": 20} | settings
    return RetrievalAugmentedAdapter(
        model,
        AdaptationArguments(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, **settings),
        retriever=RandomRetriever(examples),
        query_dataset=examples.remove_columns("references").select(range(0, 48, 3)),
        processing_class=tokenizer,
        peft_config=peft_config,
    )


def recorded(adapter, num_steps=None) -> AdaptationSignals:
    learned = adapter.retrieve()
    held_out = further_neighbours(adapter.retriever, adapter.query_dataset["input"][:], learned, 12)
    recorder = SignalRecorder(adapter, adapter.query_dataset, learned, held_out)
    if num_steps != 0:
        adapter.train()
    return recorder.signals()


@pytest.mark.parametrize("kind", ["bart", "gpt2"])
def test_nothing_changes_without_training(kind, bart, tokenizer, examples, tmp_path):
    signals = recorded(adapter_of(*model_and_tokenizer(kind, bart, tokenizer), examples, tmp_path), num_steps=0)
    assert signals.adapted.to_json() == signals.base.to_json()
    changed = {"held_out_fall", "held_out_z", "changed", "first_distance", "options_changed", "base_answers_gain"}
    numbers = signals.numbers
    assert {name: numbers[name] for name in changed} == dict.fromkeys(changed, pytest.approx(0, abs=1e-5))
    assert all(abs(value) < 1e-5 for name, value in numbers.items() if name.endswith("_gain") and value is not None)
    assert numbers["num_held_out"] == 12
    assert numbers["num_with_options"] == numbers["num_answers"] == 16
    assert numbers["first_divergence"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("template", ["chatml", "headers", "turns"])
def test_an_answer_that_was_cut_has_nothing_of_its_end(template, examples, tmp_path, monkeypatch):
    tokenizer = chat_tokenizer(TEMPLATES[template])
    adapter = adapter_of(tiny.llama(tokenizer), tokenizer, examples, tmp_path, max_target_length=6)
    read = []

    def noted(model, prompts, answers, *rest, **settings):
        read.append(answers)
        return read_answers(model, prompts, answers, *rest, **settings)

    monkeypatch.setattr(signal_recorder, "read_answers", noted)
    monkeypatch.setattr(adapter, "answers_with_ends", lambda inputs: [Answer("yes", is_ended=False)] * len(inputs))
    recorded(adapter, num_steps=0)
    text = tokenizer("yes", add_special_tokens=False)["input_ids"]
    assert read[1] == [text] * 16


@pytest.mark.parametrize("kind", ["bart", "gpt2", "lora"])
def test_what_an_adaptation_changed_is_measured(kind, bart, tokenizer, examples, tmp_path):
    model, tokenizer = model_and_tokenizer("bart" if kind == "lora" else kind, bart, tokenizer)
    peft_config = LoraConfig(task_type="SEQ_2_SEQ_LM", r=8, lora_alpha=64) if kind == "lora" else None
    adapter = adapter_of(model, tokenizer, examples, tmp_path, learning_rate=3e-3, peft_config=peft_config)
    signals = recorded(adapter)
    numbers = signals.numbers
    assert numbers["held_out_fall"] > 3 * numbers["held_out_fall_error"] > 0
    assert numbers["held_out_z"] == pytest.approx(numbers["held_out_fall"] / numbers["held_out_fall_error"])
    assert numbers["first_divergence"] > 0.1
    assert 0 < numbers["first_distance"] <= 1
    assert numbers["is_finite"] == 1
    # The adapted model's reading is that of the model as it is now.
    losses = []
    for row in signals.held_out["id"]:
        example = examples.filter(lambda identity, row=row: identity == row, input_columns="id")
        item = adapter.tokenize(example)[0]
        with torch.no_grad():
            losses.append(float(adapter.model.eval()(**adapter.data_collator([item])).loss))
    assert signals.adapted.losses == pytest.approx(losses, abs=1e-3)
    assert len(signals.base.options) == len(signals.option_names) == 16
    for names, values in zip(signals.option_names, signals.adapted.options, strict=True):
        assert len(names) == len(values)


def test_the_training_is_not_changed_by_what_is_measured(bart, tokenizer, examples, tmp_path):
    plain, measured = (adapter_of(bart, tokenizer, examples, tmp_path / name) for name in ("plain", "measured"))
    plain.train()
    recorded(measured)
    for before, after in zip(plain.model.parameters(), measured.model.parameters(), strict=True):
        assert torch.equal(before, after)


# ---- the numbers ------------------------------------------------------------------------------------------------------------


def reading(losses, texts, options=(), confidence=-1.0):
    number = len(texts)
    return ModelReading(
        losses=losses,
        answers=[Answer(text, is_ended=True) for text in texts],
        confidences=[confidence] * number,
        margins=[1.0] * number,
        first_entropies=[1.0] * number,
        first_information=0.5,
        options=options or [[]] * number,
    )


def signals_of(base, adapted, names=None, **changes):
    number = len(base.answers)
    return replace(
        AdaptationSignals(
            base, adapted, [-2.0] * number, [0.1] * number, [0.2] * number, names or [[]] * number, [frozenset()] * number,
            [0.75, 0.25], [True] * (len(base.losses) - 4) + [False] * 4, {}, frozenset({"yes"}), (),
        ),
        **changes,
    )  # fmt: skip


def test_the_numbers_say_what_changed():
    options = [[0.0, math.log(3)]] * 4  # a quarter and three
    found = signals_of(
        reading([2.0] * 10, ["no", "no", "no", "a b"], [[0.0, 0.0]] * 4),
        reading([1.0] * 5 + [1.5] * 5, ["yes", "yes", "no", "yes"], options, confidence=-0.5),
        [["no", "yes"]] * 4,
    ).numbers
    assert found["held_out_fall"] == 0.75
    assert (found["top_task_share"], found["num_tasks"]) == (0.75, 2)
    assert found["held_out_relative_fall"] == 0.375
    assert found["held_out_fall_error"] == pytest.approx(np.std([1.0] * 5 + [0.5] * 5, ddof=1) / math.sqrt(10))
    assert (found["held_out_share"], found["held_out_learned_share"]) == (1, 0.6)
    assert (found["held_out_fall_learned"], found["held_out_fall_other"]) == (pytest.approx(5.5 / 6), 0.5)
    assert found["held_out_z_other"] == 99  # all four fell by the same
    assert (found["changed"], found["learned_share_base"], found["learned_share_adapted"]) == (0.75, 0, 0.75)
    assert (found["most_frequent_share_base"], found["most_frequent_share_gain"]) == (0.75, 0)
    assert found["answer_entropy_gain"] == 0
    assert (found["confidence_gain"], found["base_answers_gain"]) == (0.5, -1)
    assert (found["options_margin_base"], found["options_margin_adapted"]) == (0, pytest.approx(0.5))
    assert found["options_entropy_gain"] < 0
    assert found["options_changed"] == 1
    assert found["options_divergence"] == pytest.approx(0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))
    assert found["options_information_adapted"] == pytest.approx(0, abs=1e-9)  # the same for all inputs


def test_what_cannot_be_said_is_none_and_a_diverged_model_is_told():
    nan = math.nan
    diverged = signals_of(reading([1.0] * 6, ["a"] * 3), reading([nan] * 6, ["b"] * 3, confidence=nan))
    numbers = diverged.numbers
    assert (numbers["is_finite"], numbers["held_out_fall"], numbers["confidence_gain"]) == (0, None, None)
    assert (numbers["options_margin_gain"], numbers["options_information_base"]) == (None, None)
    assert numbers["held_out_loss_base"] == 1
    json.dumps(diverged.to_json(), allow_nan=False)
    without = signals_of(reading([], ["a"] * 3), reading([], ["a"] * 3), is_of_learned_task=[]).numbers
    assert (without["num_held_out"], without["held_out_fall"], without["is_finite"]) == (0, None, 1)


def test_options_are_spelled_as_the_input_spells_them_and_may_be_answers(bart, tokenizer, examples, tmp_path):
    texts = ["Options: - Red - Dark Blue", "Is it fine?", "Which?", f"Options: - short - {'long ' * 9}"]
    adapter = adapter_of(bart, tokenizer, examples, tmp_path, max_target_length=20)
    asked = Dataset.from_dict({"input": texts, "choices": [None, None, ["One", "Two", "Two"], None]})
    learned = adapter.retrieve()
    recorder = SignalRecorder(adapter, asked, learned, learned.select([]))
    signals = recorder.signals()
    by_text = dict(zip(sorted(texts, key=recorder.inputs.index), signals.option_names, strict=True))
    assert by_text == {texts[0]: ["Dark Blue", "Red"], texts[1]: ["no", "yes"], texts[2]: ["One", "Two"], texts[3]: []}
    assert [len(values) for values in signals.base.options] == [len(names) for names in signals.option_names]
    assert signals.numbers["num_held_out"] == 0
