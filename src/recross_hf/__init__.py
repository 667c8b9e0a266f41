"""Unsupervised cross-task generalization by retrieval augmentation, on the Hugging Face stack.

Names are imported when first used, so that `import recross_hf` costs nothing and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULE_OF = {
    "load_model": "architectures",
    "AdaptationArguments": "arguments",
    "ExampleTrainingArguments": "arguments",
    "MixtureArguments": "arguments",
    "RerankerTrainingArguments": "arguments",
    "SupervisionArguments": "arguments",
    "TargetTexts": "contamination",
    "examples_by_task": "data",
    "load_examples": "data",
    "load_queries": "data",
    "Encoder": "encoder",
    "MeanPooledEncoder": "encoder",
    "encode_in_processes": "encoder",
    "UpstreamIndex": "index",
    "rank_choices": "likelihood",
    "prepare_mixture": "mixture",
    "PromptTemplate": "prompts",
    "load_templates": "prompts",
    "select_templates": "prompts",
    "TaskSource": "sources",
    "read_task_sources": "sources",
    "Reranker": "reranker",
    "CrossEncoderReranker": "cross_encoder",
    "Retriever": "retriever",
    "DenseRetriever": "retriever",
    "RandomRetriever": "retriever",
    "ExampleTrainer": "trainer",
    "BM25Retriever": "bm25",
    "RetrievalAugmentedAdapter": "adapter",
    "ReCrossPipeline": "pipeline",
    "mine_supervision": "supervision",
    "load_query_sets": "supervision",
    "label_pairs": "supervision",
    "summarize_supervision": "supervision",
    "RerankerTrainer": "reranker_trainer",
    "evaluate_reranker": "reranker_trainer",
    "train_reranker": "reranker_trainer",
    "split_by_task": "reranker_trainer",
    "Method": "methods",
    "paper_methods": "methods",
    "evaluate_methods": "evaluation",
    "starter_tasks": "starter",
    "load_starter_task": "starter",
    "TargetTask": "target_tasks",
    "load_target_task": "target_tasks",
    "read_target_tasks": "target_tasks",
    "starter_target_task": "target_tasks",
    "warm_start_seq2seq": "upstream",
    "BenchmarkResults": "results",
    "write_report": "benchmark_report",
}

__all__ = ["__version__", *_MODULE_OF]

if TYPE_CHECKING:
    from .adapter import RetrievalAugmentedAdapter
    from .architectures import load_model
    from .arguments import (
        AdaptationArguments,
        ExampleTrainingArguments,
        MixtureArguments,
        RerankerTrainingArguments,
        SupervisionArguments,
    )
    from .benchmark_report import write_report
    from .bm25 import BM25Retriever
    from .contamination import TargetTexts
    from .cross_encoder import CrossEncoderReranker
    from .data import examples_by_task, load_examples, load_queries
    from .encoder import Encoder, MeanPooledEncoder, encode_in_processes
    from .evaluation import evaluate_methods
    from .index import UpstreamIndex
    from .likelihood import rank_choices
    from .methods import Method, paper_methods
    from .mixture import prepare_mixture
    from .pipeline import ReCrossPipeline
    from .prompts import PromptTemplate, load_templates, select_templates
    from .reranker import Reranker
    from .reranker_trainer import RerankerTrainer, evaluate_reranker, split_by_task, train_reranker
    from .results import BenchmarkResults
    from .retriever import DenseRetriever, RandomRetriever, Retriever
    from .sources import TaskSource, read_task_sources
    from .starter import load_starter_task, starter_tasks
    from .supervision import label_pairs, load_query_sets, mine_supervision, summarize_supervision
    from .target_tasks import TargetTask, load_target_task, read_target_tasks, starter_target_task
    from .trainer import ExampleTrainer
    from .upstream import warm_start_seq2seq


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
