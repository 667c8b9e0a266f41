import dataclasses
import warnings

import numpy as np
import pytest
import torch
from transformers import HfArgumentParser, Seq2SeqTrainingArguments

from recross_hf import (
    AdaptationArguments,
    ExampleTrainingArguments,
    RerankerTrainingArguments,
    SupervisionArguments,
)
from recross_hf.adaptation.arguments import AS_RUN, AUTHORS_CODE


def test_the_defaults_are_the_papers(tmp_path):
    args = AdaptationArguments(output_dir=str(tmp_path))
    assert isinstance(args, ExampleTrainingArguments)
    assert isinstance(args, Seq2SeqTrainingArguments)
    assert (args.learning_rate, args.num_train_epochs, args.per_device_train_batch_size) == (1e-6, 2, 4)
    assert (args.num_retrieved, args.sum_token_loss, args.predict_with_generate) == (512, False, True)
    assert str(args.lr_scheduler_type.value) == "constant"
    assert AdaptationArguments.paper(output_dir=str(tmp_path)).to_dict() == args.to_dict() | {"gate": "off"}


def test_as_run_differs_from_the_paper_and_takes_overrides():
    args = AdaptationArguments.as_run(num_retrieved=8)
    assert (args.learning_rate, args.max_steps, args.max_grad_norm, args.weight_decay) == (6e-6, 128, 0.1, 0.01)
    assert (args.sum_token_loss, args.label_smoothing_factor, args.generation_num_beams) == (True, 0.1, 4)
    assert args.num_retrieved == 8
    assert AdaptationArguments.authors_code(num_retrieved=8).to_dict() == args.to_dict()
    assert AS_RUN is AUTHORS_CODE


@pytest.mark.parametrize("kind", [ExampleTrainingArguments, AdaptationArguments])
def test_a_help_text_begins_with_a_noun_or_a_clause(kind):
    inherited = {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}
    for field in dataclasses.fields(kind):
        if field.name not in inherited or field.name in vars(kind).get("__annotations__", {}):
            first, last = field.metadata["help"].split()[0], field.metadata["help"][-1]
            assert first[0].isupper() and first.isalpha() and first != "Of", field.name
            assert last == ".", field.name


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"max_input_length": 0}, "`max_input_length` must be at least 1 token, found 0"),
        ({"max_target_length": -1}, "`max_target_length` must be at least 1 token, found -1"),
        ({"token_budget": 0}, "`token_budget` must be at least 1, found 0"),
        ({"max_examples_per_task": 0}, "`max_examples_per_task` must be at least 1, found 0"),
        ({"pad_to_multiple_of": 0}, "`pad_to_multiple_of` must be at least 1, found 0"),
        ({"mixing_temperature": 0.5}, "`mixing_temperature` must be at least 1, in proportion to size, found 0.5"),
        ({"mixing_temperature": float("nan")}, "`mixing_temperature` must be at least 1, .* found nan"),
        ({"num_retrieved": 0}, "`num_retrieved` must be at least 1, found 0"),
        ({"upsampling_ratio": 0.5}, "`upsampling_ratio` must be at least 1, found 0.5"),
        ({"select_by": "tasks"}, "`select_by` must be 'example' or 'task', found 'tasks'"),
        ({"gate_fraction": 1.0}, "`gate_fraction` must be between 0 and 1, found 1.0"),
        ({"gate_fraction": float("nan")}, "`gate_fraction` must be between 0 and 1, found nan"),
        ({"predict_with_generate": False}, "`predict_with_generate` must be True.*leave `eval_strategy` at 'no'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        AdaptationArguments(**settings)


def test_every_field_of_ours_is_documented_and_can_be_given_on_the_command_line():
    inherited = {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}
    ours = [field for field in dataclasses.fields(AdaptationArguments) if field.name not in inherited]
    assert {field.name for field in ours} == {
        "max_input_length",
        "max_target_length",
        "sum_token_loss",
        "token_budget",
        "mixing_temperature",
        "max_examples_per_task",
        "drop_long_targets",
        "pad_to_multiple_of",
        "num_retrieved",
        "upsampling_ratio",
        "select_by",
        "rerank",
        "gate",
        "upstream_adapter",
        "safety_gate",
        "gate_fraction",
    }
    assert all(len(field.metadata["help"]) > 20 for field in ours)
    line = "--output_dir x --num_retrieved 7 --sum_token_loss --max_target_length 9 --learning_rate 1e-3"
    (args,) = HfArgumentParser(AdaptationArguments).parse_args_into_dataclasses(line.split())
    assert (args.num_retrieved, args.sum_token_loss, args.max_target_length, args.learning_rate) == (7, True, 9, 1e-3)


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"bf16_full_eval": True}, "`bf16_full_eval` would leave the model in half precision.*Use `bf16`"),
        ({"generation_max_length": 9}, "`generation_max_length` is not used, found 9: `max_target_length`"),
        (
            {"token_budget": 99, "train_sampling_strategy": "group_by_length", "dataloader_drop_last": True},
            "make batches of their own, so that `train_sampling_strategy`, `dataloader_drop_last` would be ignored",
        ),
        (
            {"mixing_temperature": 2, "accelerator_config": {"dispatch_batches": True}},
            "so that `accelerator_config.dispatch_batches` would be ignored. Leave one or the other at its default",
        ),
        ({"token_budget": 99, "auto_find_batch_size": True}, "so that `auto_find_batch_size` would be ignored"),
    ],
)
def test_arguments_that_would_be_ignored_or_do_harm_are_refused(arguments, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        AdaptationArguments(output_dir=tmp_path, use_cpu=True, **arguments)


@pytest.mark.parametrize("kind", [AdaptationArguments, RerankerTrainingArguments])
@pytest.mark.parametrize("has_accelerator", [False, True])
def test_bfloat16_needs_no_second_flag_where_a_cpu_is_all_that_there_is(kind, has_accelerator, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: has_accelerator)
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: has_accelerator)
    args = kind(output_dir=str(tmp_path), bf16=True)
    assert args.use_cpu is not has_accelerator


# ---- mining ----------------------------------------------------------------------------------------------------------


def test_the_numbers_of_the_mining_are_those_of_the_authors_code():
    args = SupervisionArguments()
    assert (args.num_queries, args.num_held_out, args.num_candidates, args.group_size) == (8, 100, 100, 20)
    assert (args.num_rounds, args.num_labelled, args.learning_rate, args.upsampling_ratio) == (3, 8, 3e-5, 2.0)
    assert (args.num_train_epochs, args.per_device_train_batch_size) == (1, 2)
    faults = {"retrieve_own_task": True, "sum_token_loss": True}
    assert {name: getattr(args, name) for name in faults} == dict.fromkeys(faults, False)
    assert SupervisionArguments.paper() == dataclasses.replace(args, retrieve_own_task=True)
    assert SupervisionArguments.as_run(seed=3) == dataclasses.replace(args, **faults, seed=3)
    assert SupervisionArguments.as_run(sum_token_loss=False) == SupervisionArguments.paper()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        *(
            ({name: 0}, f"`{name}` must be at least 1, found 0")
            for name in ("num_query_sets", "num_queries", "num_held_out", "group_size", "num_rounds", "num_labelled")
        ),
        *(
            ({name: 0}, f"`{name}` must be at least 1, found 0")
            for name in ("num_train_epochs", "per_device_train_batch_size", "max_input_length", "max_target_length")
        ),
        ({"upsampling_ratio": 0.9}, "`upsampling_ratio` must be at least 1, found 0.9"),
        ({"label_by": "set"}, "`label_by` must be 'example' or 'task', found 'set'"),
        (
            {"num_labelled": 51},
            "`num_candidates` to be at least 2 x `num_labelled` = 102, so that no candidate is both .*, found 100",
        ),
        (
            {"group_size": 100},
            "`group_size` to be less than `num_candidates`, found 100 and 100: with one group, all candidates",
        ),
        ({"trainable_parameters": "(decoder"}, r"to be a regular expression, found '\(decoder': missing \)"),
    ],
)
def test_a_mining_that_could_find_nothing_is_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        SupervisionArguments(**settings)


def test_every_setting_of_the_mining_is_documented_and_can_be_given_on_the_command_line():
    assert all(len(field.metadata["help"]) > 15 for field in dataclasses.fields(SupervisionArguments))
    line = (
        "--num_labelled 50 --retrieve_own_task --trainable_parameters ^decoder --num_rounds 1 --upsampling_ratio 1.5"
    )
    (args,) = HfArgumentParser(SupervisionArguments).parse_args_into_dataclasses(line.split())
    assert args == SupervisionArguments(
        num_labelled=50, retrieve_own_task=True, trainable_parameters="^decoder", num_rounds=1, upsampling_ratio=1.5
    )


@pytest.mark.parametrize("arguments", [ExampleTrainingArguments, AdaptationArguments, RerankerTrainingArguments])
@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_whole_checkpoints_are_not_pushed(arguments, strategy, tmp_path):
    with pytest.raises(ValueError, match=rf"must be 'end' or 'every_save', found '{strategy}': .* pickles"):
        arguments(output_dir=str(tmp_path), hub_strategy=strategy)


@pytest.mark.parametrize("kind", [ExampleTrainingArguments, AdaptationArguments, RerankerTrainingArguments])
@pytest.mark.parametrize(
    "setting",
    [
        {"eval_do_concat_batches": False},
        {"batch_eval_metrics": True},
        {"include_for_metrics": ["inputs"]},
        {"eval_use_gather_object": True},
    ],
    ids=str,
)
def test_evaluations_that_cannot_be_kept_are_refused_at_once(kind, setting, tmp_path):
    with pytest.raises(ValueError, match=f"`{next(iter(setting))}` cannot be kept here: sets are scored as a whole"):
        kind(output_dir=str(tmp_path), **setting)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"learning_rate": -1.0}, "`learning_rate` must be at least 0, found -1.0. The default is 1e-06"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be a finite number of at least 0, found nan"),
        ({"num_train_epochs": float("inf")}, "`num_train_epochs` must be a finite number"),
        ({"per_device_train_batch_size": 0}, "`per_device_train_batch_size` must be at least 1, found 0"),
        ({"generation_num_beams": 0}, "`generation_num_beams` must be at least 1, found 0"),
        ({"weight_decay": -0.1}, "`weight_decay` must be at least 0"),
        ({"label_smoothing_factor": 1.5}, "`label_smoothing_factor` must be from 0 to 1, found 1.5"),
        ({"seed": -1}, "`seed` must be from 0 to"),
        ({"upsampling_ratio": float("nan")}, "`upsampling_ratio` must be at least 1, found nan"),
    ],
)
def test_settings_that_spoil_an_adaptation_are_refused(settings, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        AdaptationArguments(output_dir=str(tmp_path), **settings)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rerank", "no", "must be True or False, found 'no'. Write it without quotes"),
        ("safety_gate", "false", "must be True or False"),
        ("sum_token_loss", "false", "must be True or False"),
        ("use_cpu", "false", "must be True or False"),
        ("num_retrieved", "8", "a whole number, found '8'"),
        ("num_retrieved", 2.5, "a whole number, found 2.5"),
        ("num_retrieved", None, "a whole number, found None"),
        ("num_retrieved", True, "a whole number, found True"),
        ("learning_rate", "1e-5", "a number, found '1e-5'"),
        ("learning_rate", None, "a number, found None"),
        ("seed", 1.5, "a whole number"),
        ("generation_num_beams", 2.0, "a whole number"),
        ("token_budget", "1000", "a whole number"),
    ],
)
def test_text_is_never_taken_for_a_number_or_for_yes(name, value, message, tmp_path):
    with pytest.raises(TypeError, match=rf"`{name}` .*{message}"):
        AdaptationArguments(output_dir=str(tmp_path), **{name: value})


def test_numbers_of_numpy_are_numbers(tmp_path):
    args = AdaptationArguments(output_dir=str(tmp_path), num_retrieved=np.int64(3), learning_rate=np.float32(0.5))
    assert (type(args.num_retrieved), type(args.learning_rate)) == (int, float)
    assert (args.num_retrieved, args.learning_rate) == (3, 0.5)
    assert AdaptationArguments(output_dir=str(tmp_path), token_budget=None, tf32=None).token_budget is None


def test_no_steps_are_not_whole_epochs(tmp_path):
    with pytest.raises(ValueError, match="`max_steps` must be at least 1, or -1"):
        AdaptationArguments(output_dir=str(tmp_path), max_steps=0)


@pytest.mark.parametrize("kind", [ExampleTrainingArguments, AdaptationArguments, RerankerTrainingArguments])
def test_a_strategy_of_sampling_that_there_is_not_is_no_random_one(kind, tmp_path):
    with pytest.raises(ValueError, match=r"`train_sampling_strategy` must be one of 'random', .* found 'x'"):
        kind(output_dir=str(tmp_path), train_sampling_strategy="x")
    for strategy in ("random", "sequential", "group_by_length", "batch_rebalance"):
        kind(output_dir=str(tmp_path), train_sampling_strategy=strategy)


def test_the_papers_presets_have_no_gate_and_the_default_looks_at_the_form(tmp_path):
    settings = {"output_dir": str(tmp_path)}
    assert AdaptationArguments(**settings).gate == "form"
    for preset in (AdaptationArguments.paper, AdaptationArguments.authors_code, AdaptationArguments.as_run):
        assert preset(**settings).gate == "off"
        assert preset(**settings, gate="strict").gate == "strict"
    with pytest.raises(ValueError, match="`gate` must be 'form', 'strict' or 'off', found 'on'"):
        AdaptationArguments(**settings, gate="on")


@pytest.mark.parametrize(("old", "new"), [(True, "strict"), (False, "off")])
def test_the_old_name_of_the_gate_works_and_warns(old, new, tmp_path):
    with pytest.warns(DeprecationWarning, match=f"`safety_gate={old}` is now `gate='{new}'`") as warned:
        args = AdaptationArguments(output_dir=str(tmp_path), safety_gate=old)
    assert warned[0].filename == __file__
    assert (args.gate, args.safety_gate) == (new, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dataclasses.replace(args, seed=3).gate == new
    with pytest.warns(DeprecationWarning):
        (said,) = HfArgumentParser(AdaptationArguments).parse_args_into_dataclasses(
            ["--output_dir", str(tmp_path), "--safety_gate", str(old)]
        )
    assert said.gate == new
