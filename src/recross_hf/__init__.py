"""Unsupervised cross-task generalization by retrieval augmentation, on the Hugging Face stack.

Names are imported when first used, so that `import recross_hf` costs nothing and needs no torch.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from ._version import __version__

_MODULE_OF = {
    "load_model": "models.loading",
    "AdaptationArguments": "adaptation.arguments",
    "AnswerForm": "adaptation.answer_form",
    "GateVerdict": "adaptation.safety_gate",
    "ExampleTrainingArguments": "training.arguments",
    "MixtureArguments": "mixture.arguments",
    "RerankerTrainingArguments": "reranking.arguments",
    "SupervisionArguments": "supervision.arguments",
    "Decontaminator": "mixture.decontamination",
    "Conversation": "data.conversations",
    "examples_by_task": "data.schema",
    "load_examples": "data.readers",
    "load_queries": "data.readers",
    "Encoder": "retrieval.encoder",
    "MeanPooledEncoder": "retrieval.encoder",
    "encode_in_processes": "retrieval.encoder",
    "SentenceEncoder": "retrieval.sentence_encoder",
    "UpstreamIndex": "retrieval.index",
    "rank_choices": "models.likelihood",
    "set_chat_format": "models.chat",
    "to_prompt_completion": "models.prompt_completion",
    "prepare_mixture": "mixture.prepare",
    "PromptTemplate": "mixture.templates",
    "load_templates": "mixture.template_files",
    "select_templates": "mixture.template_files",
    "TaskSource": "mixture.sources",
    "read_task_sources": "mixture.sources",
    "Reranker": "reranking.reranker",
    "CrossEncoderReranker": "reranking.cross_encoder",
    "Retriever": "retrieval.retriever",
    "DenseRetriever": "retrieval.retriever",
    "RandomRetriever": "retrieval.retriever",
    "SIFTRetriever": "retrieval.sift",
    "MixedRetriever": "retrieval.mixed",
    "BalancedRetriever": "retrieval.balanced",
    "ExampleTrainer": "training.trainer",
    "BM25Retriever": "retrieval.bm25",
    "build_cluster_index": "retrieval.cluster.build",
    "LanceIndex": "retrieval.lance.index",
    "LanceRetriever": "retrieval.lance.retriever",
    "RetrievalAugmentedAdapter": "adaptation.adapter",
    "ReCrossPipeline": "pipeline.pipeline",
    "mine_supervision": "supervision.mining",
    "load_query_sets": "supervision.query_sets",
    "label_pairs": "supervision.pairs",
    "summarize_supervision": "supervision.results",
    "RerankerTrainer": "reranking.trainer",
    "evaluate_reranker": "reranking.evaluation",
    "train_reranker": "reranking.trainer",
    "split_by_task": "reranking.evaluation",
    "Method": "evaluation.method",
    "paper_methods": "evaluation.methods",
    "evaluate_methods": "evaluation.runner",
    "starter_tasks": "data.starter",
    "load_starter_task": "data.starter",
    "TargetTask": "evaluation.tasks",
    "load_target_task": "evaluation.tasks",
    "read_target_tasks": "evaluation.tasks",
    "starter_target_task": "evaluation.tasks",
    "warm_start_seq2seq": "models.warm_start",
    "EvaluationResults": "evaluation.results",
    "write_report": "evaluation.report.page",
}

# Names of one release ago, which go with the next.
_DEPRECATED = {"BenchmarkResults": "EvaluationResults", "TargetTexts": "Decontaminator"}

__all__ = ["__version__", *_MODULE_OF]

if TYPE_CHECKING:
    from .adaptation.adapter import RetrievalAugmentedAdapter
    from .adaptation.answer_form import AnswerForm
    from .adaptation.arguments import AdaptationArguments
    from .adaptation.safety_gate import GateVerdict
    from .data.conversations import Conversation
    from .data.readers import load_examples, load_queries
    from .data.schema import examples_by_task
    from .data.starter import load_starter_task, starter_tasks
    from .evaluation.method import Method
    from .evaluation.methods import paper_methods
    from .evaluation.report.page import write_report
    from .evaluation.results import EvaluationResults
    from .evaluation.runner import evaluate_methods
    from .evaluation.tasks import TargetTask, load_target_task, read_target_tasks, starter_target_task
    from .mixture.arguments import MixtureArguments
    from .mixture.decontamination import Decontaminator
    from .mixture.prepare import prepare_mixture
    from .mixture.sources import TaskSource, read_task_sources
    from .mixture.template_files import load_templates, select_templates
    from .mixture.templates import PromptTemplate
    from .models.chat import set_chat_format
    from .models.likelihood import rank_choices
    from .models.loading import load_model
    from .models.prompt_completion import to_prompt_completion
    from .models.warm_start import warm_start_seq2seq
    from .pipeline.pipeline import ReCrossPipeline
    from .reranking.arguments import RerankerTrainingArguments
    from .reranking.cross_encoder import CrossEncoderReranker
    from .reranking.evaluation import evaluate_reranker, split_by_task
    from .reranking.reranker import Reranker
    from .reranking.trainer import RerankerTrainer, train_reranker
    from .retrieval.balanced import BalancedRetriever
    from .retrieval.bm25 import BM25Retriever
    from .retrieval.cluster.build import build_cluster_index
    from .retrieval.encoder import Encoder, MeanPooledEncoder, encode_in_processes
    from .retrieval.index import UpstreamIndex
    from .retrieval.lance.index import LanceIndex
    from .retrieval.lance.retriever import LanceRetriever
    from .retrieval.mixed import MixedRetriever
    from .retrieval.retriever import DenseRetriever, RandomRetriever, Retriever
    from .retrieval.sentence_encoder import SentenceEncoder
    from .retrieval.sift import SIFTRetriever
    from .supervision.arguments import SupervisionArguments
    from .supervision.mining import mine_supervision
    from .supervision.pairs import label_pairs
    from .supervision.query_sets import load_query_sets
    from .supervision.results import summarize_supervision
    from .training.arguments import ExampleTrainingArguments
    from .training.trainer import ExampleTrainer


def __getattr__(name: str) -> Any:
    if name in _DEPRECATED:
        warnings.warn(
            f"`recross_hf.{name}` is now `recross_hf.{_DEPRECATED[name]}`. Use the new name: the old one goes with the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        name = _DEPRECATED[name]
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
