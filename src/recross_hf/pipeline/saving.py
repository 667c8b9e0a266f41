"""Pipelines that are written to folders: whole or not at all, and without writing anew what lies in files already."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..adaptation.record import RETRIEVED_FILE
from ..core.files import write_json, write_parquet
from ..core.output_folders import check_not_within, folder_to_write
from ..hub.safety import MANIFEST_FILE
from ..models.adapters import is_peft_model, save_adapter
from ..models.base import keep_truncation_side
from ..models.exact_weights import stored_weights
from ..reranking.cross_encoder import CrossEncoderReranker
from ..retrieval.encoder import MeanPooledEncoder
from ..retrieval.sentence_encoder import SentenceEncoder
from ..retrieval.vector_shards import IndexMismatchError
from .bases import check_upstream_adapter, named_base, named_encoder, stored_base
from .manifest import (
    ADAPTED_MODEL,
    BASE_MODEL,
    ENCODER,
    INDEX,
    PARTS,
    RERANKER,
    RETRIEVED,
    UPSTREAM_MODEL,
    Manifest,
    Part,
    check_files,
    describe_part,
    read_manifest,
)
from .parts import PipelineParts
from .publication import CARD_FILE
from .stored_files import TOKENIZER

PIPELINE = "pipeline"
"""Name of the pipeline itself among those of its parts, where cards are named."""


def save_pipeline(parts: PipelineParts, adaptation: dict[str, Any], save_directory: str | Path) -> None:
    """Writes a pipeline folder, which takes the place of the one that is there when it is whole.

    Files of parts that are stored already are copied, and those of a pipeline that is saved onto itself are linked. What lies beside the
    old pipeline, such as reports and checkpoints, stays.

    Args:
        parts: Parts to write.
        adaptation: Settings that the pipeline is adapted with.
        save_directory: Folder to write.

    Raises:
        FileExistsError: The folder holds something that is no pipeline.
        IndexMismatchError: The upstream model was replaced or trained, or reads inputs otherwise, since the index was built.
        NotADirectoryError: The path is that of a file.
        TypeError: A part is of a class that a pipeline folder cannot hold.
        ValueError: The folder lies inside that of this pipeline.
    """
    folder = folder_to_write(save_directory).resolve()
    home = None if parts.stored is None else parts.stored.home
    check_not_within(folder, "the pipeline", home if isinstance(home, Path) else None)
    if folder.exists() and not (folder / MANIFEST_FILE).is_file() and any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} holds something that is no pipeline. Save to another folder, or empty this one first."
        )
    unmodified = parts.unmodified()
    check_can_be_saved(parts, unmodified)
    with _taking_the_place_of(folder) as partial:
        described = {name: _write(parts, name, unmodified, partial, folder) for name in PARTS if parts.has(name)}
        manifest = Manifest(described, encoder_settings(parts, unmodified), adaptation, parts.dtype(unmodified))
        write_json(partial / MANIFEST_FILE, manifest.to_json())
        for name in (PIPELINE, UPSTREAM_MODEL, INDEX, RERANKER):
            below = "" if name == PIPELINE else name
            there = folder / below / CARD_FILE
            card = there.read_bytes() if there.is_file() else card_beside(parts, name, unmodified)
            if card is not None and (partial / below).is_dir():
                (partial / below / CARD_FILE).write_bytes(card)


@contextmanager
def _taking_the_place_of(folder: Path) -> Iterator[Path]:
    """A folder to fill, which is renamed to `folder` at the end; if anything fails before, `folder` stays as it was."""
    # Processes of several machines, or a container's of today and of yesterday, may have the same number.
    own = f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}"
    partial, replaced = (folder.with_name(f"{own}.{name}") for name in ("partial", "replaced"))
    try:
        yield partial
        if folder.exists():
            folder.rename(replaced)
        partial.rename(folder)
        for path in _beside(replaced, folder):
            if not (folder / path.name).exists():
                path.rename(folder / path.name)
    finally:
        if replaced.is_dir() and not folder.exists():
            replaced.rename(folder)  # the new folder did not take its place
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def _beside(folder: Path, new: Path) -> list[Path]:
    """What lies in a pipeline's folder and is no part of it, nor of the one that takes its place."""
    if not (folder / MANIFEST_FILE).is_file():
        return []
    parts = [*read_manifest(folder).parts.values()]
    own = {
        PurePosixPath(part.path, name).parts[0] for part in parts if part.repository is None for name in part.sha256
    }
    # A Lance data set in the folder is not written with the pipeline, whatever its name is.
    stays = {
        PurePosixPath(part.lance.storage).parts[0]
        for part in [*parts, *read_manifest(new).parts.values()]
        if part.lance and part.lance.is_within
    }
    return [path for path in folder.iterdir() if path.name not in {*own, *PARTS, MANIFEST_FILE} - stays]


def _write(parts: PipelineParts, name: str, unmodified: frozenset[str], partial: Path, folder: Path) -> Part:
    """Writes a part into the folder `partial`, which is to become `folder`, and describes it."""
    below = "." if name == RETRIEVED else name
    if name == BASE_MODEL and (named := named_base(parts, unmodified)) is not None:
        return named  # whoever has the pipeline has the Hub's cache, or the Hub
    if name == ENCODER and (named := named_encoder(parts, unmodified)) is not None:
        return named
    if name == INDEX and (lance := parts.lance_index(folder)) is not None:
        return Part({}, lance=lance)  # it stays where it is
    base = stored_base(parts, unmodified) if name == ADAPTED_MODEL else None
    if parts.stored is not None and name in unmodified:
        _copy(parts.stored.files(name), partial / below, replaced=folder)
        if parts.stored.verify_checksums:
            part = Part(parts.stored.manifest.parts[name].sha256, below, base=base)
            check_files(partial, part)  # somebody may have written into the files since they were opened
            return part
    elif name == RETRIEVED:
        write_parquet(parts.part(RETRIEVED), partial / RETRIEVED_FILE)
    else:
        write_part(parts, name, partial / below)
    return replace(describe_part(partial, name), base=base)


def write_upstream(parts: PipelineParts, folder: Path) -> dict[str, Part]:
    """Writes an upstream model from memory, with its base if it is an adapter and the base is not on the Hub."""
    names = [name for name in (BASE_MODEL, UPSTREAM_MODEL) if parts.has(name)]
    return {name: _write(parts, name, frozenset(), folder, folder) for name in names}


def write_encoder(parts: PipelineParts, folder: Path) -> dict[str, Part]:
    """Writes the index's encoder, if it is not the upstream model's own; one that is on the Hub is named."""
    return {ENCODER: _write(parts, ENCODER, frozenset(), folder, folder)} if parts.has(ENCODER) else {}


def _copy(files: dict[str, Path], folder: Path, *, replaced: Path) -> None:
    """Copies files by their names into `folder`; those that lie in the folder that is replaced are linked instead.

    The old folder is deleted as soon as the new one stands in its place: no two folders share a file for longer.
    """
    for name, path in files.items():
        source, target = path.resolve(), folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_relative_to(replaced):
            with suppress(OSError):  # a file system without links
                os.link(source, target)
                continue
        shutil.copyfile(source, target)


def write_part(parts: PipelineParts, name: str, folder: Path) -> None:
    """Writes a model with the tokenizer, the index or the reranker from memory, without a card."""
    part = parts.part(name)
    if is_peft_model(part):
        save_adapter(part, folder)
    elif name in (BASE_MODEL, UPSTREAM_MODEL, ADAPTED_MODEL):
        part.save_pretrained(folder, state_dict=stored_weights(part))
    else:
        part.save_pretrained(folder)
    if name in (UPSTREAM_MODEL, ADAPTED_MODEL):
        tokenizer = parts.part(TOKENIZER)
        keep_truncation_side(tokenizer)
        tokenizer.save_pretrained(folder)
    (folder / CARD_FILE).unlink(missing_ok=True)  # PEFT writes a card that says nothing


def encoder_settings(parts: PipelineParts, unmodified: frozenset[str]) -> dict[str, Any]:
    """The settings of the index's encoder; an index that is stored as it is need not be opened for them."""
    if parts.stored is not None and INDEX in unmodified:
        return parts.stored.manifest.encoder
    encoder = parts.part(INDEX).encoder
    settings: dict[str, Any] = encoder.settings
    if isinstance(encoder, SentenceEncoder):
        # How the model reads inputs, which an encoder of its own does not say.
        own = MeanPooledEncoder(parts.part(UPSTREAM_MODEL), parts.part(TOKENIZER)).settings
        settings |= {name: value for name, value in own.items() if name == "chat_template"}
    return settings


def card_beside(parts: PipelineParts, name: str, unmodified: frozenset[str]) -> bytes | None:
    """The card that somebody wrote beside a part in a folder, or beside all of them.

    A part that was replaced or changed since has none, and neither has a pipeline of which that is true for any part.

    Args:
        parts: Parts of the pipeline.
        name: Name of the part, or `PIPELINE`.
        unmodified: Names of the parts that are stored as they are ([`PipelineParts.unmodified`]).
    """
    stored = parts.stored
    if stored is None or not isinstance(stored.home, Path):
        return None
    if name == PIPELINE:
        is_as_loaded = unmodified == set(stored.manifest.parts) == {name for name in PARTS if parts.has(name)}
        folder = stored.home if is_as_loaded else None
    else:
        folder = stored.folder(name) if name in unmodified else None
    path = None if folder is None else folder / CARD_FILE
    return path.read_bytes() if path is not None and path.is_file() else None


def check_can_be_saved(parts: PipelineParts, unmodified: frozenset[str]) -> None:
    """Refuses parts that a pipeline folder cannot hold.

    Args:
        parts: Parts of the pipeline.
        unmodified: Names of the parts that are stored as they are ([`PipelineParts.unmodified`]).

    Raises:
        IndexMismatchError: The upstream model was replaced or trained, or reads inputs otherwise, since the index was built.
        TypeError: A part is of a class that a pipeline folder cannot hold.
    """
    if UPSTREAM_MODEL not in unmodified:
        check_upstream_adapter(parts.part(UPSTREAM_MODEL))
    if not {UPSTREAM_MODEL, INDEX, *([BASE_MODEL] if parts.has(BASE_MODEL) else [])} <= unmodified:
        check_encoder_of_index(parts)
    reranker = None if RERANKER in unmodified else parts.part(RERANKER)
    if reranker is not None and not reranker.can_be_saved:
        raise TypeError(
            f"Expected a CrossEncoderReranker, found {type(reranker).__name__}: a pipeline folder cannot hold it. Set "
            "`pipeline.reranker = None` and save, then pass it to `adapt`."
        )


def check_encoder_of_index(parts: PipelineParts) -> None:
    """Model and index go together; either may have been replaced since they were loaded."""
    index = parts.part(INDEX)
    if isinstance(index.encoder, SentenceEncoder):
        return  # it comes with the index, which was checked with it
    if not isinstance(index.encoder, MeanPooledEncoder):
        raise TypeError(
            "Expected an index made with the upstream model's own encoder or a SentenceEncoder, found one of "
            f"{type(index.encoder).__name__}: a pipeline folder cannot hold it. Save the index on its own."
        )
    model, tokenizer = parts.part(UPSTREAM_MODEL), parts.part(TOKENIZER)
    encoder = MeanPooledEncoder.from_settings(model, tokenizer, index.encoder.settings)
    expected, actual = index.config["encoder"], encoder.identity()
    differing = [name for name in sorted({*expected, *actual}) if expected.get(name) != actual.get(name)]
    if "weights" in differing:
        raise IndexMismatchError(
            "Expected an index of this upstream model's vectors, found one of other weights: the model was replaced or trained "
            "since. Build the index again with `ReCrossPipeline.build`."
        )
    if differing:
        raise IndexMismatchError(
            f"Expected an index of this upstream model's vectors, found one of another {', '.join(differing)}: how the tokenizer reads inputs "
            "was changed since. Put that back, or build the index again with `ReCrossPipeline.build`."
        )


def save_reranker(pipeline_path: str | Path, reranker: CrossEncoderReranker) -> None:
    """Puts a reranker into a pipeline folder, in place of the one that it has; nothing else in the folder is written anew.

    Killed at any point, it leaves a whole pipeline, with the old reranker or the new one; called again, it completes.

    Args:
        pipeline_path: Folder of the pipeline.
        reranker: The trained reranker.

    Raises:
        ArtifactError: The folder is no pipeline.
    """
    folder = Path(pipeline_path)
    manifest = read_manifest(folder)
    other = f"{RERANKER}.new"
    is_in_place = RERANKER in manifest.parts and manifest.parts[RERANKER].path == RERANKER
    # The folder that the manifest names is not touched: the new one is written elsewhere, then named, and once more here.
    for name in (other, RERANKER) if is_in_place else (RERANKER,):
        shutil.rmtree(folder / name, ignore_errors=True)
        reranker.save_pretrained(folder / name)
        parts = {**manifest.parts, RERANKER: describe_part(folder, name)}
        write_json(folder / MANIFEST_FILE, replace(manifest, parts=parts).to_json())
    shutil.rmtree(folder / other, ignore_errors=True)
