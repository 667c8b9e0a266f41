"""The settings of a mining, written beside its query sets: a run goes on only where they are the same."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..core.files import read_json, write_json
from ..core.hashing import function_name, weights_hash
from ..core.run_settings import names_alone, refuse_other_settings
from ..data.conversations import texts_of
from ..data.schema import MESSAGES, column_hash
from ..models.architectures import chat_reading
from ..reranking.reranker import Reranker
from ..retrieval.retriever import Retriever
from ..retrieval.upstream_rows import RowsInMemory
from .arguments import SupervisionArguments
from .query_sets import SETTINGS_FILE
from .utility import UtilityEstimator

if TYPE_CHECKING:
    from peft import PeftConfig

logger = logging.getLogger(__name__)

_FORMER_NAMES = {"judge": "utility_estimator"}
"""Names in the file, which stay so that older files open, and the names of the arguments today."""


def mining_settings(
    model: PreTrainedModel,
    retriever: Retriever,
    examples: Dataset,
    args: SupervisionArguments,
    utility_estimator: UtilityEstimator,
    reranker: Reranker | None,
    exclude_tasks: Collection[str],
    peft_config: PeftConfig | None,
    processing_class: PreTrainedTokenizerBase,
) -> dict[str, Any]:
    """Settings that the query sets depend on, as JSON values: all but the number of the sets and the way they are labelled.

    Args:
        model: Upstream model.
        retriever: Retriever of the candidates.
        examples: Upstream examples to draw queries and held-out examples from.
        args: Settings of the mining.
        utility_estimator: Function that estimates how much each candidate helps.
        reranker: Reranker of an earlier iteration, where one chooses the candidates.
        exclude_tasks: Tasks neither queried nor retrieved.
        peft_config: Configuration of an adapter that is fine-tuned in place of all weights.
        processing_class: Tokenizer of the model.
    """
    settings = dataclasses.asdict(args)
    del settings["num_query_sets"], settings["num_labelled"], settings["label_by"]
    probe = retriever.retrieve(texts_of(examples.select([0, len(examples) - 1])), min(8, retriever.num_allowed))
    settings |= {
        "model": weights_hash(model),
        "examples": _hashes(examples),
        "upstream": _hashes(retriever.upstream)
        if isinstance(retriever.rows, RowsInMemory)
        else retriever.rows.identity(),
        "retriever": [
            type(retriever).__name__,
            *sorted(probe["id"][:]),
        ],  # the examples that it finds tell which it is
        "judge": function_name(utility_estimator),
        "num_trainable": sum(parameter.requires_grad for parameter in model.parameters()),
        "reranker": _identity(reranker),
        "exclude_tasks": sorted(exclude_tasks),
        "peft_config": peft_config.to_dict() if peft_config is not None else None,
    }
    if reading := chat_reading(model, processing_class):
        settings["chat"] = reading
    return json.loads(
        json.dumps(settings, default=lambda value: sorted(value) if isinstance(value, set) else str(value))
    )


def _hashes(examples: Dataset) -> list[str]:
    return [
        column_hash(examples, name)
        for name in ("id", "input", "references", MESSAGES)
        if name != MESSAGES or name in examples.column_names
    ]


def _identity(reranker: Reranker | None) -> dict[str, Any] | str | None:
    """A reranker's identity; the name of its class where that is all there is to tell."""
    if reranker is None:
        return None
    identity = reranker.identity()
    return identity["class"] if list(identity) == ["class"] else identity


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the settings into a new folder, or makes sure that those of an old one are the same.

    Args:
        folder: Folder of the query sets.
        settings: Settings of [`mining_settings`].

    Raises:
        ValueError: The folder holds query sets of other settings.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        write_json(path, settings)
        return
    refuse_other_settings(
        _with_current_names(read_json(path)),
        _with_current_names(settings),
        expected="query sets of the settings of this mining",
        found=lambda changed: f"that {folder} holds query sets that were mined with another {names_alone(changed)}",
        remedy="Mine with the same, or choose another folder.",
    )
    logger.warning("Continuing the mining in %s.", folder)


def _with_current_names(settings: dict[str, Any]) -> dict[str, Any]:
    return {_FORMER_NAMES.get(name, name): value for name, value in settings.items()}
