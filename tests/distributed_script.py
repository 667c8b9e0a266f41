"""Builds an index, retrieves, reranks, evaluates and mines; run by `test_distributed.py` in one process and in two."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tiny
import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from recross_hf import (
    AdaptationArguments,
    CrossEncoderReranker,
    DenseRetriever,
    MeanPooledEncoder,
    RetrievalAugmentedAdapter,
    SupervisionArguments,
    UpstreamIndex,
    encode_in_processes,
    examples_by_task,
    load_query_sets,
    mine_supervision,
)
from recross_hf.core.distributed import end_process_group

NUM_EVALUATED = 13  # odd, and no multiple of the batch: the last batch of two processes is padded
NUM_RERANKED = [10, 150]  # of 20 and 300: all of them in one shard, and in two


def evaluation_set(examples: Dataset) -> Dataset:
    """Every third answer is beyond any model, so that rows counted twice change the scores."""
    rows = examples.shuffle(seed=1).select(range(NUM_EVALUATED)).to_list()
    return Dataset.from_list([row | ({"references": ["qqq"]} if n % 3 == 0 else {}) for n, row in enumerate(rows)])


def reranker() -> CrossEncoderReranker:
    tokenizer = tiny.pair_tokenizer()
    return CrossEncoderReranker(tiny.cross_encoder(tokenizer), tokenizer)


def reranked_by(reranker, model, encoder, index, examples, folder: Path, num_retrieved: int) -> list[dict]:
    """What an adapter would train on, where the reranker's choice is spread over the processes."""
    args = AdaptationArguments(output_dir=str(folder / "reranked"), use_cpu=True, num_retrieved=num_retrieved)
    adapter = RetrievalAugmentedAdapter(
        model,
        args,
        retriever=DenseRetriever(index),
        reranker=reranker,
        query_dataset=examples["input"][::4],
        processing_class=encoder.processing_class,
    )
    return adapter.retrieve().to_list()


def gated(model, encoder, index, folder: Path) -> dict:
    """What the safety gate says of a training that does harm; each process has the model's own weights again."""
    args = AdaptationArguments(
        output_dir=str(folder / "gated"),
        use_cpu=True,
        num_retrieved=12,
        max_steps=2,
        learning_rate=3.0,
        gate="strict",
    )
    adapter = RetrievalAugmentedAdapter(
        model,
        args,
        retriever=DenseRetriever(index),
        query_dataset=tiny.queries(),
        processing_class=encoder.processing_class,
    )
    adapter.train()
    restored = adapter.model.state_dict()
    assert all(torch.equal(value, restored[name]) for name, value in model.state_dict().items())
    return asdict(adapter.gate)


def mined(model, encoder, index, examples, folder: Path) -> list[dict]:
    args = SupervisionArguments(
        num_query_sets=3,
        num_queries=2,
        num_held_out=6,
        num_candidates=9,
        group_size=4,
        num_rounds=2,
        num_labelled=4,
        learning_rate=1e-3,
    )
    return mine_supervision(model, encoder.processing_class, DenseRetriever(index), examples, folder, args).to_list()


def main(model_folder: str, output_dir: str, num_processes: int) -> None:
    state = PartialState(cpu=True)
    assert state.num_processes == num_processes, state
    examples, folder = tiny.examples(), Path(output_dir)
    model = AutoModelForSeq2SeqLM.from_pretrained(model_folder)
    encoder = MeanPooledEncoder(model, AutoTokenizer.from_pretrained(model_folder))
    index = UpstreamIndex.build(examples, encoder, folder / "index", shard_size=7)
    adapter = RetrievalAugmentedAdapter(
        model,
        AdaptationArguments(
            output_dir=str(folder / "out"),
            use_cpu=True,
            disable_tqdm=True,
            num_retrieved=10,
            max_steps=2,
            learning_rate=1e-3,
            per_device_train_batch_size=4 // num_processes,
            per_device_eval_batch_size=4,
            max_target_length=8,
        ),
        retriever=DenseRetriever(index, exclude_tasks=["sum"]),
        query_dataset=tiny.queries(),
        eval_dataset=evaluation_set(examples),
        processing_class=encoder.processing_class,
    )
    base = adapter.evaluate(metric_key_prefix="base")
    # Of each task fewer than two processes take at once.
    tasks = examples_by_task(adapter.eval_dataset)
    assert max(map(len, tasks.values())) < 2 * adapter.args.per_device_eval_batch_size
    by_task = adapter.evaluate(tasks, metric_key_prefix="by")
    predictions = adapter.decode(adapter.predict(adapter.eval_dataset).predictions)
    adapter.retrieve()
    adapter.train()
    adapter.save_model()
    everywhere = encode_in_processes(encoder, examples["input"][:], shard_size=5)
    reranked = [reranked_by(reranker(), model, encoder, index, examples, folder, number) for number in NUM_RERANKED]
    verdict = gated(model, encoder, index, folder)
    pairs = mined(AutoModelForSeq2SeqLM.from_pretrained(model_folder), encoder, index, examples, folder / "mined")
    if state.is_main_process:
        np.savez(
            folder / "vectors.npz",
            index=index.faiss_index.reconstruct_n(0, len(index)),
            everywhere=everywhere,
        )
        results = {
            "base": {name: base[f"base_{name}"] for name in ("soft_em", "exact_match", "loss")},
            "scores": adapter.scores,
            "by_task": {name: by_task[name] for name in by_task if name.endswith(("_em", "_match", "_loss"))},
            "predictions": predictions,
            "retrieved": adapter.retrieved.to_list(),
            "reranked": reranked,
            "pairs": pairs,
            "gate": verdict,
            "sets": [[row["set"], row["task"], row["base_loss"]] for row in load_query_sets(folder / "mined")],
            "losses": [entry["train_loss"] for entry in adapter.state.log_history if "train_loss" in entry],
            "files": sorted(path.name for path in (folder / "index").iterdir()),
        }
        (folder / "results.json").write_text(json.dumps(results))
    end_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
