"""Mining: groups a minute, losses and memory, against the plain way of Algorithm 1 (a deep copy and a `Trainer` a group).

    python benchmarks/mining.py                                     # the starter
    python benchmarks/mining.py --pipeline minilm0-pipeline --trainable_parameters '^decoder'

The plain way gets its texts tokenised and its held-out set padded batch by batch, as a `Trainer` does. Both train the same groups
from the same weights without dropout; the two alternate, so that a busy machine slows both. The bound, where all weights are trained,
is the same steps and held-out passes on batches that are on the device already.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import re
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from datasets import Dataset
from figures import Figure, report
from transformers import DataCollatorForSeq2Seq, PreTrainedModel, Seq2SeqTrainer, Seq2SeqTrainingArguments

from recross_hf import ReCrossPipeline, SupervisionArguments
from recross_hf.models.tokenization import TokenizedExamples
from recross_hf.supervision.group_trainer import GroupTrainer


class PlainTrainer(Seq2SeqTrainer):
    """A `Seq2SeqTrainer` whose evaluation loss counts each example alike, as the miner's does."""

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None, **kwargs):
        with torch.no_grad():
            logits = model(**inputs).logits
        labels = inputs["labels"]
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        losses = losses.view_as(labels).sum(dim=1) / (labels != -100).sum(dim=1)
        return losses.mean(), None, None


def plain_loss(model: PreTrainedModel, tokenizer, group: list[dict], held_out: list[dict], args) -> float:
    candidate = copy.deepcopy(model)
    for name, parameter in candidate.named_parameters():
        parameter.requires_grad_(args.trainable_parameters is None or bool(re.search(args.trainable_parameters, name)))
    candidate.accepts_loss_kwargs = False
    trainer = PlainTrainer(
        candidate,
        Seq2SeqTrainingArguments(
            output_dir=tempfile.gettempdir(),
            use_cpu=not torch.cuda.is_available(),
            learning_rate=args.learning_rate,
            lr_scheduler_type="constant",
            num_train_epochs=args.num_train_epochs,
            per_device_train_batch_size=args.per_device_train_batch_size,
            # A divisor of the held-out set: `Trainer` would count a smaller last batch as a whole one.
            per_device_eval_batch_size=10,
            max_grad_norm=args.max_grad_norm,
            train_sampling_strategy="sequential",
            prediction_loss_only=True,
            save_strategy="no",
            report_to="none",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=group,
        eval_dataset=held_out,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=candidate),
    )
    trainer.train()
    return trainer.evaluate()["eval_loss"]


def load(
    options: argparse.Namespace,
) -> tuple[PreTrainedModel, object, Dataset, Dataset, list[np.ndarray], SupervisionArguments]:
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    pipeline = ReCrossPipeline.from_pretrained(options.pipeline, verify_checksums=False)
    lengths = {
        name: pipeline.adaptation[name]
        for name in ("max_input_length", "max_target_length")
        if name in pipeline.adaptation
    }
    args = SupervisionArguments(trainable_parameters=options.trainable_parameters, **lengths)
    model = pipeline.upstream_model
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
        for name in ("attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    dataset = pipeline.index.dataset
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(dataset), args.num_held_out + args.num_candidates, replace=False)
    held_out = dataset.select(drawn[: args.num_held_out])
    candidates = dataset.select(drawn[args.num_held_out :])
    groups = [
        group
        for _ in range(options.rounds)
        for group in np.array_split(rng.permutation(args.num_candidates), args.num_candidates // args.group_size)
    ]
    return model, pipeline.processing_class, held_out, candidates, groups, args


def mine_plainly(options: argparse.Namespace, loaded: tuple) -> list[float]:
    model, tokenizer, held_out, candidates, groups, args = loaded
    lengths = (args.max_input_length, args.max_target_length)
    items, rows = ([*TokenizedExamples(part, tokenizer, *lengths)] for part in (held_out, candidates))
    return [plain_loss(model, tokenizer, [rows[row] for row in group], items, args) for group in groups]


def mine(options: argparse.Namespace, loaded: tuple) -> list[float]:
    model, tokenizer, held_out, candidates, groups, args = loaded
    with GroupTrainer(model, tokenizer, args) as trainer:
        batches, rows = trainer.batches(trainer.tokenize(held_out)), trainer.tokenize(candidates)
        return [trainer.loss_after([rows[row] for row in group], batches) for group in groups]


WAYS = {"plain": mine_plainly, "ours": mine}


def steps_alone(options: argparse.Namespace, loaded: tuple) -> float:
    """Seconds of the same steps and held-out passes on batches that are on the device already, and of nothing else."""
    model, tokenizer, held_out, candidates, groups, args = loaded
    with GroupTrainer(model, tokenizer, args) as trainer:
        held_out_batches, rows = trainer.batches(trainer.tokenize(held_out)), trainer.tokenize(candidates)
        size = args.per_device_train_batch_size
        batches = [
            [
                trainer.collator([rows[row] for row in group[start : start + size]]).to(model.device)
                for start in range(0, len(group), size)
            ]
            for group in groups
        ]
        optimizer = torch.optim.AdamW(trainer.parameters, lr=0.0, weight_decay=0.0, fused=True)
        start = time.perf_counter()
        for group in batches:
            for _ in range(args.num_train_epochs):
                for batch in group:
                    model(**batch, use_cache=False).loss.backward()
                    torch.nn.utils.clip_grad_norm_(trainer.parameters, args.max_grad_norm)
                    optimizer.step()
                    optimizer.zero_grad()
            trainer.losses(held_out_batches)
        return time.perf_counter() - start


def peak_memory(way: str, options: argparse.Namespace, queue: multiprocessing.Queue) -> None:
    """Peak memory above the loaded model, and what training holds for each trainable weight, in MB."""
    loaded = load(options)
    model, args = loaded[0], loaded[-1]
    trainable = sum(
        parameter.numel() * parameter.element_size()
        for name, parameter in model.named_parameters()
        if args.trainable_parameters is None or re.search(args.trainable_parameters, name)
    )
    # A forward pass before anything is cloned: what the library itself takes when it runs first.
    with torch.no_grad():
        ids = torch.tensor([loaded[1](loaded[2][0]["input"]).input_ids])
        model(input_ids=ids, labels=ids[:, :4])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    WAYS[way](options, loaded)
    queue.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before, trainable / 2**20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", help="a pipeline folder; the starter by default")
    parser.add_argument("--trainable_parameters", help="regular expression of the parameters to train")
    parser.add_argument("--rounds", type=int, default=3, help="a query set has 3 rounds of 5 groups")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/mining.json"))
    options = parser.parse_args()

    memory = {}
    context = multiprocessing.get_context("spawn")
    for way in WAYS:
        queue = context.Queue()
        process = context.Process(target=peak_memory, args=(way, options, queue))
        process.start()
        memory[way], trainable = queue.get()
        process.join()

    loaded = load(options)
    transformers.trainer.Trainer.log = lambda self, logs, start_time=None: (
        None
    )  # a line for each group says nothing here
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    losses: dict[str, list[float]] = {}
    bound = []
    for _ in range(options.repetitions):
        for way, run in WAYS.items():
            start = time.perf_counter()
            losses[way] = run(options, loaded)
            seconds[way].append(time.perf_counter() - start)
        bound.append(steps_alone(options, loaded))
    num_groups = len(loaded[4])
    per_minute = {way: 60 * num_groups / np.median(found) for way, found in seconds.items()}
    difference = float(np.abs(np.subtract(losses["plain"], losses["ours"])).max())
    trained = options.trainable_parameters or "all weights"
    figures = [
        Figure(
            what=f"mining, {trained}",
            unit="groups a minute",
            ours=per_minute["ours"],
            peer=per_minute["plain"],
            peer_name="a copy and a Trainer a group",
            ratio=float(np.median(np.divide(seconds["plain"], seconds["ours"]))),
            goal=4.0,
            # With a frozen encoder ours passes inputs through it once, and the bound in each step.
            bound=60 * num_groups / np.median(bound) if options.trainable_parameters is None else None,
        ),
        Figure(
            what=f"its peak memory, {trainable:.0f} MB of trainable weights",
            unit="MB above the model",
            ours=memory["ours"],
            peer=memory["plain"],
            peer_name="a copy and a Trainer a group",
            ratio=memory["ours"] / memory["plain"],
        ),
    ]
    raw = {
        "pipeline": Path(options.pipeline).name if options.pipeline else "starter",
        "trainable_parameters": options.trainable_parameters,
        "seconds": seconds,
        "seconds_of_steps_alone": bound,
        "num_groups": num_groups,
        "losses": losses,
        "largest_difference": difference,
        "peak_mb_above_model": memory,
        "trainable_mb": trainable,
    }
    report(figures, raw, options.output)
    print(f"\nLosses differ by {difference:.1e} at most.")


if __name__ == "__main__":
    main()
