"""Of a large vocabulary, a batch makes few logits: what is measured is the largest tensor that any operation makes."""

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from torch.utils._python_dispatch import TorchDispatchMode

from recross_hf import SupervisionArguments, load_examples
from recross_hf.core import batching
from recross_hf.models import answer_reading
from recross_hf.models.architectures import architecture_of
from recross_hf.models.generation import generate_answers
from recross_hf.models.likelihood import choice_log_likelihoods
from recross_hf.supervision.group_trainer import GroupTrainer

VOCABULARY = 50_000
MOST = 24 * VOCABULARY
INPUTS = [
    f"is {word} a word ?"
    for word in ["apple", "pear", "plum", "cherry", "melon", "grape", "lemon", "lime", "fig", "date", "kiwi", "mango"]
] * 4
CHOICES = [["yes it is", "no it is not at all", "perhaps it is one"]] * len(INPUTS)


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that has a place for each token of the vocabulary."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.t.default:  # of the head's weight
            return made
        for value in made if isinstance(made, tuple | list) else [made]:
            if isinstance(value, torch.Tensor) and value.shape[-1:] == (VOCABULARY,):
                self.most = max(self.most, value.numel())
        return made


@pytest.fixture(scope="module", params=["gpt2", "bart", "encoder_decoder"])
def large(request):
    """A model with many more tokens than its tokenizer has, and the tokenizer."""
    tokenizer = tiny.causal_tokenizer() if request.param == "gpt2" else tiny.tokenizer()
    model = getattr(tiny, request.param)(tokenizer)
    grown = model.decoder if request.param == "encoder_decoder" else model
    grown.resize_token_embeddings(VOCABULARY)
    return model.eval(), tokenizer


def ranked(model, tokenizer):
    return np.concatenate(choice_log_likelihoods(model, tokenizer, INPUTS, CHOICES))


def read(model, tokenizer):
    architecture = architecture_of(model)
    prompts = architecture.prompt_ids(tokenizer, INPUTS, 64)
    answers = architecture.answer_ids(tokenizer, [of_input[1] for of_input in CHOICES], 16)
    collate = architecture.collator(tokenizer, model)
    return answer_reading.read_answers(model, prompts, answers, collate).log_likelihoods.numpy()


def generated(model, tokenizer):
    return [text for text, _ in generate_answers(model, tokenizer, INPUTS, max_new_tokens=3)]


def generated_by_beams(model, tokenizer):
    return [text for text, _ in generate_answers(model, tokenizer, INPUTS, max_new_tokens=3, num_beams=4)]


def measured(model, tokenizer):
    rows = {"input": INPUTS, "references": [of_input[1:2] for of_input in CHOICES]}
    examples = load_examples(Dataset.from_dict(rows), task="words")
    with GroupTrainer(model, tokenizer, SupervisionArguments(max_target_length=16)) as trainer:
        return trainer.losses(trainer.batches(trainer.tokenize(examples)))


@pytest.mark.parametrize("work", [ranked, read, generated, generated_by_beams, measured])
def test_a_batch_makes_no_more_logits_than_it_may(work, large, monkeypatch):
    with Largest() as at_once:
        expected = work(*large)
    assert at_once.most > MOST, "nothing was limited"
    monkeypatch.setattr(batching, "LOGITS_A_BATCH", MOST)
    with Largest() as limited:
        found = work(*large)
    assert 0 < limited.most <= MOST
    if isinstance(expected, list):
        assert found == expected
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-4)
