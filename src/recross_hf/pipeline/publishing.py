"""What the publication of a pipeline holds: which parts are uploaded, which are on the Hub already, and their cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from huggingface_hub import DatasetCard, ModelCard, RepoCard
from transformers import PreTrainedConfig

from ..adaptation.model_card import adapted_model_card
from ..adaptation.record import RETRIEVED_FILE, Adaptation
from ..core.files import read_json, write_parquet
from ..hub.publishing import Publication
from ..hub.repository import Repository
from ..models.architectures import DECODER_ONLY, SEQUENCE_TO_SEQUENCE
from ..models.base import Architecture
from ..reranking.model_card import reranker_card
from ..retrieval.dataset_card import index_card
from .bases import ADAPTER_CONFIG, named_base, named_encoder, stored_base
from .cards import (
    base_model_card,
    encoder_card,
    lora_settings,
    pipeline_card,
    upstream_adapter_card,
    upstream_model_card,
)
from .lance_part import LanceReference
from .manifest import ADAPTED_MODEL, BASE_MODEL, ENCODER, INDEX, RERANKER, RETRIEVED, UPSTREAM_MODEL, Part
from .parts import PipelineParts
from .publication import CARD_FILE, PipelinePublication
from .saving import (
    PIPELINE,
    card_beside,
    check_can_be_saved,
    encoder_settings,
    write_part,
)
from .stored_files import TOKENIZER

_REPO_TYPES = {
    BASE_MODEL: "model",
    UPSTREAM_MODEL: "model",
    ENCODER: "model",
    INDEX: "dataset",
    RERANKER: "model",
}
"""Types of the repositories that parts have of their own."""


@dataclass(frozen=True)
class CardContent:
    """What the cards of a pipeline and its parts say beside what the parts themselves tell.

    Args:
        adaptation: Settings that the pipeline is adapted with.
        record: How the adapted model was adapted; None where that is not known any more.
        max_target_length: Tokens of the longest answer.
        results: Evaluation of the upstream model on its own tasks ([`task_results`]).
        license: License, such as apache-2.0.
        given: Cards that somebody wrote, by part; that of the pipeline is named `pipeline`.
    """

    adaptation: dict[str, Any]
    record: Adaptation | None
    max_target_length: int
    results: Mapping[str, Any] | None = None
    license: str | None = None
    given: Mapping[str, RepoCard] | None = None

    def __post_init__(self) -> None:
        if unknown := sorted({*(self.given or {})} - {PIPELINE, *_REPO_TYPES}):
            raise ValueError(
                f"Expected cards of {PIPELINE}, {UPSTREAM_MODEL}, {INDEX} or {RERANKER}, found {', '.join(unknown)}. Name them so."
            )


def plan_publication(parts: PipelineParts, repo_id: str, scratch: Path, content: CardContent) -> PipelinePublication:
    """Plans what publishing a pipeline writes; no request is made, unless a part has to be fetched.

    Args:
        parts: Parts of the pipeline. Those on the Hub that nobody modified stay where they are.
        repo_id: Name of the pipeline's repository, with its namespace.
        scratch: Empty folder for files that are not on disk yet.
        content: Content of the cards.

    Raises:
        IndexMismatchError: The upstream model was replaced or trained since the index was built.
        TypeError: A part is of a class that a pipeline folder cannot hold.
    """
    unmodified = parts.unmodified()
    check_can_be_saved(parts, unmodified)
    adapted_base = stored_base(parts, unmodified) if parts.has(ADAPTED_MODEL) else None
    new_parts: dict[str, Publication] = {}
    published_parts: dict[str, Part] = {}
    for name, repo_type in _REPO_TYPES.items():
        if not parts.has(name):
            continue
        named_of = {BASE_MODEL: named_base, ENCODER: named_encoder}.get(name)
        if named_of is not None and (named := named_of(parts, unmodified)) is not None:
            published_parts[name] = named
            continue
        if name == INDEX and (lance := parts.lance_index(scratch)) is not None:
            published_parts[name] = Part({}, lance=_on_the_hub(lance))
            continue
        repository = _repository(parts, name, unmodified)
        if parts.stored is not None and repository is not None:
            part = parts.stored.manifest.parts[name]
            published_parts[name] = Part(part.sha256, part.path, repository)
            continue
        files: dict[str, Path | bytes] = dict(_files(parts, name, unmodified, scratch))
        files[CARD_FILE] = _written_card(parts, name, unmodified, content) or _card_of_part(
            parts, name, repo_id, unmodified, content, files, published_parts, scratch
        )
        new_parts[name] = Publication(_part_id(repo_id, name), repo_type, files)

    def card(places: Mapping[str, Repository]) -> bytes:
        return _written_card(parts, PIPELINE, unmodified, content) or _card_of_pipeline(
            parts, repo_id, places, content, adapted_base or UPSTREAM_MODEL
        )

    return PipelinePublication(
        repo_id,
        new_parts,
        published_parts,
        adapted_files=_files(parts, ADAPTED_MODEL, unmodified, scratch) if parts.has(ADAPTED_MODEL) else {},
        retrieved_file=_files(parts, RETRIEVED, unmodified, scratch)[RETRIEVED_FILE] if parts.has(RETRIEVED) else None,
        encoder=encoder_settings(parts, unmodified),
        adaptation=content.adaptation,
        card=card,
        adapted_base=adapted_base,
        dtype=parts.dtype(unmodified),
    )


def _on_the_hub(lance: LanceReference) -> LanceReference:
    """Refuses an index that those who load the pipeline could not open."""
    if lance.repository is None:
        raise ValueError(
            f"Expected an index on the Hub in a pipeline that is published, found the Lance data set {lance.storage}, which stays where it "
            "is. Upload it (`hf upload-large-folder ORG/NAME FOLDER --repo-type dataset`), open it from there with "
            "`LanceIndex.from_pretrained('hf://datasets/ORG/NAME', encoder=...)`, and set `pipeline.index` to that."
        )
    return lance


def _examples(parts: PipelineParts, unmodified: frozenset[str], scratch: Path) -> Dataset | None:
    """The examples of the index, for cards; None where it is on the Hub, with a card of its own."""
    if _repository(parts, INDEX, unmodified) is not None or parts.lance_index(scratch) is not None:
        return None
    return parts.indexed()[0]


def _part_id(repo_id: str, name: str) -> str:
    return f"{repo_id}-{name.replace('_', '-')}"


def _repository(parts: PipelineParts, name: str, unmodified: frozenset[str]) -> Repository | None:
    """Where a part is on the Hub as it is now, if it is there."""
    return parts.stored.repository(name) if parts.stored is not None and name in unmodified else None


def _files(parts: PipelineParts, name: str, unmodified: frozenset[str], scratch: Path) -> dict[str, Path]:
    """Files of a part: the stored ones, or new ones in `scratch`."""
    if parts.stored is not None and name in unmodified:
        files = parts.stored.files(name)
        return {file: path for file, path in files.items() if file != CARD_FILE}
    if name == RETRIEVED:
        write_parquet(parts.part(RETRIEVED), scratch / RETRIEVED_FILE)
        return {RETRIEVED_FILE: scratch / RETRIEVED_FILE}
    folder = scratch / name
    write_part(parts, name, folder)
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- cards -------------------------------------------------------------------------------------------------------------


def _written_card(parts: PipelineParts, name: str, unmodified: frozenset[str], content: CardContent) -> bytes | None:
    """The card that somebody wrote: the given one, or the one beside the files."""
    if content.given is not None and name in content.given:
        return str(content.given[name]).encode()
    return card_beside(parts, name, unmodified)


def _card_of_part(
    parts: PipelineParts,
    name: str,
    repo_id: str,
    unmodified: frozenset[str],
    content: CardContent,
    files: Mapping[str, Path | bytes],
    published_parts: Mapping[str, Part],
    scratch: Path,
) -> bytes:
    part_id = _part_id(repo_id, name)
    card: ModelCard | DatasetCard
    if name == INDEX:
        card = index_card(part_id, *parts.indexed(), license=content.license)
    elif name == RERANKER:
        card = reranker_card(part_id, parts.config(RERANKER), license=content.license)
    elif name == ENCODER:
        card = encoder_card(part_id, repo_id, encoder_settings(parts, unmodified)["prompt"])
    elif name == BASE_MODEL:
        card = base_model_card(part_id, parts.config(UPSTREAM_MODEL), repo_id, _part_id(repo_id, UPSTREAM_MODEL))
    elif ADAPTER_CONFIG in files:
        named = published_parts.get(BASE_MODEL, Part({})).repository
        card = upstream_adapter_card(
            part_id,
            base_model=_part_id(repo_id, BASE_MODEL) if named is None else named.repo_id,
            base_revision=None if named is None else named.revision,
            architecture=_architecture(parts.config(UPSTREAM_MODEL)),
            processing_class=parts.part(TOKENIZER),
            settings=lora_settings(read_json(Path(str(files[ADAPTER_CONFIG])))),
            pipeline_id=repo_id,
            examples=_examples(parts, unmodified, scratch),
            license=content.license,
            max_new_tokens=content.max_target_length,
        )
    else:
        card = upstream_model_card(
            part_id,
            parts.config(UPSTREAM_MODEL),
            pipeline_id=repo_id,
            examples=_examples(parts, unmodified, scratch),
            results=content.results,
            license=content.license,
            max_new_tokens=content.max_target_length,
        )
    return str(card).encode()


def _architecture(config: PreTrainedConfig) -> Architecture:
    return SEQUENCE_TO_SEQUENCE if config.is_encoder_decoder else DECODER_ONLY


def _card_of_pipeline(
    parts: PipelineParts, repo_id: str, places: Mapping[str, Repository], content: CardContent, base: str
) -> bytes:
    if not parts.has(ADAPTED_MODEL):
        card = pipeline_card(repo_id, places, adaptation=content.adaptation, license=content.license)
        return str(card).encode()
    card = adapted_model_card(
        repo_id,
        base_model=places[base].repo_id,
        base_revision=places[base].revision,
        beneath=places[BASE_MODEL] if base == UPSTREAM_MODEL and BASE_MODEL in places else None,
        adaptation=content.record or Adaptation(None, content.adaptation),
        retrieved=parts.part(RETRIEVED),
        architecture=_architecture(parts.config(UPSTREAM_MODEL)),
        processing_class=parts.part(TOKENIZER),
        is_peft=parts.is_adapter(),
        parts=places,
        license=content.license,
    )
    return str(card).encode()
