"""Plans of long runs: a little of the work is done, in earnest and in a folder of its own, and what it took is extrapolated."""

from __future__ import annotations

import copy
import functools
import logging
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from numpy.typing import DTypeLike
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..core.distributed import process_state
from ..core.files import write_parquet
from ..data.readers import take_rows
from ..mixture.decontamination import TargetTexts
from ..mixture.prepare import check_mixture, try_out
from ..mixture.sources import SourceError, TaskSource
from ..models.tokenization import TokenizedExamples
from ..retrieval.encoder import Encoder
from ..retrieval.retriever import Retriever
from ..supervision.mining import SETS_FOLDER, mine_supervision
from ..supervision.utility import Judge, by_groups
from ..training.arguments import ExampleTrainingArguments, MixtureArguments, SupervisionArguments
from .plan import Plan, Room, Seconds, existing_folder, peak_device_memory, peak_memory

logger = logging.getLogger(__name__)

PROBE_SECONDS = 15.0
PROBE_EXAMPLES = 20_000
PROBE_STEPS = 16
TURNS = 4
MANY_LISTS = 256
ADDED = 2048
# Of a task, digests are held while it is prepared.
BYTES_A_ROW, BYTES_AN_EXAMPLE = 8, 24

LESS_DISK = "Write to a larger disk"


# ---- an index ----------------------------------------------------------------------------------------------------------


def index_bytes(dimension: int, num_vectors: int, factory: str = "Flat") -> int:
    """Bytes of a FAISS index of so many vectors on disk; in memory as many at most.

    Raises:
        RuntimeError: FAISS takes no such factory string.
    """
    whole = faiss.index_factory(dimension, factory)  # it owns what is inside
    return sum(_bytes_of(whole, num_vectors))


def _bytes_of(index: faiss.Index, num_vectors: int) -> tuple[int, int]:
    """Bytes that are held in memory while an index is filled, and bytes that go from the shards to the file, see `faiss_files`."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        parts = [_bytes_of(part, num_vectors) for part in (index.base_index, index.refine_index)]
        return parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]
    if isinstance(index, faiss.IndexPreTransform):
        held, written = _bytes_of(index.index, num_vectors)
        return held + written, 0
    if isinstance(index, faiss.IndexHNSW):
        # Neighbours of four bytes, twice as many in the lowest layer, and where each vector's begin.
        return num_vectors * (index.storage.sa_code_size() + 4 * index.hnsw.nb_neighbors(0) + 16), 0
    inverted = faiss.try_extract_index_ivf(index)
    if inverted is None:
        centroids = 256 * 4 * index.d if isinstance(index, faiss.IndexPQ) else 0
        codes = num_vectors * index.sa_code_size()
        is_written = isinstance(index, faiss.IndexFlat | faiss.IndexScalarQuantizer)
        return (0, codes) if is_written else (codes + centroids, 0)
    centroids = 256 * 4 * index.d if isinstance(faiss.downcast_index(inverted), faiss.IndexIVFPQ) else 0
    # Which list it is stands beside a code only where that stands alone.
    coarse = (inverted.nlist - 1).bit_length() + 7 >> 3
    return num_vectors * (index.sa_code_size() - coarse + 8) + 4 * index.d * inverted.nlist + centroids, 0


def _assembling_seconds(
    vectors: np.ndarray, num_vectors: int, factory: str, metric_type: int, train_size: int
) -> float:
    """Seconds to train and fill an index of `num_vectors`, extrapolated from these, which may repeat: their values matter little."""
    num_lists = int(lists[1]) if (lists := re.search(r"IVF(\d+)", factory)) else 0
    tried = min(num_lists, MANY_LISTS)  # of more, both training and filling take longer in proportion
    index = faiss.index_factory(vectors.shape[1], re.sub(r"IVF\d+", f"IVF{tried}", factory), metric_type)
    # FAISS prints warnings of fewer than 39 vectors a centroid, of which a code of 8 bits has 256.
    vectors = np.resize(vectors, (max(len(vectors), 39 * max(tried, 256) * (not index.is_trained)), vectors.shape[1]))
    start = time.perf_counter()
    index.train(vectors)
    trained = time.perf_counter()
    index.add(vectors[:ADDED])
    added = time.perf_counter()
    # It takes at most 256 vectors a centroid, drawn from those that it gets.
    training = min(train_size, num_vectors, 256 * max(num_lists, 256)) / len(vectors) * (trained - start)
    filling = num_vectors / min(ADDED, len(vectors)) * (added - trained)
    return (training + filling) * max(num_lists / max(tried, 1), 1)


def plan_index(
    dataset: Dataset,
    encoder: Encoder,
    output_dir: str | Path,
    *,
    factory: str = "Flat",
    metric_type: int = faiss.METRIC_L2,
    train_size: int = 100_000,
    shard_size: int = 4096,
    vector_dtype: DTypeLike = np.float32,
    model: PreTrainedModel | None = None,
    seed: int = 0,
) -> Plan:
    """What [`UpstreamIndex.build`] will take; with `model`, what [`ReCrossPipeline.build`] will.

    Some hundred examples of all lengths, and the longest of some thousand, are encoded. Every process must call it.

    Raises:
        RuntimeError: FAISS takes no such factory string.
    """
    state = process_state()
    rows = np.random.default_rng(seed).choice(len(dataset), min(len(dataset), PROBE_EXAMPLES), replace=False)
    sample = take_rows(dataset, rows)
    texts = sample["input"][:]
    # The longest come first: they decide how much memory is needed, and what happens only once is not timed.
    longest = sorted(texts, key=len)[-64:]
    vectors = [np.asarray(encoder.encode(longest[-2:]), dtype=np.float32)]
    start = time.perf_counter()
    vectors.append(np.asarray(encoder.encode(longest), dtype=np.float32))
    slowest = (time.perf_counter() - start) / len(longest)
    # An encoder sorts a shard by length, so that its batches are of like lengths: so are those that are tried out, by turns from all of
    # the shard.
    shard, tried = sorted(texts[:shard_size], key=len), []
    num_texts = int(np.clip(PROBE_SECONDS / TURNS**2 / slowest, min(16, len(shard)), max(len(shard) // TURNS**2, 1)))
    for turn in range(TURNS):
        seconds = []
        for place in (np.arange(TURNS) + (turn + 0.5) / TURNS) / TURNS:
            first = round(place * (len(shard) - num_texts))
            start = time.perf_counter()
            vectors.append(np.asarray(encoder.encode(shard[first : first + num_texts]), dtype=np.float32))
            seconds.append((time.perf_counter() - start) / num_texts)
        tried.append(float(np.mean(seconds)))
    found = np.concatenate(vectors)
    dimension = found.shape[1]
    of_vectors = np.dtype(vector_dtype).itemsize * dimension * len(dataset)
    empty = faiss.index_factory(dimension, factory, metric_type)
    held, written = _bytes_of(empty, len(dataset))
    of_index = held + written
    assembling = _assembling_seconds(found, len(dataset), factory, metric_type, train_size)
    with tempfile.TemporaryDirectory() as folder:
        write_parquet(sample, Path(folder) / "examples.parquet")
        of_examples = round((Path(folder) / "examples.parquet").stat().st_size / len(sample) * len(dataset))
    of_model = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) if model else 0
    encoding = Seconds.of(tried, math.ceil(len(dataset) / state.num_processes))
    total = encoding.plus(assembling)
    # Training vectors, what of the index cannot be written as it comes, and one more shard are what the main process holds
    # beside the encoder.
    held += 4 * dimension * (min(train_size, len(dataset)) * (not empty.is_trained) + shard_size)
    return Plan(
        work=f"An index of {len(dataset):,} examples, {dimension} dimensions, {factory}",
        probe=f"{len(found):,} examples encoded",
        seconds=total,
        shared=encoding.expected / total.expected,
        memory=peak_memory() + held,
        device_memory=peak_device_memory(state.device),
        disk=of_vectors + of_index + of_examples + of_model,
        kept=of_index + of_examples + of_model,
        room=Room.of(output_dir, state.device),
        num_processes=state.num_processes,
        advice={
            "memory": "Choose a smaller index, such as --factory SQ8 (a quarter of Flat) or IVF1024,PQ48np.",
            "device_memory": "Lower the encoder's `token_budget` or `max_length`, or encode in bfloat16 (--bf16).",
            "disk": f"{LESS_DISK}, or choose a smaller index, such as --factory SQ8; the vectors of a build are deleted at its end.",
        },
    )


# ---- training ----------------------------------------------------------------------------------------------------------


class _Timer(TrainerCallback):
    """Notes when each step ended, and ends the training when enough were timed."""

    def __init__(self, num_first: int, device: torch.device) -> None:
        self.num_first, self.device, self.ends = num_first, device, []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.ends.append(time.perf_counter())
        timed = len(self.ends) - self.num_first
        late = [timed >= 4 and self.ends[-1] - self.ends[self.num_first - 1] > PROBE_SECONDS]
        if process_state().num_processes > 1:  # they must end together
            broadcast_object_list(late)
        control.should_training_stop = late[0]

    @property
    def seconds(self) -> list[float]:
        return np.diff(self.ends[self.num_first - 1 :]).tolist()


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
        timer = _Timer(len(epoch.largest) // accumulated, args.device)
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


# ---- mining ------------------------------------------------------------------------------------------------------------


def plan_mining(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    retriever: Retriever,
    examples: Dataset,
    output_dir: str | Path,
    args: SupervisionArguments | None = None,
    *,
    judge: Judge = by_groups,
    num_probed: int = 3,
    **kwargs: Any,
) -> Plan:
    """What [`mine_supervision`] with these arguments will take: `num_probed` query sets a process are mined, the first one untimed.

    Every process must call it.
    """
    args, state = args or SupervisionArguments(), process_state()
    starts: list[float] = []  # of each set's judgement

    @functools.wraps(judge)
    def timed(*arguments: Any) -> Any:
        starts.append(time.perf_counter())
        return judge(*arguments)

    probed = copy.copy(args)
    probed.num_query_sets = min(args.num_query_sets, num_probed * state.num_processes)
    with _folder_for_all(output_dir) as folder:
        pairs = mine_supervision(model, processing_class, retriever, examples, folder, probed, judge=timed, **kwargs)
        if state.is_main_process:
            write_parquet(pairs, folder / "pairs.parquet")
        state.wait_for_everyone()
        written = [
            path.stat().st_size for path in (*(folder / SETS_FOLDER).glob("*.parquet"), folder / "pairs.parquet")
        ]
        state.wait_for_everyone()
    if len(starts) < 2:
        raise ValueError(
            f"Expected at least two query sets to be judged, found {len(starts)} of {probed.num_query_sets}: there is too little to "
            "plan, or there are too few candidates."
        )
    num_sets = math.ceil(args.num_query_sets / state.num_processes)
    disk = round(sum(written) / probed.num_query_sets * args.num_query_sets)
    return Plan(
        work=f"Mining {args.num_query_sets:,} query sets",
        probe=f"{probed.num_query_sets} of them",
        seconds=Seconds.of(np.diff(starts).tolist(), num_sets),
        shared=1.0,
        memory=peak_memory(),
        device_memory=peak_device_memory(state.device),
        disk=disk,
        kept=disk,
        room=Room.of(output_dir, state.device),
        num_processes=state.num_processes,
        advice={
            "memory": "Fine-tune fewer weights (--trainable_parameters '^decoder'), or use a smaller model.",
            "device_memory": "Fine-tune fewer weights (--trainable_parameters '^decoder'), use --bf16 or a smaller model.",
            "disk": f"{LESS_DISK}, or mine fewer query sets (--num_query_sets).",
        },
    )


# ---- upstream data -----------------------------------------------------------------------------------------------------


def plan_mixture(
    sources: Sequence[TaskSource],
    output_dir: str | Path,
    args: MixtureArguments | None = None,
    *,
    targets: TargetTexts | None = None,
    template_folder: str | Path | None = None,
    num_proc: int = 1,
    skip_failed_tasks: bool = False,
) -> Plan:
    """What [`prepare_mixture`] with these arguments will take: some rows of every task are prepared.

    What is fetched from the Hub to read them is not counted, nor the time that reading the rest takes; tasks that are finished
    already are.

    Raises:
        ValueError: as [`prepare_mixture`] raises it; but whether the data or templates of a finished task have changed since is not
            looked at.
        ContaminationError: there is an overlap, and `args.on_overlap` is "fail".
        SourceError: a task's data or templates cannot be had, and not `skip_failed_tasks`; or those of no task can.
    """
    args, trials = args or MixtureArguments(), []
    targets = TargetTexts(args.ngram_size) if targets is None else targets  # one of no texts is false
    check_mixture(sources, output_dir, args, targets, num_proc)
    for source in sources:
        try:
            trials.append(try_out(source, args, targets=targets, template_folder=template_folder))
        except SourceError as error:
            if not skip_failed_tasks:
                raise
            logger.warning("Left out: %s", error)
    if not trials:
        raise SourceError("Expected a task that can be had, found none.")
    num_examples = sum(trial.num_examples for trial in trials)
    disk = round(sum(trial.num_bytes * trial.num_examples for trial in trials))
    made = sum(trial.seconds * trial.num_examples for trial in trials) / num_proc
    seconds = made + sum(trial.serial_seconds * trial.num_examples for trial in trials)
    # Some rows of a task say little of how the others differ: the spread is that of tasks about their mean.
    of_tasks = Seconds.of([trial.seconds + trial.serial_seconds for trial in trials], num_examples)
    margin = (of_tasks.high - of_tasks.expected) / of_tasks.expected
    # Those that render hold what the main process holds already; it holds what it has seen of the largest task besides.
    holders = num_proc + 1 if num_proc > 1 else 1
    held = max(BYTES_A_ROW * trial.num_rows + BYTES_AN_EXAMPLE * trial.num_examples for trial in trials)
    return Plan(
        work=f"{num_examples:,} upstream examples of {len(trials)} tasks, made by {num_proc} process{'es' * (num_proc > 1)}",
        probe=f"{sum(trial.num_tried for trial in trials):,} examples made by one",
        seconds=Seconds(seconds, seconds * max(1 - margin, 0.0), seconds * (1 + margin)),
        shared=0.0,
        memory=peak_memory() * holders + held,
        device_memory=None,
        disk=disk,
        kept=disk,
        room=Room.of(output_dir),
        advice={
            "memory": "Use fewer processes (--num_proc): each holds the target texts and the libraries.",
            "disk": f"{LESS_DISK}, or keep fewer examples of a task (--max_examples_per_task).",
        },
    )


@contextmanager
def _folder_for_all(output_dir: str | Path) -> Iterator[Path]:
    """A temporary folder beside the output, which all processes see."""
    state = process_state()
    with tempfile.TemporaryDirectory(dir=existing_folder(output_dir)) as own:
        name = [own]
        if state.num_processes > 1:
            broadcast_object_list(name)
        yield Path(name[0])
        state.wait_for_everyone()
