import copy
import json

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from transformers import Seq2SeqTrainingArguments, TrainerCallback

from recross_hf import ExampleTrainer, ExampleTrainingArguments, load_examples
from recross_hf.architectures import ExampleCollator
from recross_hf.generation import generate_texts
from recross_hf.soft_em import score
from recross_hf.tokenized import TokenizedExamples

PICKLED = {".bin", ".pt", ".pth", ".pkl", ".pickle"}


@pytest.fixture
def make_trainer(tokenizer, examples, tmp_path):
    def make(model, *, train_dataset=None, eval_dataset=None, callbacks=None, **settings) -> ExampleTrainer:
        settings = {"max_steps": 1, "save_strategy": "no", "per_device_eval_batch_size": 4} | settings
        settings = {"use_cpu": True, "disable_tqdm": True, "max_target_length": 12, "logging_steps": 1} | settings
        return ExampleTrainer(
            model,
            ExampleTrainingArguments(output_dir=str(tmp_path / "out"), **settings),
            processing_class=tokenizer,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
        )

    return make


def logged(trainer: ExampleTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def batch_of(trainer: ExampleTrainer, examples: Dataset) -> dict[str, torch.Tensor]:
    return trainer.data_collator([trainer.tokenize(examples)[row] for row in range(len(examples))])


# ---- loss ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [tiny.bart, tiny.t5, tiny.encoder_decoder])
def test_accumulated_gradients_are_those_of_a_larger_batch(build, make_trainer, tokenizer):
    # Targets of one length, without dropout: the mean over four batches of one is the mean over one batch of four.
    inputs = ["Add one and two.", "What is up?", "Which colour has the sky, then?", "x"]
    data = {"input": inputs, "references": [["abcd"], ["efgh"], ["ijkl"], ["mnop"]]}
    train = load_examples(Dataset.from_dict(data))
    norms, losses = [], []
    for batch_size, steps in ((4, 1), (1, 4)):
        trainer = make_trainer(
            build(tokenizer, dropout=0.0),
            train_dataset=train,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            learning_rate=0.0,
        )
        trainer.train()
        norms += logged(trainer, "grad_norm")
        losses += logged(trainer, "loss")
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_summed_loss_is_the_mean_times_the_tokens_in_training_alone(smoothing, make_trainer, examples, tokenizer):
    model = tiny.bart(tokenizer, dropout=0.0)
    some = examples.select([0, 13, 26, 39])
    losses = {}
    for summed in (False, True):
        trainer = make_trainer(model, sum_token_loss=summed, label_smoothing_factor=smoothing)
        for training in (False, True):
            model.train(training)
            losses[summed, training] = trainer.compute_loss(model, batch_of(trainer, some)).item()
    tokens = int((batch_of(trainer, some)["labels"] != -100).sum())
    assert 4 * 3 <= tokens < 60
    assert losses[True, True] == pytest.approx(tokens * losses[False, True], rel=1e-5)
    assert losses[True, False] == pytest.approx(losses[False, False], rel=1e-5)
    if not smoothing:
        batch = batch_of(trainer, some)
        logits = model(**batch).logits.flatten(0, 1)
        expected = torch.nn.functional.cross_entropy(logits, batch["labels"].flatten(), reduction="sum")
        assert losses[True, True] == pytest.approx(expected.item(), rel=1e-5)


def test_any_model_trains_and_is_scored(any_model, make_trainer, examples):
    trainer = make_trainer(
        copy.deepcopy(any_model), train_dataset=examples, max_steps=12, learning_rate=1e-2, eval_dataset=examples
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    metrics = trainer.evaluate(examples.select(range(5)), metric_key_prefix="few")
    assert trainer.evaluate()["eval_loss"] < before
    assert 0 <= metrics["few_exact_match"] <= metrics["few_soft_em"] <= 100


# ---- evaluation and prediction ---------------------------------------------------------------------------------------


def test_texts_are_scored_in_percent_against_all_references(answering_bart, make_trainer, examples, tokenizer):
    some = examples.select(range(0, 48, 4)).select(range(12))
    texts = generate_texts(answering_bart, tokenizer, some["input"][:], max_new_tokens=12)
    assert all(text.strip(".,!? ") for text in texts)
    references = [[f"qqq {row}", text.upper()] for row, text in enumerate(texts)]
    references[3:5] = [[f"zz {texts[3]} zz"], ["zz", f"qq{texts[4]}"]]
    references[5:] = [["qqq"]] * 7
    columns = {"input": some["input"][:], "references": references}
    metrics = make_trainer(answering_bart).evaluate(load_examples(Dataset.from_dict(columns)))
    assert metrics["eval_exact_match"] == pytest.approx(100 * 3 / 12)
    assert metrics["eval_soft_em"] == pytest.approx(100 * 5 / 12)


def test_predictions_keep_the_order_of_the_data_although_batches_are_sorted(answering_bart, make_trainer, examples):
    some = examples.shuffle(seed=0).select(range(13))
    trainer = make_trainer(answering_bart)
    lengths = [len(trainer.tokenize(some, longest_first=True)[row]["input_ids"]) for row in range(13)]
    assert lengths == sorted(lengths, reverse=True)
    output = trainer.predict(some)
    alone = [
        generate_texts(answering_bart, trainer.processing_class, [text], max_new_tokens=12)[0]
        for text in some["input"]
    ]
    assert trainer.decode(output.predictions) == alone
    assert len(set(alone)) > 3
    assert trainer.decode(output.label_ids) == [accepted[0] for accepted in some["references"]]
    scores = score(alone, some["references"][:])
    assert scores["soft_em"] > 0
    assert {name: output.metrics[f"test_{name}"] for name in scores} == scores


def test_unlabelled_data_are_predicted_and_not_scored(answering_bart, make_trainer, examples):
    some = examples.select([40, 3, 17, 30, 9])
    trainer = make_trainer(answering_bart)
    labelled, unlabelled = trainer.predict(some), trainer.predict(some.remove_columns("references"))
    assert unlabelled.label_ids is None
    assert not {"test_soft_em", "test_loss"} & set(unlabelled.metrics)
    assert trainer.decode(unlabelled.predictions) == trainer.decode(labelled.predictions)


def test_every_batch_may_be_as_long_as_max_target_length(make_trainer, tokenizer, examples, caplog):
    model = tiny.bart(tokenizer)
    model.final_logits_bias[0, tokenizer.eos_token_id] = -1e4  # it never stops by itself
    for longest in (5, 33):
        trainer = make_trainer(model, max_target_length=longest)
        predictions = trainer.predict(examples.select(range(10))).predictions
        lengths = (predictions[:, 1:] >= 0) & (predictions[:, 1:] != tokenizer.pad_token_id)
        assert lengths.sum(axis=1).tolist() == [longest] * 10
    assert "max_length" not in caplog.text  # no warning, batch after batch, of two limits


def test_beams_of_the_arguments_are_used(answering_bart, make_trainer, examples, tokenizer):
    model = copy.deepcopy(answering_bart)
    some = examples.select(range(0, 48, 5))
    trainer = make_trainer(model, generation_num_beams=3)
    texts = trainer.decode(trainer.predict(some).predictions)
    assert texts == generate_texts(answering_bart, tokenizer, some["input"][:], num_beams=3, max_new_tokens=12)
    assert model.generation_config.num_beams == 3


def test_evaluation_sets_can_be_named(answering_bart, make_trainer, examples):
    sets = {"sum": examples.select(range(24, 30)), "colour": examples.select(range(12, 20))}
    metrics = make_trainer(answering_bart, eval_dataset=sets).evaluate()
    for name, rows in sets.items():
        alone = make_trainer(answering_bart, eval_dataset=rows).evaluate()
        assert metrics[f"eval_{name}_soft_em"] == alone["eval_soft_em"]


def test_scores_are_logged_while_training(bart, make_trainer, examples):
    trainer = make_trainer(
        copy.deepcopy(bart),
        train_dataset=examples,
        eval_dataset=examples.select(range(6)),
        max_steps=4,
        eval_strategy="steps",
        eval_steps=2,
    )
    trainer.train()
    assert [entry["step"] for entry in trainer.state.log_history if "eval_soft_em" in entry] == [2, 4]


def test_inputs_and_targets_are_cut(tokenizer, examples):
    some = examples.select(range(6))
    items = TokenizedExamples(some, tokenizer, 7, 4)
    full = TokenizedExamples(some, tokenizer, 100, 100)
    assert len(items) == 6
    assert {len(items[row]["input_ids"]) for row in range(6)} == {7}
    assert {len(items[row]["labels"]) for row in range(6)} <= {3, 4}
    assert all(items[row]["input_ids"][:6] == full[row]["input_ids"][:6] for row in range(6))
    assert tokenizer.decode(full[0]["labels"], skip_special_tokens=True) == some[0]["references"][0]


def test_padding_is_no_target_and_unlabelled_batches_have_no_labels(tokenizer, bart):
    collate = ExampleCollator(tokenizer, model=bart)
    batch = collate([{"input_ids": [0, 5, 2], "labels": [6, 2]}, {"input_ids": [0, 2], "labels": [6, 7, 8, 2]}])
    assert batch["labels"].tolist() == [[6, 2, -100, -100], [6, 7, 8, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert set(collate([{"input_ids": [0, 5, 2]}])) == {"input_ids", "attention_mask"}


# ---- runs and files ----------------------------------------------------------------------------------------------------


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_seed_alone_decides_the_run(bart, make_trainer, examples):
    def run(seed: int, *, evaluate_first: bool = False) -> dict[str, torch.Tensor]:
        trainer = make_trainer(
            copy.deepcopy(bart),
            train_dataset=examples,
            eval_dataset=examples.select(range(4)),
            max_steps=3,
            learning_rate=1e-2,
            seed=seed,
        )
        if evaluate_first:
            trainer.evaluate()
        trainer.train()
        return weights(trainer.model)

    first = run(1)
    assert same(run(1), first)
    assert not same(run(2), first)
    assert same(run(1, evaluate_first=True), first)


def test_saved_files_hold_no_pickle_and_load(bart, make_trainer, examples, tmp_path):
    trainer = make_trainer(copy.deepcopy(bart), train_dataset=examples, learning_rate=1e-2)
    trainer.train()
    trainer.save_model()
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "training_args.json"} <= names
    assert not {name for name in names if "." + name.rsplit(".", 1)[-1] in PICKLED}
    settings = json.loads((tmp_path / "out" / "training_args.json").read_text())
    assert (settings["learning_rate"], settings["max_target_length"]) == (1e-2, 12)
    assert same(weights(type(bart).from_pretrained(tmp_path / "out")), weights(trainer.model))


def test_callbacks_are_called(bart, make_trainer, examples):
    class Counts(TrainerCallback):
        steps = 0

        def on_step_end(self, args, state, control, **kwargs):
            self.steps += 1

    counts = Counts()
    make_trainer(copy.deepcopy(bart), train_dataset=examples, max_steps=3, callbacks=[counts]).train()
    assert counts.steps == 3


def test_wrong_arguments_are_refused(bart, tokenizer, examples, make_trainer, tmp_path):
    plain = Seq2SeqTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(TypeError, match="ExampleTrainingArguments or a subclass, found Seq2SeqTrainingArguments"):
        ExampleTrainer(bart, plain, processing_class=tokenizer)
    ours = ExampleTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(ValueError, match="Expected `processing_class`, the model's tokenizer, found None"):
        ExampleTrainer(bart, ours, processing_class=None)
    with pytest.raises(ValueError, match="Expected an evaluation set, found none"):
        make_trainer(copy.deepcopy(bart)).evaluate()


def test_decode_takes_padding_of_both_kinds(make_trainer, bart, tokenizer):
    ids = tokenizer(["yes", "black"])["input_ids"]
    longest = max(map(len, ids)) + 3
    padded = np.array([row + [-100] * (longest - len(row) - 1) + [tokenizer.pad_token_id] for row in ids])
    assert make_trainer(copy.deepcopy(bart)).decode(padded) == ["yes", "black"]


def test_compute_metrics_sees_the_order_of_the_data_set(bart, tokenizer, examples, tmp_path):
    seen = []

    def compute_metrics(prediction):
        labels = np.where(prediction.label_ids < 0, tokenizer.pad_token_id, prediction.label_ids)
        seen.extend(tokenizer.batch_decode(labels, skip_special_tokens=True))
        return {"rows": len(labels)}

    args = ExampleTrainingArguments(output_dir=tmp_path, report_to="none", use_cpu=True, max_target_length=32)
    trainer = ExampleTrainer(bart, args, processing_class=tokenizer, compute_metrics=compute_metrics)
    metrics = trainer.evaluate(examples)
    assert metrics["eval_rows"] == len(examples)
    assert [text.strip() for text in seen] == [references[0] for references in examples["references"]]
