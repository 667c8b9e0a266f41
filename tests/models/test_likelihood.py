import copy

import numpy as np
import pytest
import tiny
import torch
from chat_templates import CHATML, chat_tokenizer
from decoders import FAMILIES, decoder
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from recross_hf.data.conversations import Conversation
from recross_hf.models.architectures import DECODER_ONLY, architecture_of
from recross_hf.models.generation import generate_texts
from recross_hf.models.likelihood import choice_log_likelihoods, rank_choices

INPUTS = ["Is the film good?", "Add one and two, then three, then four, then five.", "", "Up or down? " * 12, "Who?"]
CHOICES = [
    ["yes", "no"],
    ["ten", "fifteen", "three and some", "ten"],
    ["a"],
    ["up", "down", "neither of the two"],
    ["", "me"],
]
MAX_INPUT_LENGTH = 60


@torch.no_grad()
def one_by_one(model, tokenizer, text, choice, *, normalize=True):
    """The same by the loss of the model on one example, unpadded; of a decoder on the choice alone."""
    architecture = architecture_of(model)
    (answer,) = architecture.answer_ids(tokenizer, [choice], 100)
    longest = min(MAX_INPUT_LENGTH, architecture.longest_prompt(model, tokenizer, len(answer)))
    (prompt,) = architecture.prompt_ids(tokenizer, [text], longest)
    if model.config.is_encoder_decoder:
        loss = model(input_ids=torch.tensor([prompt]), labels=torch.tensor([answer])).loss
    else:
        labels = torch.tensor([[-100] * len(prompt) + answer])
        loss = model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss
    return -float(loss) * (1 if normalize else len(answer))


def check(model, tokenizer, **settings):
    normalize = settings.get("normalize", True)
    expected = [
        [one_by_one(model, tokenizer, text, choice, normalize=normalize) for choice in choices]
        for text, choices in zip(INPUTS, CHOICES, strict=True)
    ]
    found = choice_log_likelihoods(model, tokenizer, INPUTS, CHOICES, max_input_length=MAX_INPUT_LENGTH, **settings)
    for of_input, as_expected in zip(found, expected, strict=True):
        assert of_input == pytest.approx(as_expected, abs=2e-4)
    ranked = rank_choices(model, tokenizer, INPUTS, CHOICES, max_input_length=MAX_INPUT_LENGTH, **settings)
    assert ranked == [int(np.argmax(of_input)) for of_input in expected]


@pytest.mark.filterwarnings("ignore:Version v4.12.0 introduces a better way")
@pytest.mark.parametrize("token_budget", [1, 150, 10_000])
def test_it_is_what_one_choice_after_the_other_gives(any_model, tokenizer, token_budget):
    check(any_model, tokenizer, token_budget=token_budget)


@pytest.mark.parametrize("token_budget", [1, 150, 10_000])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_decoder_goes_on_from_the_input(kind, token_budget):
    tokenizer = tiny.causal_tokenizer("<s> $A" if kind == "llama" else None)
    check(getattr(tiny, kind)(tokenizer), tokenizer, token_budget=token_budget)


def test_a_model_that_knows_no_logits_to_keep_gives_the_same(monkeypatch):
    tokenizer = tiny.causal_tokenizer()
    model = tiny.gpt2(tokenizer)
    expected = choice_log_likelihoods(model, tokenizer, INPUTS, CHOICES)
    forward = model.forward
    monkeypatch.setattr(
        model,
        "forward",
        lambda input_ids, attention_mask, use_cache: forward(input_ids, attention_mask=attention_mask),
    )
    for of_input, as_expected in zip(choice_log_likelihoods(model, tokenizer, INPUTS, CHOICES), expected, strict=True):
        assert of_input == pytest.approx(as_expected, abs=1e-5)


def test_turns_are_read_as_a_conversation():
    tokenizer = chat_tokenizer(CHATML)
    model = tiny.llama(tokenizer, dropout=0.0)
    turns = [{"role": "system", "content": "Answer."}, {"role": "user", "content": "Is it late?"}]
    of_turns, of_conversation = (
        choice_log_likelihoods(model, tokenizer, [one], [["yes", "no"]])[0] for one in (turns, Conversation(turns))
    )
    assert of_turns.tolist() == of_conversation.tolist()
    answers = (generate_texts(model, tokenizer, [one], max_new_tokens=8) for one in (turns, Conversation(turns)))
    assert len({*map(tuple, answers)}) == 1


def test_without_normalisation_it_is_the_sum_over_tokens(bart, tokenizer):
    check(bart, tokenizer, normalize=False)
    long = [["yes", "yes it is, and it always was so"]]
    assert rank_choices(bart, tokenizer, INPUTS[:1], long, normalize=False) == [0]  # a token never adds likelihood


def test_the_side_of_padding_changes_nothing(bart, tokenizer):
    on_the_left = copy.deepcopy(tokenizer)
    on_the_left.padding_side = "left"
    check(bart, on_the_left)
    causal = tiny.causal_tokenizer()
    causal.padding_side = "left"
    check(tiny.gpt2(causal), causal)


def test_an_adapter_of_peft_counts(bart, tokenizer):
    config = LoraConfig(task_type="SEQ_2_SEQ_LM", init_lora_weights=False)
    torch.manual_seed(0)
    adapted = get_peft_model(copy.deepcopy(bart), config).eval()
    check(adapted, tokenizer)
    plain, of_adapted = (choice_log_likelihoods(model, tokenizer, INPUTS, CHOICES) for model in (bart, adapted))
    assert np.abs(plain[0] - of_adapted[0]).max() > 1e-3


def test_autocast_reaches_it(bart, tokenizer):
    exact = choice_log_likelihoods(bart, tokenizer, INPUTS, CHOICES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = choice_log_likelihoods(bart, tokenizer, INPUTS, CHOICES)
    assert 0 < max(np.abs(ours - theirs).max() for ours, theirs in zip(exact, rough, strict=True)) < 0.5


def test_what_else_is_asked_does_not_matter():
    """A decoder's positions are shared by input and answer: a long choice shortens its own input alone."""
    tokenizer = tiny.causal_tokenizer()
    model = tiny.gpt2(tokenizer)
    asked, beside = ["Up or down? " * 30, "Who?"], [["up", "down"], ["nobody at all " * 5]]
    (alone,) = choice_log_likelihoods(model, tokenizer, asked[:1], beside[:1])
    together, _ = choice_log_likelihoods(model, tokenizer, asked, beside)
    assert together == pytest.approx(alone, abs=1e-4)


def test_the_first_of_equals_is_chosen(bart, tokenizer):
    assert rank_choices(bart, tokenizer, INPUTS[:1], [["no", "no", "no"]]) == [0]


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_is_restored(training, bart, tokenizer):
    model = copy.deepcopy(bart).train(training)
    found = choice_log_likelihoods(model, tokenizer, INPUTS, CHOICES)
    assert model.training == training
    for ours, theirs in zip(found, choice_log_likelihoods(bart, tokenizer, INPUTS, CHOICES), strict=True):
        assert (ours == theirs).all()


def test_no_inputs_have_no_choices(bart, tokenizer):
    assert rank_choices(bart, tokenizer, [], []) == []


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([["yes"]], r"a list of choices for each of the 2 inputs, found 1 lists"),
        ([["yes"], []], r"one choice or more for each input, found \[\] for input 1"),
        ([["yes"], "no"], r"found 'no' for input 1"),
        (
            [["yes"], ["long " * 130]],
            r"choices of at most 128 tokens, found one of more: 'long long .* generate answers",
        ),
    ],
)
def test_what_cannot_be_ranked_is_refused(choices, message, bart, tokenizer):
    with pytest.raises(ValueError, match=message):
        rank_choices(bart, tokenizer, ["one", "two"], choices)


def test_a_learned_prompt_is_refused(bart, tokenizer):
    tuned = get_peft_model(copy.deepcopy(bart), PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=2))
    with pytest.raises(ValueError, match=r"found .*PROMPT_TUNING, which puts learned tokens before the input"):
        rank_choices(tuned, tokenizer, ["one"], [["yes"]])


def tokens_read(model):
    """Numbers of tokens that each forward pass reads."""
    read = []
    model.get_input_embeddings().register_forward_hook(lambda module, args, output: read.append(args[0].numel()))
    return read


WHOLE = {"bloom", "mamba", "mixtral_routed", "qwen3_next"}
"""Families that are told no positions, or keep more than keys and values."""


@pytest.mark.parametrize("token_budget", [150, 10_000])
@pytest.mark.parametrize(
    "family", sorted(FAMILIES.keys() - {"mixtral_routed"})
)  # whose loss is not that of the tokens alone
def test_families_that_go_on_from_what_was_read_find_the_same(family, token_budget):
    tokenizer = tiny.causal_tokenizer()
    check(decoder(family, tokenizer), tokenizer, token_budget=token_budget)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_input_is_read_once_for_all_its_choices(family):
    tokenizer = tiny.causal_tokenizer()
    model = decoder(family, tokenizer)
    text, choices = "Up or down? " * 4, ["u", "d", "n", "b"]
    read = tokens_read(model)
    choice_log_likelihoods(model, tokenizer, [text, text[2:]], [choices, choices])
    ids = DECODER_ONLY.prompt_ids(tokenizer, [text], 1000)[0]
    if family in WHOLE:
        assert read[-1] == 8 * (len(ids) + 2)
    else:
        assert read == [2 * len(ids), 8]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_likelihood_depends_on_what_else_is_asked(family):
    tokenizer = tiny.causal_tokenizer()
    model = decoder(family, tokenizer)
    together = choice_log_likelihoods(model, tokenizer, INPUTS, CHOICES)
    for text, choices, expected in zip(INPUTS, CHOICES, together, strict=True):
        (alone,) = choice_log_likelihoods(model, tokenizer, [text], [choices])
        assert alone == pytest.approx(expected, abs=1e-5)


def test_an_adapter_of_peft_goes_on_from_what_was_read():
    tokenizer = tiny.causal_tokenizer()
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(decoder("llama", tokenizer), config).eval()
    check(model, tokenizer)
    read = tokens_read(model.get_base_model())
    choice_log_likelihoods(model, tokenizer, ["Up?"], [["u", "d"]])
    assert len(read) == 2


def test_another_end_stands_in_place_of_the_end_token():
    tokenizer = tiny.causal_tokenizer("<s> $A")
    model, choices = tiny.llama(tokenizer), [["yes", "it is no"]] * 2
    found = choice_log_likelihoods(model, tokenizer, ["one?", "two? or"], choices, normalize=False, end=" blue")
    for text, likelihoods in zip(["one?", "two? or"], found, strict=True):
        prompt = tokenizer(text + "\n")["input_ids"]
        for choice, likelihood in zip(choices[0], likelihoods, strict=True):
            ids = prompt + tokenizer(choice + " blue", add_special_tokens=False)["input_ids"]
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
            expected = sum(float(logits[place - 1, ids[place]]) for place in range(len(prompt), len(ids)))
            assert likelihood == pytest.approx(expected, abs=1e-3)
