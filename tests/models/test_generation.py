import copy

import pytest
import tiny
import torch
from transformers import GenerationConfig

from recross_hf import ExampleTrainer, ExampleTrainingArguments
from recross_hf.models.decoding import decoding_in_force, kept
from recross_hf.models.generation import generate_answers, generate_texts
from recross_hf.soft_em import score


def test_answers_come_in_the_order_of_the_inputs_whatever_the_batches(answering_bart, tokenizer, examples):
    inputs = [*examples.shuffle(seed=1)["input"][:20], "", "x" * 200]
    expected = []
    for text in inputs:
        ids = tokenizer(text, truncation=True, max_length=50, return_tensors="pt")["input_ids"]
        output = answering_bart.generate(input_ids=ids, max_new_tokens=8)
        expected.append(tokenizer.decode(output[0], skip_special_tokens=True).strip())
    assert len(set(expected)) > 3
    for token_budget in (1, 150, 10_000):
        answers = generate_texts(
            answering_bart, tokenizer, inputs, max_input_length=50, token_budget=token_budget, max_new_tokens=8
        )
        assert answers == expected


def test_no_inputs_have_no_answers(answering_bart, tokenizer):
    assert generate_texts(answering_bart, tokenizer, [], max_new_tokens=4) == []


def test_any_model_answers(any_model, tokenizer):
    answers = generate_texts(any_model, tokenizer, ["one", "another one"], max_new_tokens=4)
    assert len(answers) == 2
    assert all(answer == answer.strip() for answer in answers)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_is_restored(training, bart, tokenizer):
    model = copy.deepcopy(bart).train(training)
    answers = generate_texts(model, tokenizer, ["What?", "Who was it?"], max_new_tokens=8)
    assert model.training == training
    assert answers == generate_texts(bart, tokenizer, ["What?", "Who was it?"], max_new_tokens=8)
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_answers_as_each_input_alone_whatever_the_tokenizers_side(beams, answering_bart, tokenizer, examples):
    """BART's positions count from the left, padding included."""
    left = copy.deepcopy(tokenizer)
    left.padding_side = "left"
    inputs = [*examples.shuffle(seed=1)["input"][:12], "x", "word " * 20]
    for side in (tokenizer, left):
        alone = [generate_texts(answering_bart, side, [text], max_new_tokens=8, num_beams=beams)[0] for text in inputs]
        assert generate_texts(answering_bart, side, inputs, max_new_tokens=8, num_beams=beams) == alone
    assert left.padding_side == "left"


# ---- what a model ships ----------------------------------------------------------------------------------------------


def shipping(model, **settings):
    """A copy whose generation configuration has these settings."""
    model = copy.deepcopy(model)
    model.generation_config.update(**settings)
    return model


def test_a_model_that_ships_sampling_answers_greedily_unless_it_is_told(answering_bart, tokenizer, examples):
    inputs = examples["input"][::4]
    greedy = generate_texts(answering_bart, tokenizer, inputs, max_new_tokens=8)
    sampler = shipping(answering_bart, do_sample=True, temperature=5.0, num_return_sequences=2, max_time=1e-9)
    before = sampler.generation_config.to_dict()
    for seed in (0, 1):
        torch.manual_seed(seed)
        assert generate_texts(sampler, tokenizer, inputs, max_new_tokens=8) == greedy
        given = GenerationConfig(max_new_tokens=8)
        assert generate_texts(sampler, tokenizer, inputs, generation_config=given) == greedy
        assert generate_texts(sampler, tokenizer, inputs, max_new_tokens=8, do_sample=True) != greedy
        given = GenerationConfig(max_new_tokens=8, do_sample=True)
        assert generate_texts(sampler, tokenizer, inputs, generation_config=given) != greedy
    assert sampler.generation_config.to_dict() == before


def test_beams_that_a_model_ships_hold_and_are_said(answering_bart, tokenizer, examples):
    inputs = examples["input"][::4]
    beams = generate_texts(answering_bart, tokenizer, inputs, max_new_tokens=8, num_beams=3)
    model = shipping(answering_bart, num_beams=3, do_sample=True)
    assert generate_texts(model, tokenizer, inputs, max_new_tokens=8) == beams
    assert decoding_in_force(model) == {"num_beams": 3}


def test_strings_that_a_model_stops_at_end_its_answers(answering_bart, tokenizer, examples, tmp_path):
    inputs = examples["input"][::4]
    plain = generate_texts(answering_bart, tokenizer, inputs, max_new_tokens=12)
    letter = max("aeiou", key=lambda one: sum(one in text[:-1] for text in plain))
    model = shipping(answering_bart, stop_strings=[letter])
    stopped = generate_texts(model, tokenizer, inputs, max_new_tokens=12)
    assert stopped != plain
    for whole, cut in zip(plain, stopped, strict=True):
        assert whole.startswith(cut)
        assert letter not in cut[:-1].partition(letter)[2]
    assert generate_texts(answering_bart, tokenizer, inputs, max_new_tokens=12, stop_strings=[letter]) == stopped
    args = ExampleTrainingArguments(output_dir=str(tmp_path), use_cpu=True, max_target_length=12, disable_tqdm=True)
    trainer = ExampleTrainer(model, args, processing_class=tokenizer)
    asked = examples.select(range(0, len(examples), 4))
    assert trainer.decode(trainer.predict(asked).predictions) == stopped
    assert trainer.evaluate(asked)["eval_exact_match"] == pytest.approx(
        score(stopped, asked["references"][:])["exact_match"]
    )
    assert decoding_in_force(model) == {"stop_strings": [letter]}


def test_what_changes_answers_is_said_and_nothing_else(bart):
    assert decoding_in_force(bart) == {}
    settings = {"early_stopping": True, "length_penalty": 2.0, "repetition_penalty": 1.3, "min_length": 5}
    model = shipping(
        bart,
        **settings,
        do_sample=True,
        temperature=0.6,
        max_length=142,
        forced_bos_token_id=0,
        no_repeat_ngram_size=0,
    )
    expected = {"forced_bos_token_id": 0, "min_length": 5, "repetition_penalty": 1.3}
    assert decoding_in_force(model) == expected  # without beams the others do nothing
    assert decoding_in_force(model, {"num_beams": 4, "min_length": 2}) == settings | {
        "forced_bos_token_id": 0,
        "num_beams": 4,
        "min_length": 2,
    }


def test_an_answer_ends_at_the_tokenizers_end_token_where_the_model_knows_another(answering_bart, tokenizer, examples):
    inputs = examples["input"][::4]
    expected = generate_texts(answering_bart, tokenizer, inputs, max_new_tokens=12)
    for other in (3, [3, 7], None):
        model = shipping(answering_bart)
        model.generation_config.eos_token_id = other
        assert generate_texts(model, tokenizer, inputs, max_new_tokens=12) == expected


def test_a_configuration_is_what_it_was_afterwards(bart):
    configuration = copy.deepcopy(bart.generation_config)
    before = copy.deepcopy(vars(configuration))
    with pytest.raises(KeyError), kept(configuration) as inside:
        assert inside is configuration
        inside.update(num_beams=4, of_ours=1)
        raise KeyError
    assert vars(configuration) == before


# ---- whether an answer ended -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["answering_bart", "gpt2"])
@pytest.mark.parametrize("token_budget", [1, 4096])
def test_what_was_cut_did_not_end(kind, token_budget, request, tokenizer, examples):
    if kind == "gpt2":
        tokenizer = tiny.causal_tokenizer()
        model = tiny.gpt2(tokenizer)
    else:
        model = request.getfixturevalue(kind)
    inputs = [*examples["input"][::6], "x", "word " * 20]
    # Where a little more room adds nothing, there is an end.
    whole = generate_texts(model, tokenizer, inputs, max_new_tokens=40)
    for room in (3, 6, 8, 30):
        found = generate_answers(model, tokenizer, inputs, max_new_tokens=room, token_budget=token_budget)
        assert [answer.text for answer in found] == generate_texts(model, tokenizer, inputs, max_new_tokens=room)
        if kind == "answering_bart":
            assert {answer.is_ended for answer in found} == {3: {False}, 6: {False, True}, 8: {True}, 30: {True}}[room]
        for answer, text in zip(found, whole, strict=True):
            assert not answer.is_ended or answer.text == text


def test_an_end_that_is_forced_is_none(answering_bart, tokenizer, examples):
    model = shipping(answering_bart, forced_eos_token_id=tokenizer.eos_token_id)
    inputs = examples["input"][::6]
    assert not any(answer.is_ended for answer in generate_answers(model, tokenizer, inputs, max_new_tokens=3))
    assert all(answer.is_ended for answer in generate_answers(model, tokenizer, inputs, max_new_tokens=30))


# ---- vocabularies ------------------------------------------------------------------------------------------------------


def test_tokens_without_embeddings_are_refused_before_any_work(any_model):
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<new>"])
    with pytest.raises(ValueError, match=r"each of the 301 tokens of the tokenizer, found 300 in .*resize_token_emb"):
        generate_texts(any_model, tokenizer, ["<new>"], max_new_tokens=2)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"temperature": 0.7}, ValueError, "`do_sample=True` beside `temperature`"),
        ({"top_p": 0.5, "top_k": 3}, ValueError, "beside `top_k`, `top_p`"),
        ({"max_new_tokens": 4, "max_length": 5}, ValueError, "`max_length=5`, which would be ignored"),
        ({"num_beams": 2, "num_return_sequences": 2}, ValueError, "one text for each input"),
        ({"return_dict_in_generate": True}, ValueError, "one text for each input"),
        ({"num_beams": 0}, ValueError, "`num_beams` must be a whole number of at least 1, found 0"),
        ({"max_new_tokens": "8"}, ValueError, "`max_new_tokens` must be a whole number"),
        ({"generation_config": {"num_beams": 2}}, TypeError, "to be a GenerationConfig, found dict"),
    ],
)
def test_what_would_be_ignored_is_refused(asked, error, message, bart, tokenizer):
    with pytest.raises(error, match=message):
        generate_texts(bart, tokenizer, ["an input"], **asked)


def test_answers_end_where_the_decoder_does(bart, tokenizer):
    assert generate_texts(bart, tokenizer, ["an input"], max_new_tokens=10**6) == generate_texts(
        bart, tokenizer, ["an input"], max_new_tokens=128
    )
