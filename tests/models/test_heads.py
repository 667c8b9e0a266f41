import copy

import pytest
import tiny
import torch
from decoders import FAMILIES, decoder
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from recross_hf.models.collators import CausalCollator
from recross_hf.models.generation import generate_texts
from recross_hf.models.heads import answer_logits, contiguous_head, logits_at, mean_token_loss

ITEMS = [([5, 6, 7, 8, 9, 10, 11], [12, 2]), ([20, 21], [30, 31, 32, 33, 2]), ([40] * 30, [41, 2])]


@pytest.fixture
def tokenizer():
    return tiny.causal_tokenizer()


def batch_of(tokenizer):
    return CausalCollator(tokenizer)([{"input_ids": prompt, "labels": answer} for prompt, answer in ITEMS])


def seen_by_head(model):
    """Shapes of what the head of a model is shown, as they come."""
    shapes = []
    head = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = head.get_output_embeddings()
    forward = head.forward

    def noting(hidden):
        shapes.append(tuple(hidden.shape))
        assert hidden.is_contiguous()
        return forward(hidden)

    head.forward = noting
    return shapes


def losses_and_gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_all_logits(family, tokenizer):
    model, batch = decoder(family, tokenizer), batch_of(tokenizer)
    whole = model(**batch).loss
    shapes = seen_by_head(model)
    alone = mean_token_loss(model, batch)
    if family != "mixtral_routed":  # its routers have a loss, too, which the model adds
        assert shapes == [(1, sum(len(answer) for _, answer in ITEMS), 32)]
    assert alone.item() == pytest.approx(whole.item(), abs=1e-5)
    expected, found = losses_and_gradients(model, whole), losses_and_gradients(model, alone)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3)


ADAPTERS = {
    "lora": LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False),
    "lora_on_the_head": LoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj", "lm_head"], init_lora_weights=False
    ),
    "head_of_its_own": LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "learned_prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_count(name, tokenizer):
    model = get_peft_model(decoder("llama", tokenizer), copy.deepcopy(ADAPTERS[name])).eval()
    batch = batch_of(tokenizer)
    whole = model(**batch).loss
    shapes = seen_by_head(model)
    alone = mean_token_loss(model, batch)
    assert shapes == [(1, 9, 32)]
    assert alone.item() == pytest.approx(whole.item(), abs=1e-5)
    expected, found = losses_and_gradients(model, whole), losses_and_gradients(model, alone)
    assert expected.keys() == found.keys()
    for weight, gradient in expected.items():
        torch.testing.assert_close(found[weight], gradient, atol=1e-5, rtol=1e-3)


def test_gradient_checkpointing_gives_the_same(tokenizer):
    model, batch = decoder("llama", tokenizer), batch_of(tokenizer)
    expected = losses_and_gradients(model, model(**batch).loss)
    model.gradient_checkpointing_enable()
    model.train()
    for name, gradient in losses_and_gradients(model, mean_token_loss(model, batch)).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3)


def test_a_model_without_a_head_that_can_be_asked_for_computes_all_logits(tokenizer, monkeypatch):
    model, batch = decoder("llama", tokenizer), batch_of(tokenizer)
    expected = float(model(**batch).loss)
    monkeypatch.setattr(type(model), "get_output_embeddings", lambda self: None)
    assert float(mean_token_loss(model, batch)) == pytest.approx(expected, abs=1e-5)


def test_a_head_that_is_passed_by_computes_all_logits(tokenizer):
    model, batch = decoder("llama", tokenizer), batch_of(tokenizer)
    other = copy.deepcopy(model)  # whose head never runs
    logits, labels = answer_logits(model, batch, head_of=other)
    found = torch.nn.functional.cross_entropy(logits, labels)
    assert float(found) == pytest.approx(float(model(**batch).loss), abs=1e-5)


def test_the_head_is_as_before(tokenizer):
    model, batch = decoder("llama", tokenizer), batch_of(tokenizer)
    places = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    with pytest.raises(AttributeError):
        logits_at(model, places, input_ids=batch["input_ids"], past_key_values=3)
    with contiguous_head(model):
        pass
    assert not model.lm_head._forward_pre_hooks


def test_generate_shows_the_head_contiguous_states_alone(tokenizer):
    model = decoder("llama", tokenizer)
    prompts = torch.tensor([[5, 6, 7], [8, 9, 10]])
    settings = {"attention_mask": torch.ones_like(prompts), "max_new_tokens": 3, "min_new_tokens": 3}
    expected = model.generate(input_ids=prompts, do_sample=False, **settings)
    shapes = seen_by_head(model)
    with contiguous_head(model):
        found = model.generate(input_ids=prompts, do_sample=False, **settings)
    assert shapes == [(2, 1, 32)] * 3
    assert torch.equal(found, expected)


def test_generated_texts_show_the_head_contiguous_states_alone(tokenizer):
    model = decoder("llama", tokenizer)
    shapes = seen_by_head(model)
    generate_texts(model, tokenizer, ["Up or down?", "Who?"], max_new_tokens=3, min_new_tokens=3)
    assert shapes == [(2, 1, 32)] * 3
