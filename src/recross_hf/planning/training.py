"""What upstream training will take."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from transformers import (
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..core.distributed import process_state
from ..data.schema import take_rows
from ..models.tokenization import TokenizedExamples
from ..training.arguments import ExampleTrainingArguments
from .plan import Plan, Room, Seconds, peak_device_memory, peak_memory
from .probe import LESS_DISK, PROBE_EXAMPLES, Timer

PROBE_STEPS = 16


def training_bytes(model: torch.nn.Module) -> int:
    """The least that training with AdamW holds: weights, gradients and two moments."""
    return sum(
        parameter.numel() * (parameter.element_size() + (3 * parameter.element_size()) * parameter.requires_grad)
        for parameter in model.parameters()
    )


def checkpoint_bytes(model: torch.nn.Module, args: TrainingArguments, num_steps: int) -> tuple[int, int]:
    """Bytes of checkpoints and of the model at its end that a training of `num_steps` writes: at their most, and those that stay.

    Of AdamW, two moments of what is trained; of an adapter, the adapter alone.
    """
    adapter, parameters = hasattr(model, "peft_config"), list(model.parameters())
    weights = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad or not adapter)
    moments = sum(2 * p.numel() * p.element_size() for p in parameters if p.requires_grad)
    if args.save_strategy == SaveStrategy.NO:
        return weights, weights
    every = args.save_steps if args.save_steps >= 1 else math.ceil(args.save_steps * num_steps)
    if args.save_strategy != SaveStrategy.STEPS:  # by epoch
        every = max(1, round(num_steps / max(args.num_train_epochs, 1)))
    written = math.ceil(num_steps / every)  # the last step is saved, too
    limit = args.save_total_limit or written
    if args.load_best_model_at_end:
        limit = max(limit, 2)
    of_one = weights + (0 if args.save_only_model else moments)
    kept = min(written, limit) * of_one + weights
    return max(min(written, limit + 1) * of_one, kept), kept  # a new one is written before the oldest is deleted


def plan_training(
    make_trainer: Callable[[Dataset, TrainingArguments], Trainer],
    dataset: Dataset,
    args: TrainingArguments,
    *,
    eval_sample: Dataset | None = None,
    num_eval_examples: int = 0,
    num_final_evaluations: int = 1,
) -> Plan:
    """What a training will take.

    The first steps are done in earnest, by the trainer itself, on as many processes and as spread as the training will be: on the
    largest batches, which decide how much memory is needed, and on random ones. The model is changed by it. Evaluations generate answers
    of full length, which a trained model rarely does. Every process must call it.

    Args:
        make_trainer: makes the trainer from training data and arguments.
        dataset: all of the training data; some thousand of it are tokenised.
        args: the arguments of the training.
        eval_sample: some of the evaluation data, `num_eval_examples` of which are evaluated each time.
        num_final_evaluations: after the training.
    """
    state = process_state()
    rows = np.random.default_rng(args.seed).choice(len(dataset), min(len(dataset), PROBE_EXAMPLES), replace=False)
    share = len(rows) / len(dataset)
    with tempfile.TemporaryDirectory() as folder:
        probe_args = _probe_arguments(args, folder, share)
        start = time.perf_counter()
        trainer = make_trainer(take_rows(dataset, np.sort(rows)), probe_args)
        preparing = (time.perf_counter() - start) / share
        room = Room.of(args.output_dir, args.device)
        work = f"Training on {len(dataset):,} examples"
        advice = {
            "memory": "Lower --token_budget or --per_device_train_batch_size and raise --gradient_accumulation_steps; "
            "freeze layers or embeddings; train an adapter; or choose a smaller model.",
            "device_memory": "Lower --token_budget or --per_device_train_batch_size and raise --gradient_accumulation_steps; use "
            "--bf16 or --gradient_checkpointing; spread the model (examples/recipes/accelerate/fsdp.yaml); or train an adapter.",
            "disk": f"{LESS_DISK}, keep fewer checkpoints (--save_total_limit), or weights alone (--save_only_model).",
        }
        epoch = _epoch(trainer)
        steps_an_epoch = math.ceil(epoch.num_batches / share / args.gradient_accumulation_steps)
        num_steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_an_epoch)
        disk, kept = checkpoint_bytes(trainer.model, args, num_steps)
        on_gpu = args.device.type == "cuda"
        least = training_bytes(trainer.model)
        known = {
            "work": f"{work}, {num_steps:,} steps",
            "disk": disk,
            "kept": kept,
            "room": room,
            "num_processes": state.num_processes,
            "advice": advice,
        }
        if not trainer.is_fsdp_enabled and least > (room.device_memory if on_gpu else room.memory):
            return Plan(
                probe="nothing, for the weights, gradients and moments alone are too large",
                seconds=None,
                shared=0.0,
                memory=peak_memory() if on_gpu else least,
                device_memory=least if on_gpu else None,
                **known,
            )
        accumulated = args.gradient_accumulation_steps
        timer = Timer(len(epoch.largest) // accumulated, args.device)
        trainer.add_callback(timer)
        trainer.remove_callback(PrinterCallback)  # what it logs of these steps means nothing
        batches = [*epoch.largest, *epoch.random]
        loader = torch.utils.data.DataLoader(batches, batch_size=None)
        loader = prepare_data_loader(
            loader, args.device, num_processes=1, process_index=0, put_on_device=True, dispatch_batches=False
        )
        trainer.get_train_dataloader = lambda: loader  # these batches, and not those that it would make
        probe_args.max_steps = len(batches) // accumulated
        trainer.train()
        tried = timer.seconds
        evaluating = 0.0
        if eval_sample is not None:
            start = time.perf_counter()
            trainer.evaluate(eval_sample)
            evaluating = (time.perf_counter() - start) / len(eval_sample) * num_eval_examples
        tokens = np.mean([_num_tokens(batch) for batch in epoch.random[: len(tried) * accumulated]])
        scale = epoch.mean_tokens / tokens
        of_steps = Seconds.of([seconds * scale for seconds in tried], num_steps)
        evaluations = _num_evaluations(args, num_steps) + num_final_evaluations
        seconds = of_steps.plus(preparing + evaluating * evaluations)
        examples = trainer.train_dataset
        growth = examples.num_bytes / share - examples.num_bytes if isinstance(examples, TokenizedExamples) else 0
        return Plan(
            probe=f"{len(timer.ends)} steps"
            + (f", {len(eval_sample)} examples evaluated" if eval_sample is not None else ""),
            seconds=seconds,
            shared=0.0 if args.max_steps > 0 else of_steps.expected / seconds.expected,
            memory=round(peak_memory() + growth),
            device_memory=peak_device_memory(args.device),
            **known,
        )


def _probe_arguments(args: TrainingArguments, folder: str, share: float) -> TrainingArguments:
    """The arguments for a few steps that leave nothing behind, on this share of the data."""
    probe = copy.copy(args)
    probe.output_dir = folder
    probe.save_strategy, probe.eval_strategy = SaveStrategy.NO, IntervalStrategy.NO
    probe.logging_strategy, probe.load_best_model_at_end = IntervalStrategy.NO, False
    probe.report_to, probe.push_to_hub, probe.disable_tqdm = [], False, True
    if isinstance(args, ExampleTrainingArguments) and args.max_examples_per_task is not None:
        probe.max_examples_per_task = max(1, round(args.max_examples_per_task * share))
    return probe


def _num_tokens(batch: dict[str, torch.Tensor]) -> int:
    return sum(batch[name].numel() for name in ("input_ids", "labels") if name in batch)


class _Epoch(NamedTuple):
    """An epoch of the data that is probed: its batches, the tokens of one on average, padding included, and some batches."""

    num_batches: int
    mean_tokens: float
    largest: list[dict[str, torch.Tensor]]
    random: list[dict[str, torch.Tensor]]


def _epoch(trainer: Trainer) -> _Epoch:
    """Goes once through the batches. Large is a batch in inputs (activations), their squared lengths (attention) or answers (logits)."""
    accumulated = trainer.args.gradient_accumulation_steps
    loader = trainer.get_train_dataloader()
    wanted = np.random.default_rng(trainer.args.seed).permutation(len(loader))[: PROBE_STEPS * accumulated]
    largest: dict[str, tuple[int, dict[str, torch.Tensor]]] = {}
    random, total = {}, 0
    for number, batch in enumerate(loader):
        on_host = {name: values.cpu() for name, values in batch.items()}
        total += _num_tokens(on_host)
        sizes = {"inputs": on_host["input_ids"].numel()}
        sizes["attention"] = sizes["inputs"] * on_host["input_ids"].shape[1]
        if "labels" in on_host:
            sizes["answers"] = on_host["labels"].numel()
        for name, found in sizes.items():
            if name not in largest or found > largest[name][0]:
                largest[name] = found, on_host
        if number in wanted:
            random[number] = on_host
    # Whole steps: what is missing is taken again.
    first, others = [batch for _, batch in largest.values()], [random[number] for number in wanted.tolist()]
    for batches in (first, others):
        batches.extend(batches[place % len(batches)] for place in range(-len(batches) % accumulated))
    return _Epoch(len(loader), total / len(loader), first, others)


def _num_evaluations(args: TrainingArguments, num_steps: int) -> int:
    if args.eval_strategy == IntervalStrategy.NO:
        return 0
    if args.eval_strategy == IntervalStrategy.EPOCH:
        return max(1, math.floor(args.num_train_epochs))
    every = args.eval_steps if args.eval_steps >= 1 else math.ceil(args.eval_steps * num_steps)
    return int(num_steps // every)
