"""Checkpoints of a training: which one to continue from, and whether what goes on is the same training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..core.run_settings import refuse_other_settings

ARGUMENTS_FILE = "training_args.json"
# What decides which examples a step has, and what is read of them; `data_seed` is `seed` unless it is set.
BATCH_SETTINGS = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_processes",
    "n_gpu",
    "train_sampling_strategy",
    "length_column_name",
    "dataloader_drop_last",
    "accelerator_config.split_batches",
    "accelerator_config.dispatch_batches",
    "accelerator_config.even_batches",
    "accelerator_config.use_seedable_sampler",
    "token_budget",
    "token_budget_of",
    "mixing_temperature",
    "max_examples_per_task",
    "data_seed",
    "pad_to_multiple_of",
    "drop_long_targets",
    "max_input_length",
    "max_target_length",
    "truncation_side",
    # An adaptation has these.
    "gate",
    "gate_fraction",
    "num_retrieved",
    "upsampling_ratio",
    "select_by",
    "queries",
    # A reranker has these.
    "max_length",
    "include_answers",
    "group_by_query",
    # The digest of the examples as token ids is the last, for whatever else changes the examples changes it.
    "train_data",
)


def described_arguments(trainer: Trainer, train_data: str | None) -> dict[str, Any]:
    """The arguments of a training as JSON values, and what else decides its batches.

    Args:
        train_data: Digest of the examples that are trained on; None where there are none yet.
    """
    described = json.loads(trainer.args.to_json_string())
    described |= {"num_processes": trainer.accelerator.num_processes, "n_gpu": max(1, trainer.args.n_gpu)}
    tokenizer: Any = trainer.processing_class
    described["truncation_side"] = tokenizer.truncation_side
    return described if train_data is None else described | {"train_data": train_data}


def refuse_other_batches(checkpoint: str | Path, now: Mapping[str, Any]) -> None:
    """Makes sure that a training goes on with the batches that its checkpoint counted.

    What was seen of an epoch is passed over by counting batches: of others, rows would be skipped or seen twice.

    Args:
        now: Arguments of the training that is to go on ([`described_arguments`]).

    Raises:
        ValueError: A setting that decides the batches is not what it was. Settings that an earlier version did not write down are not
            compared.
    """
    path = Path(checkpoint) / ARGUMENTS_FILE
    if not path.is_file():
        return  # another trainer wrote the checkpoint
    before, now = _comparable(json.loads(path.read_text(encoding="utf-8"))), _comparable(now)
    has_budget = None not in (before.get("token_budget"), now.get("token_budget"))
    # A budget of tokens takes the place of the batch size, and what it counts says nothing where there is none.
    of_no_effect = "per_device_train_batch_size" if has_budget else "token_budget_of"
    refuse_other_settings(
        before,
        now,
        names=[name for name in BATCH_SETTINGS if name in before and name != of_no_effect],
        expected=f"the settings that made the batches of {checkpoint}",
        remedy="Resume with the same ones, or begin anew from the checkpoint's model.",
    )


def refuse_other_weights(checkpoint: str | Path, *, is_peft: bool, dtype: str) -> None:
    """Makes sure that a checkpoint holds what a trainer trains: a whole model, or an adapter, on weights of the same type.

    Args:
        checkpoint: Folder of the checkpoint.
        is_peft: Whether the trainer has an adapter.
        dtype: Data type of the weights, or of those below the adapter, by its name.

    Raises:
        ValueError: The checkpoint holds the other, or its weights were of another type, where it says of which.
    """
    folder = Path(checkpoint)
    path = folder / ARGUMENTS_FILE
    before = json.loads(path.read_text(encoding="utf-8")).get("dtype", dtype) if path.is_file() else dtype
    has_adapter = any(folder.glob("adapter_config.json")) or any(folder.glob("*/adapter_config.json"))
    has_model = (folder / "config.json").is_file() and not has_adapter
    if is_peft and has_model:
        raise ValueError(
            f"Expected the checkpoint of an adapter in {folder}, for the trainer has a PEFT model, found one of a whole model. Resume "
            "without `peft_config` (--use_peft), or begin anew: load the checkpoint's model and train an adapter of it."
        )
    if has_adapter and not is_peft:
        raise ValueError(
            f"Expected the checkpoint of a whole model in {folder}, found one of a PEFT adapter. Resume with the `peft_config` "
            "(--use_peft) that it was trained with, or begin anew without `resume_from_checkpoint`."
        )
    if before != dtype:
        raise ValueError(
            f"Expected weights in {before}, with which the training of {folder} began, found {dtype}. Resume with the same `dtype` (--dtype "
            f"{before}), or begin anew without `resume_from_checkpoint`."
        )


def checkpoint_to_resume(wanted: str | bool | None, output_dir: str | Path) -> str | None:
    """The checkpoint folder that `resume_from_checkpoint` means: a folder, or for True and "true" the last whole one in `output_dir`.

    Raises:
        ValueError: There is no such checkpoint.
    """
    if isinstance(wanted, str) and wanted.lower() in ("true", "false"):
        wanted = wanted.lower() == "true"
    if not wanted:
        return None
    remedy = "Leave `resume_from_checkpoint` out to begin anew."
    if wanted is True:
        # The state is written last: a run that was killed while it saved leaves a folder without it.
        states = Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}")
        steps = {
            int(number): state.parent for state in states if (number := state.parent.name.split("-")[1]).isdigit()
        }
        if not steps:
            raise ValueError(
                f"No checkpoint to resume from in {output_dir}: expected a {PREFIX_CHECKPOINT_DIR}-* folder with "
                f"{TRAINER_STATE_NAME}. {remedy}"
            )
        return str(steps[max(steps)])
    if not (Path(wanted) / TRAINER_STATE_NAME).is_file():
        raise ValueError(
            f"No checkpoint to resume from in {wanted}: expected a folder with {TRAINER_STATE_NAME}, or 'true' for "
            f"the last one in {output_dir}. {remedy}"
        )
    return wanted


def _comparable(arguments: Mapping[str, Any]) -> dict[str, Any]:
    flat = dict(arguments)
    if flat.get("data_seed") is None:
        flat["data_seed"] = flat.get("seed")
    if flat.get("token_budget") is not None:
        # Earlier versions made batches of decoder-only models as of others.
        flat.setdefault("token_budget_of", "inputs and answers apart")
    # Only the strict gate holds examples out; its name was another one.
    if flat.get("safety_gate") is not None or "gate" in flat:
        is_strict = flat.get("gate") == "strict" or flat.get("safety_gate") is True
        flat["gate"] = "strict" if is_strict else "form or off"
    # What an earlier version of accelerate did not have is not compared.
    loading = flat.get("accelerator_config")
    return flat | {f"accelerator_config.{name}": value for name, value in (loading or {}).items()}
