import json

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from decoders import decoder
from transformers import Seq2SeqTrainer

from recross_hf import ExampleTrainer, ExampleTrainingArguments, load_examples

ANSWERS = ["a", "a much longer answer than the first", "two", "four and five and six"]


@pytest.fixture
def tokenizer():
    return tiny.causal_tokenizer("<s> $A")


@pytest.fixture
def train():
    inputs = ["one", "Which colour has the sky, then?", "three", "What is up? " * 3]
    return load_examples(
        Dataset.from_dict({"input": inputs, "references": [[answer] for answer in ANSWERS], "id": [*"abcd"]})
    )


@pytest.fixture
def make_trainer(tokenizer, train, tmp_path):
    def make(family="llama", *, compute_loss_func=None, **settings) -> ExampleTrainer:
        settings = {"max_steps": 1, "save_strategy": "no", "logging_steps": 1, "learning_rate": 1.0} | settings
        args = ExampleTrainingArguments(
            str(tmp_path),
            use_cpu=True,
            disable_tqdm=True,
            max_target_length=40,
            optim="sgd",
            max_grad_norm=0.0,
            **settings,
        )
        model = decoder(family, tokenizer)
        return ExampleTrainer(
            model, args, processing_class=tokenizer, train_dataset=train, compute_loss_func=compute_loss_func
        )

    return make


def batch_of(trainer):
    return trainer.data_collator([trainer.train_dataset[row] for row in range(len(trainer.train_dataset))])


def shapes_at_head(trainer):
    shapes = []
    trainer.model.get_output_embeddings().register_forward_hook(
        lambda module, args, output: shapes.append(tuple(output.shape))
    )
    return shapes


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere"])
def test_the_loss_is_that_of_all_logits(family, smoothing, training, make_trainer):
    trainer = make_trainer(family, label_smoothing_factor=smoothing)
    trainer.model.train(training)
    batch = batch_of(trainer)
    expected = Seq2SeqTrainer.compute_loss(trainer, trainer.model, dict(batch))
    shapes = shapes_at_head(trainer)
    loss, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
    tokens, vocabulary = int((batch["labels"] != -100).sum()), trainer.model.config.vocab_size
    assert shapes == [(1, tokens, vocabulary)]
    assert outputs["logits"].shape == (tokens, vocabulary)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert trainer.compute_loss(trainer.model, dict(batch)).item() == loss.item()


def test_the_summed_loss_is_the_mean_times_the_tokens(make_trainer):
    summed, plain = make_trainer(sum_token_loss=True), make_trainer()
    batch = batch_of(plain)
    tokens = int((batch["labels"] != -100).sum())
    losses = [one.compute_loss(one.model.train(), dict(batch)).item() for one in (summed, plain)]
    assert losses[0] == pytest.approx(tokens * losses[1], rel=1e-5)


def test_a_loss_of_ones_own_sees_all_logits(make_trainer):
    seen = []

    def own(outputs, labels, num_items_in_batch=None):
        seen.append((tuple(outputs.logits.shape[:2]), tuple(labels.shape)))
        return outputs.logits.float().square().mean()

    trainer = make_trainer(compute_loss_func=own)
    batch = batch_of(trainer)
    trainer.compute_loss(trainer.model, dict(batch))
    assert seen == [(tuple(batch["labels"].shape),) * 2]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_accumulated_batches_weigh_by_their_tokens(smoothing, make_trainer):
    losses, updates = [], []
    for batch_size, steps in ((4, 1), (1, 4)):
        trainer = make_trainer(
            per_device_train_batch_size=batch_size, gradient_accumulation_steps=steps, label_smoothing_factor=smoothing
        )
        before = torch.cat([parameter.detach().flatten().clone() for parameter in trainer.model.parameters()])
        trainer.train()
        after = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
        updates.append(after - before)
        losses += [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert (updates[1] - updates[0]).norm() < 1e-4 * updates[0].norm()


def test_training_is_that_with_all_logits(make_trainer, monkeypatch):
    trainers = []
    for alone in (True, False):
        trainer = make_trainer(num_train_epochs=1, max_steps=3, per_device_train_batch_size=2, learning_rate=0.1)
        shapes = shapes_at_head(trainer)
        with monkeypatch.context() as patch:
            if not alone:
                patch.setattr(ExampleTrainer, "_takes_answers_alone", False)
            trainer.train()
        assert all((shape[0] == 1) == alone for shape in shapes)
        trainers.append(trainer)
    for one, other in zip(*(trainer.model.parameters() for trainer in trainers), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_evaluation_computes_no_logits_of_inputs_for_the_loss(make_trainer, train):
    trainer = make_trainer(per_device_eval_batch_size=4, prediction_loss_only=True)
    shapes = shapes_at_head(trainer)
    metrics = trainer.evaluate(train)
    tokens = int((batch_of(trainer)["labels"] != -100).sum())
    assert [shape[:2] for shape in shapes] == [(1, tokens)]
    batch = batch_of(trainer)
    assert metrics["eval_loss"] == pytest.approx(trainer.model(**batch).loss.item(), abs=1e-5)


def test_a_token_budget_pads_little(make_trainer, tokenizer):
    random = np.random.default_rng(0)
    words = [("a " * int(random.integers(1, 60)), "b " * int(random.integers(1, 12))) for _ in range(4000)]
    data = {"input": [text for text, _ in words], "references": [[answer] for _, answer in words]}
    trainer = make_trainer(token_budget=1000)
    trainer.train_dataset = trainer.tokenize(load_examples(Dataset.from_dict(data)))
    batches = list(trainer.get_train_dataloader())
    masks = [batch["attention_mask"] for batch in batches]
    assert max(mask.numel() for mask in masks) <= 1000
    assert sum(map(len, masks)) == len(words)
    assert sum(int(mask.sum()) for mask in masks) >= 0.95 * sum(mask.numel() for mask in masks)


def test_a_token_budget_of_an_earlier_version_made_other_batches(make_trainer, tmp_path):
    settings = {"token_budget": 300, "save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    make_trainer(**settings).train()
    checkpoint = max(tmp_path.rglob("checkpoint-1"))
    make_trainer(**settings).train(resume_from_checkpoint=str(checkpoint))
    path = checkpoint / "training_args.json"
    written = json.loads(path.read_text())
    del written["token_budget_of"]
    path.write_text(json.dumps(written))
    with pytest.raises(
        ValueError, match=r"`token_budget_of` whole rows in place of inputs and answers apart\. Resume"
    ):
        make_trainer(**settings).train(resume_from_checkpoint=str(checkpoint))


def test_predictions_show_the_head_contiguous_states_alone(make_trainer, train):
    trainer = make_trainer(per_device_eval_batch_size=4)
    contiguous = []
    trainer.model.get_output_embeddings().register_forward_hook(
        lambda module, args, output: contiguous.append(args[0].is_contiguous())
    )
    trainer.predict(train.select_columns(["input"]))
    assert len(contiguous) > 1
    assert all(contiguous)
