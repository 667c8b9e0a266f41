import copy
import json
import shutil

import numpy as np
import pytest
import tiny
import torch
import transformers
from accelerate.state import AcceleratorState
from contents import same, weights
from datasets import Dataset
from packaging.version import Version
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoTokenizer,
    BartForConditionalGeneration,
    EarlyStoppingCallback,
    GenerationConfig,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from recross_hf import ExampleTrainer, ExampleTrainingArguments, examples_by_task, load_examples
from recross_hf.adaptation.model_copy import adaptable_copy
from recross_hf.models import base
from recross_hf.models.collators import ExampleCollator
from recross_hf.models.generation import generate_texts
from recross_hf.models.tokenization import TokenizedExamples
from recross_hf.soft_em import score
from recross_hf.training.checkpoints import checkpoint_to_resume
from recross_hf.training.results import logged_metrics

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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("build", [tiny.bart, tiny.t5])
def test_accumulated_batches_weigh_by_their_tokens(build, smoothing, make_trainer, tokenizer):
    answers = ["a", "a much longer answer than the first", "two", "four and five and six"]
    data = {"input": ["one", "two", "three", "four"], "references": [[answer] for answer in answers]}
    train = load_examples(Dataset.from_dict(data))
    losses, updates = [], []
    for batch_size, steps in ((4, 1), (1, 4)):
        trainer = make_trainer(
            build(tokenizer, dropout=0.0),
            train_dataset=train,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            label_smoothing_factor=smoothing,
            max_target_length=40,
            learning_rate=1.0,
            optim="sgd",
            max_grad_norm=0.0,
        )
        before = torch.cat([parameter.detach().flatten().clone() for parameter in trainer.model.parameters()])
        trainer.train()
        after = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
        updates.append(after - before)
        losses += logged(trainer, "loss")
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert (updates[1] - updates[0]).norm() < 1e-4 * updates[0].norm()


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
    assert model.generation_config.num_beams == answering_bart.generation_config.num_beams  # it is the caller's


def test_a_model_that_ships_sampling_is_scored_greedily_unless_it_is_told(answering_bart, make_trainer, examples):
    some = examples.select(range(0, 48, 4))
    expected = make_trainer(answering_bart).evaluate(some)["eval_soft_em"]
    model = copy.deepcopy(answering_bart)
    model.generation_config.update(
        do_sample=True, temperature=9.0, repetition_penalty=1.0, min_length=3, max_length=77
    )
    before = copy.deepcopy(vars(model.generation_config))
    trainer = make_trainer(model)
    first = trainer.decode(trainer.predict(some).predictions)
    assert trainer.decode(trainer.predict(some).predictions) == first
    assert trainer.decode(trainer.predict(some, do_sample=True).predictions) != first
    assert trainer.evaluate(some)["eval_soft_em"] == expected > 0
    assert trainer.decoding == {"min_length": 3}
    assert vars(model.generation_config) == before


def test_the_generation_configuration_of_the_arguments_is_used_and_not_saved(
    answering_bart, make_trainer, examples, tokenizer
):
    model, some = copy.deepcopy(answering_bart), examples.select(range(0, 48, 5))
    before = copy.deepcopy(vars(model.generation_config))
    trainer = make_trainer(model, generation_config=GenerationConfig(num_beams=3, repetition_penalty=3.0))
    texts = trainer.decode(trainer.predict(some).predictions)
    given = {"num_beams": 3, "repetition_penalty": 3.0}
    assert texts == generate_texts(answering_bart, tokenizer, some["input"][:], max_new_tokens=12, **given)
    assert trainer.decoding == given
    assert vars(model.generation_config) == before


def test_evaluation_sets_can_be_named(answering_bart, make_trainer, examples):
    sets = {"sum": examples.select(range(24, 30)), "colour": examples.select(range(12, 20))}
    metrics = make_trainer(answering_bart, eval_dataset=sets).evaluate()
    for name, rows in sets.items():
        alone = make_trainer(answering_bart, eval_dataset=rows).evaluate()
        assert metrics[f"eval_{name}_soft_em"] == alone["eval_soft_em"]


def test_workers_that_persist_do_not_score_one_set_on_another(answering_bart, make_trainer, examples):
    losses = []
    for persistent in (False, True):
        trainer = make_trainer(
            answering_bart,
            eval_dataset=examples_by_task(examples),
            dataloader_num_workers=1,
            dataloader_persistent_workers=persistent,
        )
        metrics = trainer.evaluate()
        losses.append([metrics[f"eval_{task}_loss"] for task in trainer.eval_dataset])
    assert losses[1] == losses[0]
    assert len(set(losses[0])) == 4


def test_evaluation_sets_are_tokenised_once_and_their_loaders_do_not_pile_up(bart, make_trainer, examples):
    trainer = make_trainer(copy.deepcopy(bart), eval_dataset=examples_by_task(examples))
    first, others = trainer.evaluate(), examples.select(range(3))
    loaders = [trainer.get_eval_dataloader(task) for task in ("sum", "colour", "sum")]
    assert loaders[0].dataset is loaders[2].dataset is not loaders[1].dataset
    assert {name: value for name, value in trainer.evaluate().items() if name.endswith(("_loss", "_em"))} == {
        name: value for name, value in first.items() if name.endswith(("_loss", "_em"))
    }
    trainer.predict(others)
    assert not trainer.accelerator._dataloaders
    trainer.eval_dataset = others
    assert len(trainer.get_eval_dataloader().dataset) == 3
    trainer.eval_dataset = examples
    assert len(trainer.get_eval_dataloader().dataset) == 48


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
    with pytest.raises(ValueError, match=r"training examples with `references`, .*found the columns \['id', 'task'"):
        make_trainer(copy.deepcopy(bart), train_dataset=examples.remove_columns("references"))


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


# ---- mixtures and token budgets ------------------------------------------------------------------------------------------


class Killed(Exception):
    pass


class Batches(TrainerCallback):
    """Keeps what the model is trained on, by step, and may end the run in the midst of it."""

    def __init__(self, kill_after: int | None = None) -> None:
        self.seen: list[list[list[int]]] = []
        self.kill_after = kill_after

    def watch(self, trainer: ExampleTrainer) -> None:
        step = trainer.training_step

        def watched(model, inputs, *args, **kwargs):
            self.seen.append(inputs["input_ids"].tolist())
            return step(model, inputs, *args, **kwargs)

        trainer.training_step = watched

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.kill_after:
            raise Killed


def uneven(examples: Dataset) -> Dataset:
    """Of four tasks 2, 4, 8 and 12 examples, with inputs of all lengths."""
    rows = [row for row in range(48) if row % 12 < (2, 4, 8, 12)[row // 12]]
    return examples.select(rows).map(
        lambda row, number: {"input": row["input"] + " so" * (number % 5)}, with_indices=True
    )


MIXTURES = {
    "random": {"per_device_train_batch_size": 4},
    "budget": {"token_budget": 150},
    "budget, mixed": {"token_budget": 150, "mixing_temperature": 2.0, "max_examples_per_task": 6},
    "mixed": {"per_device_train_batch_size": 4, "max_examples_per_task": 3},
}


# What is simplest and what has everything; the slow ones are the other combinations, some of which `test_resume` draws.
RESUMED = [
    pytest.param(
        settings,
        accumulation,
        id=f"{name}-{accumulation}",
        marks=[] if (name, accumulation) in (("random", 1), ("budget, mixed", 2)) else [pytest.mark.slow],
    )
    for name, settings in MIXTURES.items()
    for accumulation in (1, 2)
]


@pytest.mark.parametrize(("settings", "accumulation"), RESUMED)
def test_a_killed_run_resumes_to_the_same_weights(settings, accumulation, bart, make_trainer, examples, tmp_path):
    train = uneven(examples)

    def make(callback: Batches) -> ExampleTrainer:
        trainer = make_trainer(
            copy.deepcopy(bart),  # with dropout, so that random states count
            train_dataset=train,
            callbacks=[callback],
            max_steps=-1,
            num_train_epochs=2,
            gradient_accumulation_steps=accumulation,
            learning_rate=1e-2,
            save_strategy="steps",
            save_steps=1,
            save_total_limit=1,
            **settings,
        )
        callback.watch(trainer)
        return trainer

    whole = Batches()
    unbroken = make(whole)
    unbroken.train()
    steps_an_epoch = unbroken.state.max_steps // 2
    assert steps_an_epoch >= 2
    assert len(whole.seen) == 2 * len(unbroken.get_train_dataloader())
    for killed_after in (1, steps_an_epoch, steps_an_epoch + 1):
        shutil.rmtree(tmp_path / "out")
        with pytest.raises(Killed):
            make(Batches(killed_after + 1)).train()
        assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == [f"checkpoint-{killed_after}"]
        rest = Batches()
        resumed = make(rest)
        resumed.train(resume_from_checkpoint="true")
        assert same(weights(resumed.model), weights(unbroken.model))
        assert rest.seen == whole.seen[-len(rest.seen) :]
        assert len(rest.seen) < len(whole.seen)


@pytest.mark.parametrize(
    "settings",
    [{"max_steps": 4}, {"max_steps": 4, "save_strategy": "epoch"}, {"max_steps": -1, "num_train_epochs": 2}],
)
def test_a_finished_run_that_is_told_to_go_on_stays_as_it_is(settings, bart, make_trainer, examples, tmp_path):
    def make() -> ExampleTrainer:
        settings_of_all = {"learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 1} | settings
        return make_trainer(
            copy.deepcopy(bart), train_dataset=examples, per_device_train_batch_size=16, **settings_of_all
        )

    (whole := make()).train()
    state = tmp_path / "out" / f"checkpoint-{whole.state.max_steps}" / "trainer_state.json"
    written = state.stat().st_mtime_ns
    (again := make()).train(resume_from_checkpoint=True)
    assert state.stat().st_mtime_ns == written
    assert again.state.global_step == whole.state.global_step == whole.state.max_steps
    assert same(weights(again.model), weights(whole.model))
    again.train(resume_from_checkpoint=False)  # a new run, of the same trainer, is no finished one
    assert again.state.global_step == whole.state.max_steps


@pytest.mark.parametrize("by", ["trainer", "copy for all weights"])
def test_what_16_bits_do_not_tell_apart_is_not_lost_as_an_adapter_is_merged(by, make_trainer):
    base = tiny.llama(tiny.tokenizer()).bfloat16()
    model = get_peft_model(copy.deepcopy(base), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.fill_(1e-5)
    changes = {
        name: layer.get_delta_weight("default") for name, layer in model.named_modules() if name.endswith("q_proj")
    }
    if by == "trainer":
        trainer = make_trainer(model)
        trainer.merge_adapter()
        whole = trainer.model
    else:
        whole = adaptable_copy(model, None, 0, upstream_adapter="merge")
    merged = dict(whole.named_parameters())
    for name, change in changes.items():
        name = name.removeprefix("base_model.model.") + ".weight"
        found = merged[name] - base.get_parameter(name).float()
        assert (found - change.float()).abs().max() < 0.05 * change.abs().max()


def test_steps_keep_to_the_token_budget_and_an_epoch_has_every_example(bart, make_trainer, examples):
    train, batches = uneven(examples), Batches()
    trainer = make_trainer(
        copy.deepcopy(bart), train_dataset=train, max_steps=-1, num_train_epochs=3, token_budget=150
    )
    batches.watch(trainer)
    output = trainer.train()
    an_epoch = len(trainer.get_train_dataloader())
    assert output.global_step == trainer.state.max_steps == len(batches.seen) == 3 * an_epoch
    everything = sorted(trainer.train_dataset[row]["input_ids"] for row in range(26))
    pad = trainer.processing_class.pad_token_id
    orders = []
    for epoch in range(3):
        part = batches.seen[epoch * an_epoch : (epoch + 1) * an_epoch]
        rows = [[token for token in row if token != pad] for batch in part for row in batch]
        assert sorted(rows) == everything
        orders.append(rows)
        longest = [len(batch[0]) for batch in part]
        assert longest[0] >= max(longest) - 2  # but for the answers
    assert orders[0] != orders[1] != orders[2]
    assert max(len(batch) * len(batch[0]) for batch in batches.seen) < 150
    # The samples that `Trainer` says it trained on.
    assert output.metrics["train_samples_per_second"] * output.metrics["train_runtime"] == pytest.approx(78, rel=0.1)


def test_steps_that_are_given_go_through_as_many_epochs_as_they_need(bart, make_trainer, examples):
    trainer = make_trainer(
        copy.deepcopy(bart),
        train_dataset=uneven(examples),
        max_steps=7,
        gradient_accumulation_steps=2,
        mixing_temperature=3.0,
        max_examples_per_task=5,
        per_device_train_batch_size=4,
    )
    trainer.train()
    # 2 + 4 + 5 + 5 examples make 4 batches, 2 steps an epoch.
    assert (trainer.state.global_step, trainer.state.epoch, trainer.state.num_train_epochs) == (7, 3.5, 4)


def test_a_mixture_has_the_tasks_that_were_asked_for(bart, make_trainer, examples):
    train = uneven(examples)
    trainer = make_trainer(
        copy.deepcopy(bart), train_dataset=train, mixing_temperature=1e9, per_device_train_batch_size=5
    )
    sampler = trainer.get_train_dataloader().batch_sampler
    tasks = [train[row]["task"] for batch in sampler for row in batch]
    assert {task: tasks.count(task) for task in tiny.TASKS} == dict(zip(tiny.TASKS, (6, 6, 7, 7), strict=True))


def test_examples_with_long_answers_are_left_out_of_training_alone(bart, make_trainer, tokenizer, examples, caplog):
    longest = len(tokenizer("white")["input_ids"])
    answers = [row["references"][0] for row in examples]
    kept = [answer for answer in answers if len(tokenizer(answer)["input_ids"]) <= longest]
    assert 0 < len(kept) < 48
    trainer = make_trainer(
        copy.deepcopy(bart), train_dataset=examples, max_target_length=longest, drop_long_targets=True
    )
    labels = [tokenizer.decode(item["labels"], skip_special_tokens=True) for item in trainer.train_dataset]
    assert labels == kept
    assert f"Left out {48 - len(kept)} of 48 examples" in caplog.text
    assert len(trainer.predict(examples).predictions) == 48


def test_lengths_are_padded_to_a_multiple_and_never_beyond_what_the_model_takes(bart, make_trainer, examples):
    long = examples.select(range(4)).map(lambda row: {"input": row["input"] + " so" * 100})
    trainer = make_trainer(copy.deepcopy(bart), train_dataset=long, pad_to_multiple_of=48, eval_dataset=long)
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(4)])
    assert batch["input_ids"].shape == (4, 96)  # of 128 positions
    assert batch["labels"].shape == (4, 48)
    trainer.train()
    plain = make_trainer(copy.deepcopy(bart), max_input_length=96).evaluate(long)
    padded = make_trainer(copy.deepcopy(bart), max_input_length=96, pad_to_multiple_of=32).evaluate(long)
    assert padded["eval_loss"] == pytest.approx(plain["eval_loss"], rel=1e-5)
    with pytest.raises(ValueError, match=r"`pad_to_multiple_of` to be no more than the model takes, 128 .* found 129"):
        make_trainer(copy.deepcopy(bart), train_dataset=long, pad_to_multiple_of=129)
    with pytest.raises(ValueError, match=r"at most the 128 positions .*found 144 tokens: `max_target_length` is 100"):
        make_trainer(copy.deepcopy(bart), train_dataset=long, pad_to_multiple_of=48, max_target_length=100)


@pytest.mark.parametrize("build", [tiny.bart, tiny.t5])
def test_activation_checkpointing_changes_no_loss(build, make_trainer, tokenizer, examples):
    losses, norms = [], []
    for checkpointing in (False, True):
        trainer = make_trainer(
            build(tokenizer),
            train_dataset=uneven(examples),
            token_budget=200,
            max_steps=4,
            learning_rate=1e-3,
            gradient_checkpointing=checkpointing,  # its name in every version that is supported
        )
        trainer.train()
        assert trainer.model.is_gradient_checkpointing == checkpointing
        losses.append(logged(trainer, "loss"))
        norms.append(logged(trainer, "grad_norm"))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)


@pytest.fixture
def own_precision(monkeypatch):
    """A process has one precision, that of its first accelerator."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    yield AcceleratorState._reset_state
    AcceleratorState._reset_state()


def test_half_precision_trains_near_the_full_one(own_precision, tokenizer, make_trainer, examples):
    losses = []
    for bf16 in (False, True):
        own_precision()
        trainer = make_trainer(
            tiny.bart(tokenizer), train_dataset=uneven(examples), token_budget=200, max_steps=4, bf16=bf16
        )
        trainer.train()
        assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
        losses.append(logged(trainer, "loss"))
    assert losses[1] != losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_a_batch_size_that_was_lowered_is_that_of_a_mixture(bart, make_trainer, examples):
    class OutOfMemory(ExampleTrainer):
        def training_step(self, model, inputs, *args, **kwargs):
            sizes.append(len(inputs["input_ids"]))
            if sizes[-1] > 4:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().training_step(model, inputs, *args, **kwargs)

    sizes: list[int] = []
    plain = make_trainer(copy.deepcopy(bart), max_examples_per_task=6, per_device_train_batch_size=5)
    plain.args.auto_find_batch_size = True
    trainer = OutOfMemory(plain.model, plain.args, processing_class=plain.processing_class, train_dataset=examples)
    trainer.train()
    assert sizes[0] > 4
    assert sizes[-1] <= 4


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("build", [tiny.bart, tiny.encoder_decoder])
def test_the_encoder_generates_in_the_precision_of_training(
    build, bf16, own_precision, tokenizer, make_trainer, examples
):
    own_precision()
    trainer = make_trainer(build(tokenizer), bf16=bf16)
    computed = set()
    for module in trainer.model.get_encoder().modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: computed.add(output.dtype))
    trainer.predict(examples.remove_columns("references"))
    assert computed == {torch.bfloat16 if bf16 else torch.float32}


# ---- evaluation by task ----------------------------------------------------------------------------------------------------


def test_tasks_are_evaluated_one_by_one_and_their_mean_chooses_the_best_checkpoint(
    answering_bart, make_trainer, examples
):
    class Evaluated(TrainerCallback):
        def __init__(self) -> None:
            self.found = []

        def on_evaluate(self, args, state, control, metrics, **kwargs):
            self.found.append(metrics)

    tasks = examples_by_task(examples, max_examples_per_task=5)
    tasks["sum"] = tasks["sum"].map(lambda row: {"references": ["qqq"]})
    trainer = make_trainer(
        copy.deepcopy(answering_bart),
        train_dataset=examples,
        eval_dataset=tasks,
        callbacks=[evaluated := Evaluated()],
        max_steps=3,
        learning_rate=3e-3,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_exact_match",
        greater_is_better=True,
    )
    trainer.train()
    metrics = trainer.evaluate()
    for name in ("loss", "soft_em", "exact_match"):
        of_tasks = [metrics[f"eval_{task}_{name}"] for task in tasks]
        assert metrics[f"eval_{name}"] == pytest.approx(np.mean(of_tasks))
        assert len(set(of_tasks)) > 1, name
    found = [entry["eval_exact_match"] for entry in trainer.state.log_history if "eval_exact_match" in entry]
    assert trainer.state.best_metric == max(found)
    assert metrics["eval_exact_match"] == max(found)
    assert sum("eval_exact_match" in metrics for metrics in evaluated.found) == 4


@pytest.mark.parametrize(
    "settings", [{"load_best_model_at_end": True}, {"save_strategy": "no"}, {"eval_strategy": "no"}]
)
def test_what_was_measured_of_the_last_weights_is_not_measured_again(settings, bart, make_trainer, examples):
    tasks = examples_by_task(examples, max_examples_per_task=3)
    steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 3}
    # With this rate the first step is the best one.
    trainer = make_trainer(
        copy.deepcopy(bart), train_dataset=examples, eval_dataset=tasks, learning_rate=0.5, **steps | settings
    )
    assert logged_metrics(trainer.state, trainer.args, tasks) is None
    trainer.train()
    measured = logged_metrics(trainer.state, trainer.args, tasks)
    if "eval_strategy" in settings:
        assert measured is None
        return
    if "load_best_model_at_end" in settings:
        assert trainer.state.best_global_step == 1
    again = trainer.evaluate()
    for name in ("loss", "soft_em", "exact_match"):
        for key in (f"eval_{name}", *(f"eval_{task}_{name}" for task in tasks)):
            assert measured[key] == pytest.approx(again[key], abs=1e-5)
    assert logged_metrics(trainer.state, trainer.args, [*tasks, "another"]) is None


def test_the_side_that_is_cut_is_saved_with_the_tokenizer(bart, make_trainer, tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr(tokenizer, "truncation_side", "left")
    make_trainer(bart).save_model()
    assert AutoTokenizer.from_pretrained(tmp_path / "out").truncation_side == "left"


@pytest.mark.parametrize("are_own", [True, False])
def test_what_is_asked_of_generate_holds_for_each_task(are_own, bart, make_trainer, examples, monkeypatch):
    tasks, asked = examples_by_task(examples, max_examples_per_task=2), []
    trainer = make_trainer(copy.deepcopy(bart), eval_dataset=tasks if are_own else None)
    generate = trainer.model.generate
    monkeypatch.setattr(
        trainer.model, "generate", lambda *args, **kwargs: asked.append(kwargs) or generate(*args, **kwargs)
    )
    trainer.evaluate(None if are_own else tasks, num_beams=2, min_new_tokens=3)
    assert len(asked) == len(tasks)
    assert all((one["num_beams"], one["min_new_tokens"]) == (2, 3) for one in asked)


def test_early_stopping_sees_the_mean_of_tasks(bart, make_trainer, examples):
    trainer = make_trainer(
        copy.deepcopy(bart),
        train_dataset=examples,
        eval_dataset=examples_by_task(examples, max_examples_per_task=2),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=1)],
        max_steps=9,
        learning_rate=0.0,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
    )
    trainer.train()
    assert trainer.state.global_step == 2


# ---- resuming --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"token_budget": 160}, "`token_budget` 160 in place of 150"),
        ({"mixing_temperature": 3.0}, "`mixing_temperature` 3.0 in place of 2.0"),
        ({"max_examples_per_task": None}, "`max_examples_per_task` None in place of 6"),
        ({"seed": 1, "token_budget": None}, "`token_budget` None in place of 150, `data_seed` 1 in place of 42"),
        ({"data_seed": 3}, "`data_seed` 3 in place of 42"),
        ({"data_seed": 42, "learning_rate": 1.0}, None),
    ],
)
def test_a_run_is_not_resumed_with_other_batches(changed, match, bart, make_trainer, examples, tmp_path):
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1} | MIXTURES["budget, mixed"]
    make_trainer(copy.deepcopy(bart), train_dataset=uneven(examples), **settings).train()
    shutil.rmtree(tmp_path / "out" / "checkpoint-2")
    trainer = make_trainer(copy.deepcopy(bart), train_dataset=uneven(examples), **settings | changed)
    if match is None:
        trainer.train(resume_from_checkpoint=True)
    else:
        with pytest.raises(ValueError, match=f"that made the batches of .*checkpoint-1, found {match}. Resume with"):
            trainer.train(resume_from_checkpoint=True)


def test_a_run_is_not_resumed_on_another_number_of_processes(bart, make_trainer, examples, tmp_path):
    trainer = make_trainer(copy.deepcopy(bart), train_dataset=examples, save_strategy="steps", save_steps=1)
    trainer.train()
    path = tmp_path / "out" / "checkpoint-1" / "training_args.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_processes": 8}))
    with pytest.raises(ValueError, match="found `num_processes` 1 in place of 8"):
        trainer.train(resume_from_checkpoint="true")


def test_what_to_resume_from_is_a_folder_or_the_last_one(tmp_path):
    assert [checkpoint_to_resume(wanted, tmp_path) for wanted in (None, False, "false", "")] == [None] * 4
    for wanted in (True, "true", "True"):
        with pytest.raises(
            ValueError, match=r"from in .*: expected a checkpoint-\* folder with trainer_state.json. Leave"
        ):
            checkpoint_to_resume(wanted, tmp_path)
    with pytest.raises(ValueError, match=r"No checkpoint to resume from in .*/none: expected a checkpoint-\* folder"):
        checkpoint_to_resume(True, tmp_path / "none")
    with pytest.raises(
        ValueError, match=r"from in elsewhere: expected a folder with trainer_state.json, or 'true' for"
    ):
        checkpoint_to_resume("elsewhere", tmp_path)
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-12").mkdir()  # of a run that was killed while it saved
    (tmp_path / "checkpoint-notes").mkdir()
    (tmp_path / "checkpoint-notes" / "trainer_state.json").write_text("{}")
    assert checkpoint_to_resume("true", tmp_path) == str(tmp_path / "checkpoint-10")
    assert checkpoint_to_resume(str(tmp_path / "checkpoint-2"), tmp_path) == str(tmp_path / "checkpoint-2")


@pytest.mark.parametrize("multiple", [None, 8])
def test_predictions_and_losses_are_those_of_each_example_alone_whatever_the_tokenizers_side(
    multiple, answering_bart, tokenizer, examples, tmp_path
):
    left, some = copy.deepcopy(tokenizer), examples.shuffle(seed=3).select(range(12))
    left.padding_side = "left"
    found = []
    for size in (4, 1):
        args = ExampleTrainingArguments(
            output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, per_device_eval_batch_size=size,
            max_target_length=12, pad_to_multiple_of=multiple,
        )  # fmt: skip
        trainer = ExampleTrainer(answering_bart, args, processing_class=left)
        output = trainer.predict(some)
        items = trainer.tokenize(some)
        losses = [answering_bart(**trainer.data_collator([item])).loss.item() for item in items]
        batch = trainer.data_collator(list(items))
        logits = answering_bart(**batch).logits.log_softmax(dim=-1)
        picked = logits.gather(2, batch["labels"].clamp(min=0)[:, :, None])[:, :, 0]
        mask = batch["labels"] >= 0
        together = -(picked * mask).sum(dim=1) / mask.sum(dim=1)
        assert together.tolist() == pytest.approx(losses, abs=1e-4)
        found.append(trainer.decode(output.predictions))
    assert found[0] == found[1]
    assert len(set(found[0])) > 3
    assert left.padding_side == "left"


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"gradient_accumulation_steps": 2}, "`gradient_accumulation_steps` 2 in place of 1"),
        ({"per_device_train_batch_size": 2}, "`per_device_train_batch_size` 2 in place of 4"),
        ({"dataloader_drop_last": True}, "`dataloader_drop_last` True in place of False"),
        ({"train_sampling_strategy": "sequential"}, "`train_sampling_strategy` sequential in place of random"),
        (
            {"accelerator_config": {"split_batches": True}},
            "`accelerator_config.split_batches` True in place of False",
        ),
        ({"max_input_length": 7}, "`max_input_length` 7 in place of 512, `train_data` .* in place of .*"),
        ({"max_target_length": 2}, "`max_target_length` 2 in place of 12, `train_data` .* in place of .*"),
        ({"drop_long_targets": True}, "`drop_long_targets` True in place of False"),
        ({"learning_rate": 1.0, "num_train_epochs": 9, "per_device_eval_batch_size": 2}, None),
    ],
)
def test_a_run_is_not_resumed_with_other_examples_a_step(changed, match, bart, make_trainer, examples, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 4}
    make_trainer(copy.deepcopy(bart), train_dataset=examples, **settings).train()
    trainer = make_trainer(copy.deepcopy(bart), train_dataset=examples, **settings | changed)
    if match is None:
        trainer.train(resume_from_checkpoint=True)
    else:
        with pytest.raises(ValueError, match=f"that made the batches of .*checkpoint-1, found {match}. Resume with"):
            trainer.train(resume_from_checkpoint=True)


def test_a_run_is_not_resumed_on_other_data(bart, make_trainer, examples, tokenizer, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1}
    make_trainer(copy.deepcopy(bart), train_dataset=examples, **settings).train()
    answers = [[*row["references"][1:], row["references"][0]] for row in examples]
    others = [
        examples.shuffle(seed=0),
        examples.select(range(47)),
        examples.remove_columns("references").add_column("references", answers),
    ]
    for other in others:
        with pytest.raises(ValueError, match=r"found `train_data` \w+ in place of \w+. Resume with"):
            make_trainer(copy.deepcopy(bart), train_dataset=other, **settings).train(resume_from_checkpoint=True)
    # A checkpoint of an earlier version says less.
    path = tmp_path / "out" / "checkpoint-1" / "training_args.json"
    written = json.loads(path.read_text())
    path.write_text(json.dumps({name: written[name] for name in written.keys() - {"train_data", "truncation_side"}}))
    make_trainer(copy.deepcopy(bart), train_dataset=others[0], **settings).train(resume_from_checkpoint=True)


def test_an_adapter_is_not_resumed_as_a_model_nor_the_reverse(bart, make_trainer, examples, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "train_dataset": examples}

    def lora():
        return get_peft_model(copy.deepcopy(bart), LoraConfig(task_type="SEQ_2_SEQ_LM", r=2))

    make_trainer(lora(), **settings).train()
    with pytest.raises(ValueError, match=r"Expected the checkpoint of a whole model .*found one of a PEFT adapter"):
        make_trainer(copy.deepcopy(bart), **settings).train(resume_from_checkpoint=True)
    make_trainer(lora(), **settings).train(resume_from_checkpoint=True)
    shutil.rmtree(tmp_path / "out")
    make_trainer(copy.deepcopy(bart), **settings).train()
    with pytest.raises(ValueError, match=r"Expected the checkpoint of an adapter .*found one of a whole model"):
        make_trainer(lora(), **settings).train(resume_from_checkpoint=True)


# ---- what is saved of the model -------------------------------------------------------------------------------------------

SHIPPED = {
    "beams": {"num_beams": 4, "early_stopping": True, "length_penalty": 2.0, "no_repeat_ngram_size": 3},
    "sampling": {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
    "temperature alone": {"temperature": 0.6, "top_p": 0.9},
    "lengths": {"max_length": 142, "min_length": 2},
}


REFUSED = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.23"),
    reason="transformers before 5.23 saves no temperature without sampling",
)


@pytest.mark.parametrize(
    "shipped",
    [pytest.param(SHIPPED[name], id=name, marks=REFUSED if name == "temperature alone" else []) for name in SHIPPED],
)
def test_a_training_is_saved_with_the_generation_configuration_that_the_model_shipped(
    shipped, bart, make_trainer, examples, tmp_path
):
    bart.save_pretrained(tmp_path / "shipped")
    path = tmp_path / "shipped" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | shipped))
    model = BartForConditionalGeneration.from_pretrained(tmp_path / "shipped")
    live, files = model.generation_config.to_dict(), []
    trainer = make_trainer(
        model,
        train_dataset=examples,
        eval_dataset=examples.select(range(4)),
        generation_num_beams=1,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
    )
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()
    trainer.save_model()
    for folder in ("out", "out/checkpoint-1"):
        files.append(json.loads((tmp_path / folder / "generation_config.json").read_text()))
    assert files == [json.loads(path.read_text())] * 2
    assert model.generation_config.to_dict() == live


def test_a_configuration_that_could_not_be_saved_is_refused_before_the_training(bart, make_trainer, examples):
    model = copy.deepcopy(bart)
    model.generation_config.temperature = 0.3
    trainer = make_trainer(model, train_dataset=examples)
    with pytest.raises(
        ValueError, match=r"(?s)generation configuration can be saved .*temperature.* Change `model\.gen"
    ):
        trainer.train()
    assert trainer.state.global_step == 0


def test_special_tokens_of_the_model_stay_its_own(bart, make_trainer, examples, tmp_path):
    model = copy.deepcopy(bart)
    own = {"eos_token_id": 7, "bos_token_id": None, "pad_token_id": 5}
    for config in (model.config, model.generation_config):
        for name, value in own.items():
            setattr(config, name, value)
    seen = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(model.generation_config.pad_token_id)

    settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2, "callbacks": [Watch()]}
    trainer = make_trainer(model, train_dataset=examples, **settings)
    trainer.train()
    trainer.save_model()
    assert seen == [1, 1]  # the tokenizer's, while it trains
    for config in (model.config, model.generation_config):
        assert {name: getattr(config, name) for name in own} == own
    for folder in ("out", "out/checkpoint-1"):
        for file in ("config.json", "generation_config.json"):
            saved = json.loads((tmp_path / folder / file).read_text())
            assert {name: saved.get(name) for name in own} == own


# ---- lengths and vocabularies ---------------------------------------------------------------------------------------------


def test_a_model_with_relative_positions_is_cut_where_it_was_asked_for_alone(t5, make_trainer, tokenizer, caplog):
    text = "word " * 200
    data = load_examples(Dataset.from_dict({"input": [text], "references": [["a"]]}))
    base.say_inputs_are_cut.cache_clear()
    whole = len(make_trainer(t5, max_input_length=4096).tokenize(data)[0]["input_ids"])
    assert whole > tokenizer.model_max_length
    assert not [record for record in caplog.records if "are cut" in record.message]
    for _ in range(2):
        assert len(make_trainer(t5, max_input_length=300).tokenize(data)[0]["input_ids"]) == 300
    said = [record.message for record in caplog.records if "are cut" in record.message]
    assert len(said) == 1 and said[0].startswith("Expected inputs of at most 300 tokens, found longer ones")


def test_tokens_without_embeddings_are_refused_before_any_work(bart, examples, tmp_path):
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<new>"])
    args = ExampleTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(ValueError, match="each of the 301 tokens of the tokenizer, found 300 in Bart"):
        ExampleTrainer(copy.deepcopy(bart), args, processing_class=tokenizer, train_dataset=examples)
    model = copy.deepcopy(bart)
    model.resize_token_embeddings(len(tokenizer))
    ExampleTrainer(model, args, processing_class=tokenizer, train_dataset=examples)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_not_trained_from(value, bart, make_trainer, examples):
    model = copy.deepcopy(bart)
    with torch.no_grad():
        model.get_decoder().layers[0].fc1.bias[3] = value
    with pytest.raises(ValueError, match=r"found NaN or infinity in model\.decoder\.layers\.0\.fc1\.bias of Bart"):
        make_trainer(model, train_dataset=examples).train()


def test_frozen_weights_and_batches_that_are_left_out_are_told_before_the_training(bart, make_trainer, examples):
    with pytest.raises(ValueError, match=r"found all of them frozen\. Set `requires_grad_\(True\)` on some"):
        make_trainer(copy.deepcopy(bart).requires_grad_(False), train_dataset=examples).train()
    few = {"train_dataset": examples.select(range(3)), "dataloader_drop_last": True, "per_device_train_batch_size": 4}
    with pytest.raises(
        ValueError, match="a whole batch of 4 examples, found 3, which `dataloader_drop_last` leaves out"
    ):
        make_trainer(bart, **few).train()


def test_answers_are_cut_to_what_the_decoder_takes(bart, make_trainer, examples):
    long = examples.select(range(4)).map(lambda row: {"references": ["word " * 400]})
    trainer = make_trainer(copy.deepcopy(bart), train_dataset=long, max_target_length=1000)
    positions = bart.config.max_position_embeddings
    assert {len(item["labels"]) for item in trainer.train_dataset} == {positions}
    trainer.train()
    assert np.isfinite(trainer.evaluate(long)["eval_loss"])
