"""Rows leave a batch once they have ended, and all answers are those of a batch that keeps them."""

import contextlib

import pytest
import tiny
import torch
from decoders import decoder
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import GenerationConfig, SwitchTransformersConfig, SwitchTransformersForConditionalGeneration

from recross_hf.models import ended_rows, generation
from recross_hf.models.base import unwrapped
from recross_hf.models.ended_rows import _HalfHaveEnded, can_leave, generate_without_ended
from recross_hf.models.generation import generate_answers, generate_texts

ROWS = 12
GREEDY = {"do_sample": False, "no_repeat_ngram_size": 1}  # tiny models repeat themselves
BEGINNING = "Is the film good? yes\n\nWas it late? no\n\nHot or cold? " * 2
INPUTS = [f"Was it No. {number}? " + "It was. " * (number % 4) for number in range(ROWS)]


def lora(tokenizer):
    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return get_peft_model(decoder("llama", tokenizer), config).eval()


def switch_transformers(tokenizer):
    config = SwitchTransformersConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_decoder_layers=2,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
        num_heads=4,
        num_experts=4,
        decoder_start_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return SwitchTransformersForConditionalGeneration(config).eval()


def spread(model):
    """A model of which accelerate says that it is on two devices."""
    model.hf_device_map = {"first": 0, "second": 1}
    return model


def wild(model):
    """A model whose answers go on and on with other tokens."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return model.double().eval()


LEAVING = {
    "llama": lambda: decoder("llama", tiny.causal_tokenizer()),
    "gpt2": lambda: decoder("gpt2", tiny.causal_tokenizer()),
    "opt": lambda: decoder("opt", tiny.causal_tokenizer()),
    "falcon_alibi": lambda: decoder("falcon_alibi", tiny.causal_tokenizer()),
    "gemma3, a window below the prompts": lambda: decoder("gemma3", tiny.causal_tokenizer(), sliding_window=8),
    "gemma3, a window within the answers": lambda: decoder("gemma3", tiny.causal_tokenizer(), sliding_window=26),
    "lora": lambda: lora(tiny.causal_tokenizer()),
    "bart": lambda: tiny.bart(tiny.tokenizer()),
    "t5": lambda: tiny.t5(tiny.tokenizer()),
    "encoder_decoder": lambda: tiny.encoder_decoder(tiny.tokenizer()),
}
STAYING = {
    "mamba": lambda: decoder("mamba", tiny.causal_tokenizer()),
    "qwen3_next": lambda: decoder("qwen3_next", tiny.causal_tokenizer()),
    "a learned prompt": lambda: get_peft_model(
        decoder("llama", tiny.causal_tokenizer()), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    ),
    "switch_transformers, whose experts take so many tokens of a batch": lambda: switch_transformers(tiny.tokenizer()),
    "bart, spread over devices": lambda: spread(tiny.bart(tiny.tokenizer())),
    "llama, spread over devices": lambda: spread(decoder("llama", tiny.causal_tokenizer())),
}


def batch_of(model, seed=0):
    """Rows of several lengths, padded on the side of the model's kind."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, 200, (ROWS, 20), generator=generator)
    paddings = torch.randint(0, 15, (ROWS, 1), generator=generator)
    places = torch.arange(20)
    kept = places < 20 - paddings if model.config.is_encoder_decoder else places >= paddings
    return {"input_ids": tokens.where(kept, torch.tensor(1)), "attention_mask": kept.long()}


@contextlib.contextmanager
def rows_decoded(model):
    """How many rows each step of decoding has."""
    found = []
    handle = (
        unwrapped(model)
        .get_output_embeddings()
        .register_forward_hook(lambda module, args, output: found.append(len(args[0])))
    )
    try:
        yield found
    finally:
        handle.remove()


@contextlib.contextmanager
def all_stay():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ended_rows, "LEAST_LEAVING", 1 << 30)
        yield


def some_ends(model, batch, seed, room=16):
    """Tokens of which rows write the first one sooner or later, some of them never."""
    with torch.inference_mode():
        written = model.generate(**batch, max_new_tokens=room, min_new_tokens=room, **GREEDY)
    seen = written[:, -room:].unique()
    return seen[
        torch.randperm(len(seen), generator=torch.Generator().manual_seed(seed))[: max(2, len(seen) // 8)]
    ].tolist()


@torch.inference_mode()
@pytest.mark.parametrize("kind", LEAVING)
def test_the_tokens_are_those_of_a_batch_that_keeps_all_rows(kind):
    model = wild(LEAVING[kind]())
    saved = 0
    for seed in range(6):
        batch = batch_of(model, seed)
        given = {"max_new_tokens": 16, "pad_token_id": 1, "eos_token_id": some_ends(model, batch, seed)}
        with rows_decoded(model) as whole:
            expected = model.generate(**batch, **GREEDY, **given)
        with rows_decoded(model) as left:
            found = generate_without_ended(model, **GREEDY, **batch, **given)
        assert torch.equal(found, expected)
        assert len(left) == len(whole)
        assert all(one <= other for one, other in zip(left, whole, strict=True))
        saved += sum(whole) - sum(left)
    assert saved > 0


@pytest.mark.parametrize(
    ("rows", "ended", "stops"),
    [(8, 3, False), (8, 4, True), (8, 7, True), (8, 8, False), (7, 3, False), (6, 3, False), (6, 4, True)],
)
def test_a_batch_stops_for_half_of_its_rows_and_for_four_at_least(rows, ended, stops):
    sequences = torch.full((rows, 9), 5)
    sequences[:, 3] = 2  # within the prompt
    sequences[:ended, 6] = 2
    criterion = _HalfHaveEnded(4, torch.tensor([2, 3]))
    assert criterion(sequences, None).tolist() == [stops] * rows
    sequences[:ended, 6] = 3
    assert criterion(sequences, None).tolist() == [stops] * rows


@pytest.mark.parametrize("kind", ["llama", "bart"])
def test_answers_are_those_of_a_batch_that_keeps_all_rows(kind):
    model = wild(LEAVING[kind]())
    tokenizer = tiny.tokenizer() if kind == "bart" else tiny.causal_tokenizer()
    fewer = 0

    @settings(max_examples=15)
    @given(
        inputs=st.lists(st.text("abcdefg ?", max_size=30), min_size=8, max_size=16),
        every=st.integers(4, 12),
        room=st.integers(1, 14),
        token_budget=st.sampled_from([1, 300, 10_000]),
        passed=st.sampled_from(
            [{}, {"repetition_penalty": 9.0}, {"no_repeat_ngram_size": 1}, {"forced_eos_token_id": 5}]
        ),
        beginning=st.sampled_from(["", BEGINNING]),
    )
    def holds(inputs, every, room, token_budget, passed, beginning):
        nonlocal fewer
        model.generation_config.eos_token_id = [*range(4, 250, every)]
        call = {"token_budget": token_budget, "max_new_tokens": room, **passed}
        answers, steps = [], []
        for context in (contextlib.nullcontext(), all_stay()):
            with context, rows_decoded(model) as rows:
                answers.append(generate_answers(model, tokenizer, [beginning + text for text in inputs], **call))
            steps.append(sum(rows))
        assert answers[0] == answers[1]
        fewer += steps[0] < steps[1]

    holds()
    assert fewer > 0


@pytest.mark.parametrize("kind", STAYING)
def test_models_that_remember_more_than_keys_and_values_keep_all_rows(kind):
    assert not can_leave(STAYING[kind]())


@pytest.mark.parametrize(
    "passed",
    [
        {"num_beams": 2},
        {"do_sample": True},
        {"min_new_tokens": 3},
        {"begin_suppress_tokens": [7]},
        {"exponential_decay_length_penalty": (2, 1.5)},
        {"stop_strings": "a"},
        {"max_time": 1000.0},
        {"use_cache": False},
        {"max_length": 60},
        {"stopping_criteria": []},
        {"generation_config": GenerationConfig(max_new_tokens=8)},
        {"around_batch": lambda rows: contextlib.nullcontext()},
    ],
    ids=lambda passed: next(iter(passed)),
)
def test_what_counts_from_where_a_call_begins_keeps_all_rows(passed, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("rows would leave")

    monkeypatch.setattr(generation, "generate_without_ended", never)
    tokenizer = tiny.causal_tokenizer()
    model = decoder("llama", tokenizer)
    length = {} if {"max_length", "generation_config"} & passed.keys() else {"max_new_tokens": 8}
    assert len(generate_texts(model, tokenizer, INPUTS, **length, **passed)) == ROWS
    with pytest.raises(AssertionError, match="rows would leave"):
        generate_texts(model, tokenizer, INPUTS, max_new_tokens=8)


def test_a_model_whose_experts_take_so_many_tokens_answers_as_in_a_whole_batch():
    tokenizer = tiny.tokenizer()
    model = wild(switch_transformers(tokenizer))
    model.generation_config.eos_token_id = [*range(4, 250, 6)]
    call = {"max_new_tokens": 12, "token_budget": 10_000}
    found = generate_answers(model, tokenizer, INPUTS, **call)
    with all_stay():
        assert generate_answers(model, tokenizer, INPUTS, **call) == found


def test_a_setting_that_a_model_ships_counts_as_one_that_is_passed(monkeypatch):
    tokenizer = tiny.causal_tokenizer()
    model = decoder("llama", tokenizer)
    model.generation_config.min_new_tokens = 3
    monkeypatch.setattr(generation, "generate_without_ended", None)  # a call of it fails
    assert len(generate_texts(model, tokenizer, INPUTS, max_new_tokens=8)) == ROWS


def test_a_model_that_never_ends_writes_as_much_as_it_may():
    tokenizer = tiny.causal_tokenizer()
    model = decoder("llama", tokenizer)
    model.generation_config.eos_token_id = None
    answers = generate_answers(model, tokenizer, INPUTS, max_new_tokens=3)
    assert len(answers) == ROWS
