import copy

import pytest
import torch

from recross_hf.models.generation import generate_texts


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
