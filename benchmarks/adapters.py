"""Twenty adapted tasks on one base: memory, switching, and a batch that mixes them.

    python benchmarks/adapters.py
    python benchmarks/adapters.py --layers 4 --hidden_size 128 --num_adapters 4 --repeats 1

A decoder-only model of random weights, of the shape of small published ones, with LoRA adapters of rank 16 on all linear layers, written
by plain PEFT. Memory is what the process holds more (Linux alone can tell) than the base and the adapters' files have bytes. A switch is the
time until another adapter's model is at hand, beside `PeftModel.set_adapter`. The mixed batch holds an input for each adapter, and the single
one the same inputs for one of them. On a CPU, times are those of the process, which other work on the machine does not lengthen. Kept in
benchmarks/results/adapters.json.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from figures import Figure, report
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from recross_hf import ReCrossPipeline
from recross_hf.models.shared_weights import sharing_copy

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import tiny


def write(args: argparse.Namespace, folder: Path) -> None:
    """A pipeline, and adapters of other weights each."""
    torch.manual_seed(0)
    tokenizer = tiny.tokenizer()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=args.vocabulary,
            hidden_size=args.hidden_size,
            intermediate_size=3 * args.hidden_size,
            num_hidden_layers=args.layers,
            num_attention_heads=args.hidden_size // 64,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()
    settings = {"max_input_length": 64, "max_target_length": args.max_new_tokens}
    ReCrossPipeline.build(model, tokenizer, tiny.examples(2), folder / "pipeline", adaptation=settings)
    config = LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear")
    adapted = get_peft_model(sharing_copy(model), config)
    for number in range(args.num_adapters):
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "lora_" in name:
                    weight.normal_(std=0.02)
        adapted.save_pretrained(folder / f"task_{number}", save_embedding_layers=False)


def held() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def clock() -> float:
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def seconds_of(work: Callable[[], Any]) -> float:
    start = clock()
    work()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=18)
    parser.add_argument("--hidden_size", type=int, default=640)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--num_adapters", type=int, default=20)
    parser.add_argument("--max_new_tokens", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/adapters.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(args, folder)
        names = [f"task_{number}" for number in range(args.num_adapters)]
        warm = ReCrossPipeline.from_pretrained()  # what is imported late
        warm(["a"], max_new_tokens=2)
        del warm
        before = held()
        pipeline = ReCrossPipeline.from_pretrained(folder / "pipeline")
        base = sum(weight.numel() * weight.element_size() for weight in pipeline.upstream_model.parameters())
        loading = [seconds_of(lambda name=name: pipeline.add_adapted(name, folder / name)) for name in names]
        more = held() - before
        least = base + sum((folder / name / "adapter_model.safetensors").stat().st_size for name in names)
        tasks = {name: pipeline.adapted_as(name) for name in names}
        turns = [names[turn % len(names)] for turn in range(10 * len(names))]
        switches = [seconds_of(lambda name=name: tasks[name].model) for name in turns]
        model: Any = tasks[names[0]].model
        by_peft = [seconds_of(lambda name=name: model.set_adapter(name, inference_mode=True)) for name in turns]
        inputs = [f"Which colour has the sky on the day {number:02d}?" for number in range(args.num_adapters)]
        settings = {"min_new_tokens": args.max_new_tokens}  # all answers are of one length
        seconds: dict[str, list[float]] = {"single": [], "mixed": []}
        for _ in range(args.repeats):
            seconds["single"].append(seconds_of(lambda: tasks[names[0]](inputs, **settings)))
            seconds["mixed"].append(seconds_of(lambda: pipeline(inputs, adapter_names=names, **settings)))
    median = statistics.median
    ratio = median(mixed / single for mixed, single in zip(seconds["mixed"], seconds["single"], strict=True))
    figures = [
        Figure(
            what=f"memory of a base and {len(names)} adapters",
            unit="MB",
            ours=more / 1e6,
            peer=least / 1e6,
            peer_name="their weights' bytes",
            ratio=more / least,
            goal=1.05,
            at_most=True,
        ),
        Figure(
            what=f"switching among {len(names)} adapters",
            unit="ms",
            ours=1e3 * median(switches),
            peer=10.0,
            peer_name=f"10 ms; set_adapter takes {1e3 * median(by_peft):.1f} ms",
            ratio=100 * median(switches),
            goal=1.0,
            at_most=True,
        ),
        Figure(
            what=f"a batch of {len(names)} inputs, each for another adapter",
            unit="s",
            ours=median(seconds["mixed"]),
            peer=median(seconds["single"]),
            peer_name="all for one",
            ratio=ratio,
            goal=1.3,
            at_most=True,
        ),
    ]
    raw = {
        "base_mb": base / 1e6,
        "shape": {name: getattr(args, name) for name in ("layers", "hidden_size", "vocabulary", "num_adapters")},
        "threads": torch.get_num_threads(),
        "device": str(model.device),
        "seconds_of_loading": loading,
        "seconds": seconds,
    }
    report(figures, raw, args.output)


if __name__ == "__main__":
    main()
