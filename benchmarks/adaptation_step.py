"""Seconds of an adaptation: `RetrievalAugmentedAdapter` against a bare PyTorch loop over the same batches.

    python benchmarks/adaptation_step.py
    python benchmarks/adaptation_step.py --pipeline minilm0-pipeline --queries piqa/query-0.parquet --columns id=example_id

Both train a copy of the same model on the same retrieved examples, in the same order, with the same optimiser (fused
AdamW, clipping at 1.0), so that they end at the same weights but for dropout; retrieval and tokenisation are left out of both. Medians and the ratio
pair by pair are printed, and all timings are kept in benchmarks/results/adaptation_step.json.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from figures import Figure, report
from transformers import TrainerCallback

from recross_hf import AdaptationArguments, ReCrossPipeline, load_queries, load_starter_task, starter_tasks

BARE, OURS = "bare PyTorch loop", "RetrievalAugmentedAdapter"


class Clock(TrainerCallback):
    """Times from the beginning of the first step to the end of the last."""

    def on_epoch_begin(self, *args: object, **kwargs: object) -> None:
        _wait_for_device()
        self.start = time.perf_counter()

    def on_epoch_end(self, *args: object, **kwargs: object) -> None:
        _wait_for_device()
        self.seconds = time.perf_counter() - self.start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", help="the starter by default")
    parser.add_argument("--queries", help="inputs of an unseen task; the starter's by default")
    parser.add_argument("--columns", nargs="*", default=[])
    parser.add_argument("--num_retrieved", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/adaptation_step.json"))
    args = parser.parse_args()

    pipeline = ReCrossPipeline.from_pretrained(args.pipeline)
    if args.queries:
        columns = dict(pair.split("=", 1) for pair in args.columns)
        queries = load_queries(args.queries, columns=columns).select(range(16))
    else:
        queries = load_starter_task(starter_tasks()[0])[0]
    seconds: dict[str, list[float]] = {BARE: [], OURS: []}
    difference = 0.0
    with tempfile.TemporaryDirectory() as folder:
        settings = AdaptationArguments(
            output_dir=folder,
            num_retrieved=args.num_retrieved,
            num_train_epochs=1,
            per_device_train_batch_size=args.batch_size,
            learning_rate=1e-5,
            report_to="none",
            disable_tqdm=True,
            train_sampling_strategy="sequential",
            **{name: value for name, value in pipeline.adaptation.items() if name.startswith("max_")},
        )
        for repeat in range(args.repeats):
            adapter = pipeline.adapter(queries, settings, callbacks=[clock := Clock()])
            bare = copy.deepcopy(adapter.model)
            adapter.retrieve()
            examples = adapter.tokenize(adapter.retrieved)

            def run_bare(bare: torch.nn.Module = bare, adapter=adapter, examples=examples) -> float:
                torch.manual_seed(settings.seed)
                return _bare_loop(bare, examples, adapter.data_collator, settings)

            def run_adapter(adapter=adapter, clock=clock) -> float:
                adapter.train()
                return clock.seconds

            # Turn and turn about, so that neither always finds the warmer machine.
            runs = [(BARE, run_bare), (OURS, run_adapter)]
            for name, run in runs if repeat % 2 == 0 else reversed(runs):
                seconds[name].append(run())
            pairs = zip(bare.parameters(), adapter.model.parameters(), strict=True)
            difference = max(difference, *(float((a - b).abs().max()) for a, b in pairs))
    steps = -(-args.num_retrieved // args.batch_size)
    figure = Figure(
        what=f"adaptation, {steps} steps of {args.batch_size}",
        unit="ms a step",
        ours=1000 * median(seconds[OURS]) / steps,
        peer=1000 * median(seconds[BARE]) / steps,
        peer_name=BARE,
        ratio=median(b / a for a, b in zip(seconds[BARE], seconds[OURS], strict=True)),
        goal=1.05,
        at_most=True,
    )
    raw = {
        "steps": steps,
        "batch_size": args.batch_size,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "largest_difference": difference,
    }
    report([figure], raw, args.output)
    print(f"largest difference between the trained weights (dropout draws differ): {difference:.1e}")


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _bare_loop(
    model: torch.nn.Module, examples: torch.utils.data.Dataset, collate, settings: AdaptationArguments
) -> float:
    loader = torch.utils.data.DataLoader(examples, batch_size=settings.per_device_train_batch_size, collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0, fused=True)
    model.train()
    _wait_for_device()
    start = time.perf_counter()
    for batch in loader:
        loss = model(**{name: tensor.to(settings.device) for name, tensor in batch.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    _wait_for_device()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
