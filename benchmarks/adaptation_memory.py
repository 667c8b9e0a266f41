"""Peak memory of an adaptation above what was there before: LoRA beside full fine-tuning, the same examples and batches.

    python benchmarks/adaptation_memory.py

By default random weights in the shape of BART-base, on the starter's retrieved examples; `--pipeline` and its own index take the place of
both. Each runs in a process of its own. On a CPU it is the process's resident memory, on a GPU what PyTorch allocated there. Kept in
benchmarks/results/adaptation_memory.json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
from pathlib import Path

import psutil
import torch
import transformers
from figures import Figure, report
from peft import LoraConfig
from transformers import BartConfig, BartForConditionalGeneration

from recross_hf import RandomRetriever, ReCrossPipeline, RetrievalAugmentedAdapter, load_starter_task, starter_tasks

WAYS = ("full", "lora")


def peak_memory(way: str, options: argparse.Namespace, queue: multiprocessing.Queue) -> None:
    """Peak memory above the loaded model, in MB, and the model's size."""
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    pipeline = ReCrossPipeline.from_pretrained(options.pipeline)
    model = pipeline.upstream_model
    if options.pipeline is None:
        tokens = pipeline.processing_class
        config = BartConfig(
            vocab_size=50_265,  # more than the starter's tokenizer has, as the real one
            d_model=768,
            encoder_layers=6,
            decoder_layers=6,
            encoder_ffn_dim=3072,
            decoder_ffn_dim=3072,
            encoder_attention_heads=12,
            decoder_attention_heads=12,
            pad_token_id=tokens.pad_token_id,
            bos_token_id=tokens.bos_token_id,
            eos_token_id=tokens.eos_token_id,
            decoder_start_token_id=tokens.eos_token_id,
        )
        model = BartForConditionalGeneration(config).to(model.device)
    with tempfile.TemporaryDirectory() as folder:
        arguments = pipeline.arguments(
            output_dir=folder,
            num_retrieved=4 * options.steps,
            num_train_epochs=1,
            max_steps=options.steps,
            per_device_train_batch_size=4,
            disable_tqdm=True,
        )
        before = _held()
        adapter = RetrievalAugmentedAdapter(
            model,
            arguments,
            retriever=RandomRetriever(pipeline.index.dataset),
            query_dataset=load_starter_task(starter_tasks()[0])[0],
            processing_class=pipeline.processing_class,
            peft_config=LoraConfig(task_type="SEQ_2_SEQ_LM", r=16) if way == "lora" else None,
        )
        adapter.train()
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    queue.put((_peak() - before, weights / 1e6))


def _held() -> float:
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated() / 1e6
    return psutil.Process().memory_info().rss / 1e6


def _peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", help="a pipeline folder; the starter with a larger model by default")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/adaptation_memory.json"))
    options = parser.parse_args()
    memory = {}
    context = multiprocessing.get_context("spawn")
    for way in WAYS:
        queue = context.Queue()
        process = context.Process(target=peak_memory, args=(way, options, queue))
        process.start()
        memory[way], weights = queue.get()
        process.join()
    figure = Figure(
        what=f"peak memory of an adaptation, a model of {weights:.0f} MB: LoRA",
        unit="MB above it",
        ours=memory["lora"],
        peer=memory["full"],
        peer_name="all weights",
        ratio=memory["lora"] / memory["full"],
        goal=0.6,
        at_most=True,
    )
    report([figure], {"steps": options.steps, "peak_mb": memory, "model_mb": weights}, options.output)


if __name__ == "__main__":
    main()
