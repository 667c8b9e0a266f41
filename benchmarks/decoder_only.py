"""Decoder-only models, whose head often costs more than their layers: training, memory, prediction and choices beside the usual ways.

    python benchmarks/decoder_only.py
    python benchmarks/decoder_only.py --model_name_or_path gemma-3-270m --files 'upstream/*/train.parquet' \
        --columns references=outputs id=example_id --num_inputs 64

By default a random Llama of a small shape with a vocabulary of 65,536, and the starter's tokenizer and upstream examples. All sides train
on the same rows with the same answers as targets, and take turns: `Trainer` with `DataCollatorForSeq2Seq`, random batches of a fixed size;
TRL's `SFTTrainer` with each of its ways to make batches that run on a CPU, where TRL is installed, of which the fastest counts;
`ExampleTrainer` with a token budget of as many tokens a step, padding included. The bound is a bare loop over rows without any padding that
computes logits of as many answers' tokens alone. Tokens a second count no padding. Memory is the peak of a process above its loaded model,
with as many examples a step on both sides. Seconds are those of the process on a CPU, which other work on the machine does not lengthen
where `OMP_NUM_THREADS` is 1.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import psutil
import torch
import transformers
from datasets import Dataset
from figures import Figure, report
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from recross_hf import ExampleTrainer, ExampleTrainingArguments, ReCrossPipeline, load_examples, load_model
from recross_hf.core.tables import format_table
from recross_hf.models.architectures import DECODER_ONLY
from recross_hf.models.collators import CausalCollator, padded
from recross_hf.models.generation import generate_texts
from recross_hf.models.likelihood import rank_choices
from recross_hf.models.tokenization import TokenizedExamples

PLAIN, OURS, BOUND = "Trainer, random batches", "ExampleTrainer, token budget", "bare loop without padding"
SFT = {
    "SFTTrainer, random batches": {},
    "SFTTrainer, by length": {"train_sampling_strategy": "group_by_length"},
    "SFTTrainer, packed": {"packing": True},
}
WARM_UP = 1


@dataclass
class Setting:
    """What all sides are given."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    rows: TokenizedExamples
    options: argparse.Namespace
    folder: str
    is_alone: bool = False

    def model_to_train(self) -> PreTrainedModel:
        """A copy, where others train after it."""
        return self.model if self.is_alone else copy.deepcopy(self.model)

    @property
    def common(self) -> dict[str, Any]:
        return {
            "output_dir": self.folder,
            "max_steps": WARM_UP + self.options.steps,
            "learning_rate": 1e-5,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "logging_steps": 10_000,
            "dataloader_pin_memory": torch.cuda.is_available(),
        }

    def joined(self) -> Dataset:
        """Rows of input and answer, whose labels are the answers'."""
        found: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
        for item in (self.rows[row] for row in range(len(self.rows))):
            found["input_ids"].append(item["input_ids"] + item["labels"])
            found["labels"].append([-100] * len(item["input_ids"]) + item["labels"])
        return Dataset.from_dict(found)

    def budget(self) -> int:
        """Mean tokens of random batches of the fixed size, padding included; for memory those of as many examples, without padding."""
        order = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(0)).numpy()
        lengths, size = self.rows.input_lengths + self.rows.target_lengths, self.options.batch_size
        if self.is_alone:
            return round(size * float(lengths.mean()))
        batches = [lengths[order[start : start + size]] for start in range(0, len(order), size)]
        return round(sum(len(batch) * int(batch.max()) for batch in batches) / len(batches))


class Meter(TrainerCallback):
    """Times the steps after the first, and counts the tokens in them."""

    def __init__(self) -> None:
        self.tokens = self.answers = self.padded = 0

    def watch(self, trainer: Trainer) -> None:
        step = trainer.training_step

        def counted(model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
            if trainer.state.global_step >= WARM_UP:
                labels = inputs["labels"]
                whole = inputs.get("attention_mask", torch.ones_like(labels))  # packed rows have none
                self.tokens += int(whole.sum())
                self.answers += int((labels != -100).sum())
                self.padded += labels.numel()
            return step(model, inputs, *args, **kwargs)

        trainer.training_step = counted

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == WARM_UP:
            self.start = clock()
        self.seconds = clock() - getattr(self, "start", 0.0)

    def figures(self) -> dict[str, float]:
        return {
            "tokens_per_second": self.tokens / self.seconds,
            "tokens": self.tokens,
            "answer_tokens": self.answers,
            "padding": 1 - self.tokens / self.padded,
        }


def clock() -> float:
    """Seconds."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


# ---- training ----------------------------------------------------------------------------------------------------------


def run(trainer: Trainer, meter: Meter) -> dict[str, float]:
    trainer.log = lambda logs, start_time=None: None  # a line for each run says nothing here
    meter.watch(trainer)
    trainer.train()
    return meter.figures()


def plain(setting: Setting, seed: int) -> dict[str, float]:
    meter = Meter()
    args = TrainingArguments(**setting.common, seed=seed, per_device_train_batch_size=setting.options.batch_size)
    trainer = Trainer(
        setting.model_to_train(),
        args,
        train_dataset=setting.joined(),
        data_collator=DataCollatorForSeq2Seq(_padding(setting.tokenizer)),
        callbacks=[meter],
    )
    return run(trainer, meter)


def ours(setting: Setting, seed: int) -> dict[str, float]:
    meter = Meter()
    args = ExampleTrainingArguments(**setting.common, seed=seed, token_budget=setting.budget())
    model = setting.model_to_train()
    trainer = ExampleTrainer(model, args, processing_class=setting.tokenizer, callbacks=[meter])
    trainer.train_dataset = setting.rows
    return run(trainer, meter)


def sft(name: str, setting: Setting, seed: int) -> dict[str, float]:
    from trl import SFTConfig, SFTTrainer

    meter = Meter()
    lengths = setting.rows.input_lengths + setting.rows.target_lengths
    longest, size = int(lengths.max()), setting.options.batch_size
    if SFT[name].get("packing"):  # as many tokens a step, in rows that are full
        size = max(1, round(setting.budget() / longest))
    args = SFTConfig(
        **setting.common, seed=seed, max_length=longest, per_device_train_batch_size=size, bf16=False, **SFT[name]
    )
    trainer = SFTTrainer(
        setting.model_to_train(),
        args,
        train_dataset=setting.joined(),
        processing_class=_padding(setting.tokenizer),
        callbacks=[meter],
    )
    return run(trainer, meter)


def bound(setting: Setting, tokens: int, answer_tokens: int) -> dict[str, float]:
    """Steps over one row after the other of the mean length, all of a length, and logits of as many answers' tokens as are learned."""
    model = setting.model_to_train().train()
    length = round(float((setting.rows.input_lengths + setting.rows.target_lengths).mean()))
    rows = max(1, round(tokens / length))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0, fused=True)
    head, settings = model.get_output_embeddings(), {"device": model.device}
    for step in range(WARM_UP + setting.options.steps):
        if step == WARM_UP:
            start = clock()
        token_ids = torch.randint(len(setting.tokenizer), (rows, length), **settings)
        hidden = model.base_model(input_ids=token_ids, use_cache=False).last_hidden_state.flatten(0, 1)
        places = torch.randint(len(hidden), (answer_tokens,), **settings)
        loss = torch.nn.functional.cross_entropy(head(hidden[places]).float(), token_ids.flatten()[places])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return {"tokens_per_second": setting.options.steps * rows * length / (clock() - start), "padding": 0.0}


def compare_training(setting: Setting) -> tuple[list[Figure], dict[str, Any]]:
    sides: dict[str, Callable[[Setting, int], dict[str, float]]] = {PLAIN: plain, OURS: ours}
    if importlib.util.find_spec("trl") is None:
        print("SFTTrainer is left out: TRL is not installed here (`pip install trl`).", flush=True)
    else:
        sides |= {name: lambda setting, seed, name=name: sft(name, setting, seed) for name in SFT}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in [*sides, BOUND]}
    for repeat in range(setting.options.repeats):
        # Turn and turn about, so that none always finds the warmer machine.
        for name in sides if repeat % 2 == 0 else reversed(sides):
            runs[name].append(sides[name](setting, repeat))
        steps, last = setting.options.steps, runs[OURS][-1]
        runs[BOUND].append(bound(setting, round(last["tokens"] / steps), round(last["answer_tokens"] / steps)))
    speeds = {name: [found["tokens_per_second"] for found in side] for name, side in runs.items()}
    rows = [
        [name, f"{median(speeds[name]):.0f}", f"{100 * median(found['padding'] for found in side):.0f} %"]
        for name, side in runs.items()
    ]
    print(format_table([f"{setting.options.steps} steps", "tokens/s", "padding"], rows) + "\n", flush=True)
    best = max((name for name in sides if name in SFT), key=lambda name: median(speeds[name]), default=None)
    figures = [
        Figure(
            what="training of a decoder-only model",
            unit="tokens/s",
            ours=median(speeds[OURS]),
            peer=median(speeds[peer]),
            peer_name=peer,
            ratio=median(a / b for a, b in zip(speeds[OURS], speeds[peer], strict=True)),
            goal=goal,
            bound=median(speeds[BOUND]),
            least_of_bound=0.85,
        )
        for peer, goal in ((PLAIN, 3.0), (best, 1.5))
        if peer is not None
    ]
    return figures, {"runs": runs}


# ---- memory ------------------------------------------------------------------------------------------------------------


def compare_memory(options: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    context, peaks = multiprocessing.get_context("spawn"), {}
    for name in (PLAIN, OURS):
        queue = context.Queue()
        process = context.Process(target=_peak_of_training, args=(name, options, queue))
        process.start()
        peaks[name] = queue.get()
        process.join()
    figure = Figure(
        what="peak memory of training a decoder-only model",
        unit="MB above it",
        ours=peaks[OURS],
        peer=peaks[PLAIN],
        peer_name=PLAIN,
        ratio=peaks[OURS] / peaks[PLAIN],
        goal=0.5,
        at_most=True,
    )
    return [figure], {"peak_mb": peaks}


def _peak_of_training(name: str, options: argparse.Namespace, queue: multiprocessing.Queue) -> None:
    with tempfile.TemporaryDirectory() as folder:
        setting = prepared(options, folder)
        options.steps, setting.is_alone = min(3, options.steps), True
        if torch.cuda.is_available():
            before = torch.cuda.memory_allocated() / 1e6
        else:
            before = psutil.Process().memory_info().rss / 1e6
        (plain if name == PLAIN else ours)(setting, 0)
    if torch.cuda.is_available():
        queue.put(torch.cuda.max_memory_allocated() / 1e6 - before)
    else:
        queue.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 - before)


# ---- prediction and choices --------------------------------------------------------------------------------------------


def compare_answers(setting: Setting, inputs: list[str]) -> tuple[list[Figure], dict[str, Any]]:
    options, model = setting.options, setting.model.eval()
    model.requires_grad_(not options.frozen)
    choices = [["yes", "no", "it is not possible to tell", "maybe"]] * len(inputs)
    limits = {"max_input_length": options.max_input_length}
    work: list[tuple[str, str, str, Callable[[], Any], Callable[[], Any]]] = [
        (
            "prediction",
            "inputs/s",
            "model.generate, batches of 16",
            lambda: generate_texts(model, setting.tokenizer, inputs, max_new_tokens=options.max_new_tokens, **limits),
            lambda: _generated(setting, inputs),
        ),
        (
            "rank_choices, 4 each",
            "inputs/s",
            "each pair whole, batches of 16",
            lambda: rank_choices(model, setting.tokenizer, inputs, choices, **limits),
            lambda: _each_pair_whole(setting, inputs, choices),
        ),
    ]
    figures, raw = [], {}
    for what, unit, peer_name, our_way, their_way in work:
        seconds: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(options.repeats):
            answers = []
            for name, answer in (("ours", our_way), ("peer", their_way)):
                start = clock()
                answers.append(answer())
                seconds[name].append(clock() - start)
        differing = sum(one != other for one, other in zip(*answers, strict=True))
        raw[what] = {"seconds": seconds, "other_answers": differing}
        figures.append(
            Figure(
                what=f"{what}, {len(inputs)} inputs, {differing} other answers",
                unit=unit,
                ours=len(inputs) / median(seconds["ours"]),
                peer=len(inputs) / median(seconds["peer"]),
                peer_name=peer_name,
                ratio=median(b / a for a, b in zip(seconds["ours"], seconds["peer"], strict=True)),
                goal=3.0,
            )
        )
    return figures, raw


def _batches(rows: list[Any], size: int = 16) -> Iterator[list[Any]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


@torch.inference_mode()
def _generated(setting: Setting, inputs: list[str]) -> list[str]:
    """Generates in batches as they come, padded on the left."""
    tokenizer, pad = setting.tokenizer, _padding(setting.tokenizer).pad_token_id
    texts = []
    for prompts in _batches(DECODER_ONLY.prompt_ids(tokenizer, inputs, setting.options.max_input_length)):
        batch = padded(prompts, pad, "left")
        settings = {"max_new_tokens": setting.options.max_new_tokens, "do_sample": False, "pad_token_id": pad}
        found = setting.model.generate(**batch, **settings, eos_token_id=tokenizer.eos_token_id)
        texts += tokenizer.batch_decode(found[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]


@torch.inference_mode()
def _each_pair_whole(setting: Setting, inputs: list[str], choices: list[list[str]]) -> list[int]:
    """Reads each input with each choice, computes all logits, and takes the best mean over a choice's tokens."""
    prompts = DECODER_ONLY.prompt_ids(setting.tokenizer, inputs, setting.options.max_input_length)
    answers = [DECODER_ONLY.answer_ids(setting.tokenizer, of_input, 64) for of_input in choices]
    pairs = [
        {"input_ids": prompt, "labels": answer} for prompt, ids in zip(prompts, answers, strict=True) for answer in ids
    ]
    collate, scores = CausalCollator(setting.tokenizer), []
    for items in _batches(pairs):
        batch = collate(items)
        labels = batch.pop("labels")[:, 1:]
        logits = setting.model(**batch).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2).float(), labels, reduction="none")
        scores += (-losses.sum(dim=1) / (labels != -100).sum(dim=1)).tolist()
    return [max(range(len(four)), key=four.__getitem__) for four in _batches(scores, len(choices[0]))]


# ---- all ---------------------------------------------------------------------------------------------------------------


def _padding(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    if tokenizer.pad_token is None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def prepared(options: argparse.Namespace, folder: str) -> Setting:
    """The model, its tokenizer and the tokenised examples."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.model_name_or_path is None or options.files is None:
        pipeline = ReCrossPipeline.from_pretrained()
    if options.model_name_or_path is None:
        tokenizer = pipeline.processing_class
        config = LlamaConfig(
            vocab_size=65_536,  # more than the starter's tokenizer has, as real ones
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=8,
            num_attention_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        torch.manual_seed(0)
        model: PreTrainedModel = LlamaForCausalLM(config).to(device)
    else:
        tokenizer = AutoTokenizer.from_pretrained(options.model_name_or_path)
        model = load_model(options.model_name_or_path, dtype=getattr(torch, options.dtype)).to(device)
    if options.files is None:
        examples = pipeline.index.dataset
    else:
        examples = load_examples(options.files, columns=dict(pair.split("=", 1) for pair in options.columns))
    examples = examples.shuffle(seed=0).select(range(min(options.num_examples, len(examples))))
    limits = options.max_input_length, options.max_target_length
    rows = TokenizedExamples(examples, tokenizer, *limits, architecture=DECODER_ONLY)
    options.inputs = examples["input"][: options.num_inputs]
    return Setting(model, tokenizer, rows, options, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", help="a decoder-only model; random weights by default")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of its weights")
    parser.add_argument(
        "--frozen", action="store_true", help="answer with weights frozen, as they are beside an adapter"
    )
    parser.add_argument("--files", nargs="+", help="examples; the starter's upstream ones by default")
    parser.add_argument("--columns", nargs="*", default=[], help="their columns")
    parser.add_argument("--num_examples", type=int, default=8000, help="of them, drawn at random")
    parser.add_argument("--num_inputs", type=int, default=200, help="to answer")
    parser.add_argument("--max_input_length", type=int, default=192)
    parser.add_argument("--max_target_length", type=int, default=32)
    parser.add_argument("--max_new_tokens", type=int, default=16)
    parser.add_argument("--batch_size", type=int, default=32, help="of the peers")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=["training", "memory", "answers"], help="these alone")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/decoder_only.json"))
    options = parser.parse_args()
    parts = options.parts or ["training", "memory", "answers"]
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    if "memory" in parts:  # first, for a process begins with the peak of the one that starts it
        found, raw["memory"] = compare_memory(options)
        figures += found
    with tempfile.TemporaryDirectory() as folder:
        setting = prepared(options, folder)
        inputs = options.inputs
        if "training" in parts:
            found, raw["training"] = compare_training(setting)
            figures += found
        if "answers" in parts:
            found, raw["answers"] = compare_answers(setting, inputs)
            figures += found
        raw |= {
            "model": Path(options.model_name_or_path or "random Llama").name,
            "dtype": str(setting.model.dtype),
            "num_parameters": setting.model.num_parameters(),
            "token_budget": setting.budget(),
            "threads": torch.get_num_threads(),
        }
    report(figures, raw, options.output)


if __name__ == "__main__":
    main()
