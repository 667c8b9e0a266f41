"""What prompts begin with is read once, and everything comes out as if each were read whole."""

import contextlib

import pytest
import tiny
import torch
from decoders import decoder
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM
from transformers.cache_utils import DynamicCache

from recross_hf.models import shared_prefix
from recross_hf.models.architectures import DECODER_ONLY
from recross_hf.models.base import unwrapped
from recross_hf.models.generation import generate_answers, generate_texts
from recross_hf.models.likelihood import choice_log_likelihoods

BEGINNING = "Is the film good? yes\n\nWas it late? no\n\nHot or cold? " * 2
INPUTS = [
    BEGINNING + rest for rest in ("Who?", "Add one and two, then five.", "up", "", "Is it the weak one or not? " * 2)
]
CHOICES = [["yes", "no", "neither of the two"]] * len(INPUTS)
NEVER = 1 << 30


def lora(tokenizer):
    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return get_peft_model(decoder("llama", tokenizer), config).eval()


def longrope(tokenizer):
    """A model whose positions are others in prompts of more than 64 tokens."""
    scaling = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [9.0] * 4}
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        original_max_position_embeddings=64,
        initializer_range=0.2,
        rope_parameters=scaling,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    return Phi3ForCausalLM(config).eval()


SHARING = {
    "llama": lambda tokenizer: decoder("llama", tokenizer),
    "llama, eager": lambda tokenizer: decoder("llama", tokenizer, attn_implementation="eager"),
    "gpt2": lambda tokenizer: decoder("gpt2", tokenizer),
    "opt": lambda tokenizer: decoder("opt", tokenizer),
    "falcon_alibi": lambda tokenizer: decoder("falcon_alibi", tokenizer),
    "mixtral": lambda tokenizer: decoder("mixtral", tokenizer),
    "gemma3, a window below the prompts": lambda tokenizer: decoder("gemma3", tokenizer, sliding_window=48),
    "gemma3, a window above them": lambda tokenizer: decoder("gemma3", tokenizer, sliding_window=512),
    "mistral, a window below the prompts": lambda tokenizer: decoder("mistral", tokenizer, sliding_window=48),
    "lora": lora,
}
WHOLE = {
    "gemma3, a window below the least": lambda tokenizer: decoder("gemma3", tokenizer),
    "bloom": lambda tokenizer: decoder("bloom", tokenizer),
    "mamba": lambda tokenizer: decoder("mamba", tokenizer),
    "qwen3_next": lambda tokenizer: decoder("qwen3_next", tokenizer),
    "longrope": longrope,
}


@contextlib.contextmanager
def nothing_shared():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_prefix, "LEAST_TOKENS", NEVER)
        yield


@contextlib.contextmanager
def tokens_read(model):
    """The shapes of what each forward pass reads."""
    read = []
    embeddings = unwrapped(model).get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda module, args, output: read.append(tuple(args[0].shape)))
    try:
        yield read
    finally:
        handle.remove()


def token_ids(tokenizer, inputs):
    return DECODER_ONLY.prompt_ids(tokenizer, inputs, 1000)


def check(model, tokenizer, inputs, choices, *, token_budget=4096, **kwargs):
    """Answers and likelihoods of a call are those of each prompt read whole."""
    lengths = {"max_input_length": 1000, "token_budget": token_budget}
    answers, likelihoods = [], []
    for context in (contextlib.nullcontext(), nothing_shared()):
        with context:
            answers.append(generate_answers(model, tokenizer, inputs, max_new_tokens=5, **lengths, **kwargs))
            likelihoods.append(choice_log_likelihoods(model, tokenizer, inputs, choices, **lengths))
    assert answers[0] == answers[1]
    for shared, whole in zip(*likelihoods, strict=True):
        assert shared == pytest.approx(whole, abs=1e-5, rel=1e-5)
    return answers[0]


@pytest.mark.parametrize("kind", SHARING)
def test_answers_and_likelihoods_are_those_of_prompts_read_whole(kind):
    tokenizer = tiny.causal_tokenizer()
    model = SHARING[kind](tokenizer)

    @settings(max_examples=8)
    @given(
        beginning=st.integers(40, 110),
        rests=st.lists(st.text("abcdefg ?", max_size=50), min_size=2, max_size=6),
        token_budget=st.sampled_from([1, 250, 10_000]),
    )
    def holds(beginning, rests, token_budget):
        inputs = [(BEGINNING * 3)[:beginning] + rest for rest in rests]
        check(model, tokenizer, inputs, [["a", "bd ", "gold"]] * len(inputs), token_budget=token_budget)

    holds()
    # Without it, some of these models only repeat what they read last; it depends on all of the prompt.
    answers = check(model, tokenizer, INPUTS, CHOICES, repetition_penalty=3.0)
    assert len({answer.text for answer in answers}) > 1


@pytest.mark.parametrize("kind", SHARING)
def test_a_beginning_is_read_once(kind):
    tokenizer = tiny.causal_tokenizer()
    model = SHARING[kind](tokenizer)
    prompts = token_ids(tokenizer, INPUTS)
    common = len(token_ids(tokenizer, [BEGINNING])[0]) - 1  # the separator differs
    longest = max(map(len, prompts))
    known = 47 if "below" in kind else common
    with tokens_read(model) as read:
        generate_texts(model, tokenizer, INPUTS, max_new_tokens=1)
    assert read == [(1, known), (len(prompts), longest - known)]
    with tokens_read(model) as read:
        choice_log_likelihoods(model, tokenizer, INPUTS, CHOICES)
    assert read[:2] == [(1, known), (len(prompts), longest - known)]


@pytest.mark.parametrize("kind", WHOLE)
def test_models_that_need_the_whole_prompt_read_it(kind):
    tokenizer = tiny.causal_tokenizer()
    model = WHOLE[kind](tokenizer)
    check(model, tokenizer, INPUTS, CHOICES)
    with tokens_read(model) as read:
        generate_texts(model, tokenizer, INPUTS, max_new_tokens=1)
    assert read[-1] == (len(INPUTS), max(map(len, token_ids(tokenizer, INPUTS))))


def test_positions_that_depend_on_the_whole_length_are_those_of_the_whole_prompt():
    tokenizer = tiny.causal_tokenizer()
    inputs = [BEGINNING[:50] + rest for rest in ("Who was it, and why? " * 3, "Add one and two, then ten. " * 3)]
    assert len(token_ids(tokenizer, [BEGINNING[:50]])[0]) < 64 < min(map(len, token_ids(tokenizer, inputs)))
    check(longrope(tokenizer), tokenizer, inputs, CHOICES[:2])


def test_prompts_that_differ_by_more_than_the_beginning_are_read_whole(monkeypatch):
    monkeypatch.setattr(shared_prefix, "LEAST_SAVED", 0)
    tokenizer = tiny.causal_tokenizer()
    model = decoder("llama", tokenizer)
    inputs = [BEGINNING[:60] + rest for rest in ("", "Who was it, and why? " * 6)]
    short, long = map(len, token_ids(tokenizer, inputs))
    with tokens_read(model) as read:
        check(model, tokenizer, inputs, CHOICES[:2])
    (length,) = {shape[1] for shape in read if shape[0] == 1 and shape[1] > 5}
    assert length < long - short
    assert read[:2] == [(1, length), (2, long)]
    with tokens_read(model) as read:
        check(model, tokenizer, inputs, CHOICES[:2], token_budget=1)
    assert read[1] == (1, long - length)


@pytest.mark.parametrize(
    "inputs", [INPUTS[:1], [text[20:] for text in INPUTS[:1]] + INPUTS[1:], ["Is it? a", "Is it? b"]]
)
def test_what_saves_too_little_is_not_read_apart(inputs):
    tokenizer = tiny.causal_tokenizer()
    model = decoder("llama", tokenizer)
    with tokens_read(model) as read:
        generate_texts(model, tokenizer, inputs, max_new_tokens=1)
    assert read == [(len(inputs), max(map(len, token_ids(tokenizer, inputs))))]


def test_equal_prompts_keep_a_token_each():
    tokenizer = tiny.causal_tokenizer()
    model = decoder("llama", tokenizer)
    with tokens_read(model) as read:
        check(model, tokenizer, [BEGINNING] * 3, CHOICES[:3])
    assert read[:2] == [(1, len(token_ids(tokenizer, [BEGINNING])[0]) - 1), (3, 1)]


def test_beams_go_on_from_the_beginning():
    tokenizer = tiny.causal_tokenizer()
    model = decoder("gemma3", tokenizer, sliding_window=48)
    greedy = generate_texts(model, tokenizer, INPUTS, max_new_tokens=5)
    with tokens_read(model) as read:
        answers = check(model, tokenizer, INPUTS, CHOICES, num_beams=3)
    assert read[0] == (1, 47)
    assert read[1][0] == 3 * len(INPUTS)
    assert [answer.text for answer in answers] != greedy
    with nothing_shared():
        expected = generate_texts(model, tokenizer, INPUTS, max_new_tokens=5, num_beams=3)
    model.generation_config.num_beams = 3
    assert generate_texts(model, tokenizer, INPUTS, max_new_tokens=5) == expected


@pytest.mark.parametrize(
    "passed",
    [
        {"use_cache": False},
        {"do_sample": True},
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 8},
        {"past_key_values": DynamicCache()},
        {"generation_config": GenerationConfig(use_cache=False)},
    ],
    ids=str,
)
def test_other_ways_to_generate_read_whole_prompts(passed):
    tokenizer = tiny.causal_tokenizer()
    model = decoder("llama", tokenizer)
    with tokens_read(model) as read:
        generate_texts(model, tokenizer, INPUTS, max_new_tokens=1, **passed)
    assert all(len(INPUTS) == rows for rows, _ in read)


@pytest.mark.parametrize("learned", [PromptTuningConfig, PrefixTuningConfig])
def test_a_learned_prompt_stays_before_the_whole_prompt(learned):
    tokenizer = tiny.causal_tokenizer()
    tuned = get_peft_model(decoder("llama", tokenizer), learned(task_type="CAUSAL_LM", num_virtual_tokens=4)).eval()
    with tokens_read(tuned) as read:
        generate_answers(tuned, tokenizer, INPUTS, max_new_tokens=5)
    assert all(len(INPUTS) == rows for rows, _ in read)


def test_each_row_of_a_batch_reads_the_beginning_with_its_own_adapter():
    tokenizer = tiny.causal_tokenizer()
    model = lora(tokenizer)
    torch.manual_seed(1)
    model.add_adapter("other", model.peft_config["default"])
    names = [("default", "other")[row % 2] for row in range(len(INPUTS))]

    @contextlib.contextmanager
    def around_batch(rows):
        before = model.active_adapter
        model.set_adapter(names[rows[0]])
        yield
        model.set_adapter(before)

    alone = [
        generate_texts(model, tokenizer, [text], max_new_tokens=5, around_batch=lambda _, row=row: around_batch([row]))
        for row, text in enumerate(INPUTS)
    ]
    kwargs = {"token_budget": 1, "around_batch": around_batch, "max_new_tokens": 5}
    assert [[text] for text in generate_texts(model, tokenizer, INPUTS, **kwargs)] == alone
    plain = generate_texts(model, tokenizer, INPUTS, max_new_tokens=5)
    assert [[text] for text in plain] != alone


def test_a_batch_holds_twice_what_it_may_read_and_no_more():
    tokenizer = tiny.causal_tokenizer()
    model = decoder("llama", tokenizer)
    inputs = [BEGINNING + digit for digit in "123456"] * 10
    (length,) = {len(ids) for ids in token_ids(tokenizer, inputs)}
    with tokens_read(model) as read:
        generate_texts(model, tokenizer, inputs, token_budget=5 * length, max_new_tokens=1)
    assert [rows for rows, _ in read] == [1] + [10] * 6


def test_turns_share_their_system_prompt():
    from chat_templates import CHATML, chat_tokenizer

    tokenizer = chat_tokenizer(CHATML)
    model = decoder("llama", tokenizer)
    system = {"role": "system", "content": "Answer in a word, and say no more than that. Be kind."}
    inputs = [
        [system, {"role": "user", "content": text}] for text in ("Is it late?", "Who?", "Is the film good or bad?")
    ]
    with tokens_read(model) as read:
        check(model, tokenizer, inputs, CHOICES[:3])
    assert read[0][0] == 1
    assert read[0][1] > 32
