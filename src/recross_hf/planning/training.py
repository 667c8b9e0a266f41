"""The plan of a training, of the upstream model or of a reranker."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..core.distributed import agreed, process_state
from ..models.tokenization import TokenizedExamples
from ..training.arguments import ExampleTrainingArguments
from .plan import Plan, TimeEstimate
from .probe import LESS_DISK, PROBE_EXAMPLES, PROBE_SECONDS, Timer
from .resources import Resources, peak_memory

_PROBE_STEPS, _FIRST_EVALUATED = 16, 8
_ADVICE = {
    "memory": "Lower --token_budget or --per_device_train_batch_size and raise --gradient_accumulation_steps; "
    "freeze layers or embeddings; train an adapter; or choose a smaller model.",
    "device_memory": "Lower --token_budget or --per_device_train_batch_size and raise --gradient_accumulation_steps; use "
    "--bf16 or --gradient_checkpointing; spread the model (examples/recipes/accelerate/fsdp.yaml); or train an adapter.",
    "disk": f"{LESS_DISK}, keep fewer checkpoints (--save_total_limit), or weights alone (--save_only_model).",
}


def training_bytes(model: torch.nn.Module) -> int:
    """The least bytes that training with AdamW holds: weights, gradients and two moments."""
    return sum(
        parameter.numel() * (parameter.element_size() + (3 * parameter.element_size()) * parameter.requires_grad)
        for parameter in model.parameters()
    )


def tokenizer_bytes(processing_class: PreTrainedTokenizerBase) -> int:
    """Bytes of a saved tokenizer, which can be more than those of an adapter."""
    with tempfile.TemporaryDirectory() as folder:
        processing_class.save_pretrained(folder)
        return sum(path.stat().st_size for path in Path(folder).rglob("*"))


def checkpoint_bytes(
    model: torch.nn.Module, args: TrainingArguments, num_steps: int, *, of_tokenizer: int = 0
) -> tuple[int, int]:
    """Bytes of the checkpoints and of the final model that a training writes.

    A checkpoint holds AdamW's two moments of the weights that are trained; with an adapter, it holds the adapter alone. The
    tokenizer lies beside the weights of each.

    Args:
        model: Model of the training.
        args: Arguments of the training.
        num_steps: Number of its steps.
        of_tokenizer: Bytes of the saved tokenizer ([`tokenizer_bytes`]).

    Returns:
        The bytes at their most, and the bytes that stay.
    """
    adapter, parameters = hasattr(model, "peft_config"), list(model.parameters())
    weights = of_tokenizer + sum(p.numel() * p.element_size() for p in parameters if p.requires_grad or not adapter)
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
    """Plans a training.

    The first steps are done in earnest, by the trainer itself, on as many processes and as spread as the training will be: on the
    largest batches, which decide how much memory is needed, and on random ones. The model is changed by it. Evaluations generate answers
    of full length, which a trained model rarely does. Every process must call it.

    Args:
        make_trainer: Function that makes the trainer from training data and arguments.
        dataset: All of the training data; some thousand examples of it are tokenised.
        args: Arguments of the training.
        eval_sample: Some of the evaluation data.
        num_eval_examples: Number of examples that each evaluation takes.
        num_final_evaluations: Number of evaluations after the training.

    Returns:
        The plan.
    """
    rows = np.random.default_rng(args.seed).choice(len(dataset), min(len(dataset), PROBE_EXAMPLES), replace=False)
    share = len(rows) / len(dataset)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        trainer = make_trainer(dataset.select(np.sort(rows)), _probe_arguments(args, folder, share))
        preparing = (time.perf_counter() - start) / share
        epoch, model = _epoch(trainer), cast(torch.nn.Module, trainer.model)
        steps_an_epoch = math.ceil(epoch.num_batches / share / args.gradient_accumulation_steps)
        num_steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_an_epoch)
        of_tokenizer = tokenizer_bytes(cast(PreTrainedTokenizerBase, trainer.processing_class))
        disk, kept = checkpoint_bytes(model, args, num_steps, of_tokenizer=of_tokenizer)
        plan = partial(
            Plan.after_probe,
            str(args.output_dir),
            args.device,
            work=f"Training on {len(dataset):,} examples, {num_steps:,} steps",
            disk=disk,
            kept=kept,
            num_processes=process_state().num_processes,
            advice=_ADVICE,
        )
        least, on_gpu = training_bytes(model), args.device.type == "cuda"
        resources = Resources.of(str(args.output_dir), args.device)
        if not trainer.is_fsdp_enabled and least > ((resources.device_memory or 0) if on_gpu else resources.memory):
            return plan(
                probe="nothing, for the weights, gradients and moments alone are too large",
                seconds=None,
                shared=0.0,
                memory=None if on_gpu else least,
                device_memory=least if on_gpu else None,
            )
        timer = _try_steps(trainer, epoch)
        evaluated, seconds_of_one = _try_evaluation(trainer, eval_sample)
        seconds_of_evaluation = seconds_of_one * num_eval_examples
        tried = timer.seconds
        tokens = [_num_tokens(batch) for batch in epoch.random[: len(tried) * args.gradient_accumulation_steps]]
        scale = epoch.mean_tokens / float(np.mean(tokens))
        of_steps = TimeEstimate.of([seconds * scale for seconds in tried], num_steps)
        evaluations = _num_evaluations(args, num_steps) + num_final_evaluations
        seconds = of_steps.plus(preparing + seconds_of_evaluation * evaluations)
        examples = trainer.train_dataset
        growth = examples.num_bytes / share - examples.num_bytes if isinstance(examples, TokenizedExamples) else 0
        return plan(
            probe=f"{len(timer.ends)} steps" + (f", {evaluated} examples evaluated" if evaluated else ""),
            seconds=seconds,
            shared=0.0 if args.max_steps > 0 else of_steps.expected / seconds.expected,
            memory=round(peak_memory() + growth),
        )


def _try_steps(trainer: Trainer, epoch: _Epoch) -> Timer:
    """Does steps on the largest batches, and on random ones until enough are timed."""
    accumulated, device = trainer.args.gradient_accumulation_steps, trainer.args.device
    timer = Timer(len(epoch.largest) // accumulated, device)
    trainer.add_callback(timer)
    trainer.remove_callback(PrinterCallback)  # what it logs of these steps means nothing
    batches = [*epoch.largest, *epoch.random]
    loader = prepare_data_loader(
        torch.utils.data.DataLoader(batches, batch_size=None),  # type: ignore[arg-type]  # a list is a data set, too
        device,
        num_processes=1,
        process_index=0,
        put_on_device=True,
        dispatch_batches=False,
    )
    trainer.get_train_dataloader = lambda: loader  # type: ignore[method-assign]  # these batches, not those that it would make
    trainer.args.max_steps = len(batches) // accumulated
    trainer.train()
    return timer


def _try_evaluation(trainer: Trainer, sample: Dataset | None) -> tuple[int, float]:
    """How many examples were evaluated, and the seconds that one takes: of a slow model, a few say enough."""
    if sample is None:
        return 0, 0.0
    number = min(_FIRST_EVALUATED, len(sample))
    each = _seconds_each(trainer, sample.select(range(number)))
    if number < len(sample) and agreed(lambda: each * len(sample) < PROBE_SECONDS):  # all processes or none
        number, each = len(sample), _seconds_each(trainer, sample)
    return number, each


def _seconds_each(trainer: Trainer, sample: Dataset) -> float:
    start = time.perf_counter()
    trainer.evaluate(sample)
    return (time.perf_counter() - start) / len(sample)


def _probe_arguments(args: TrainingArguments, folder: str, share: float) -> TrainingArguments:
    """The arguments for a few steps that leave nothing behind, on this share of the data."""
    probe = copy.copy(args)
    probe.output_dir = folder
    probe.save_strategy, probe.eval_strategy = SaveStrategy.NO, IntervalStrategy.NO
    probe.logging_strategy, probe.load_best_model_at_end = IntervalStrategy.NO, False
    probe.report_to, probe.push_to_hub, probe.disable_tqdm = [], False, True
    if isinstance(probe, ExampleTrainingArguments) and probe.max_examples_per_task is not None:
        probe.max_examples_per_task = max(1, round(probe.max_examples_per_task * share))
    return probe


def _num_tokens(batch: dict[str, torch.Tensor]) -> int:
    return sum(batch[name].numel() for name in ("input_ids", "labels") if name in batch)


class _Epoch(NamedTuple):
    """An epoch of the data that is tried out.

    Attributes:
        num_batches: Number of its batches.
        mean_tokens: Tokens of a batch on average, with padding.
        largest: Batches that are the largest in some respect.
        random: Batches drawn at random.
    """

    num_batches: int
    mean_tokens: float
    largest: list[dict[str, torch.Tensor]]
    random: list[dict[str, torch.Tensor]]


def _epoch(trainer: Trainer) -> _Epoch:
    """Goes once through the batches. A batch is large in inputs (activations), their squared lengths (attention) or answers (logits)."""
    accumulated = trainer.args.gradient_accumulation_steps
    loader, model = trainer.get_train_dataloader(), cast(PreTrainedModel, trainer.model)
    wanted = np.random.default_rng(trainer.args.seed).permutation(len(loader))[: _PROBE_STEPS * accumulated]
    largest: dict[str, tuple[int, dict[str, torch.Tensor]]] = {}
    random, total = {}, 0
    for number, batch in enumerate(loader):
        on_host = {name: values.cpu() for name, values in batch.items()}
        total += _num_tokens(on_host)
        sizes = {"inputs": on_host["input_ids"].numel()}
        sizes["attention"] = sizes["inputs"] * on_host["input_ids"].shape[1]
        if "labels" in on_host:
            # Decoder-only models have labels, and logits, at a few places of a row.
            labels = on_host["labels"]
            at_answers = not model.config.is_encoder_decoder
            sizes["answers"] = int((labels >= 0).sum()) if at_answers else labels.numel()
        for name, size in sizes.items():
            if name not in largest or size > largest[name][0]:
                largest[name] = size, on_host
        if number in wanted:
            random[number] = on_host
    # Steps are whole: some batches are taken again where one is missing.
    first, others = [batch for _, batch in largest.values()], [random[number] for number in wanted.tolist()]
    for batches in (first, others):
        batches.extend(batches[place % len(batches)] for place in range(-len(batches) % accumulated))
    return _Epoch(len(loader), total / len(loader), first, others)


def _num_evaluations(args: TrainingArguments, num_steps: int) -> int:
    if args.eval_strategy == IntervalStrategy.NO:
        return 0
    if args.eval_strategy == IntervalStrategy.EPOCH:
        return max(1, math.floor(args.num_train_epochs))
    eval_steps = args.eval_steps or args.logging_steps
    every = eval_steps if eval_steps >= 1 else math.ceil(eval_steps * num_steps)
    return int(num_steps // every)
