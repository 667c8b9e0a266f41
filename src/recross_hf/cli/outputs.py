"""Where a command writes: what stands in its way, the manifest that makes a pipeline of an adapted model, and its report."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..adaptation.adapter import RetrievalAugmentedAdapter
from ..adaptation.model_card import loading_code
from ..adaptation.record import RETRIEVED_FILE
from ..adaptation.report import REPORT_FILE, SHOWN_INPUTS, AdaptationReport, Answers
from ..core.distributed import process_state
from ..core.files import sha256_of, write_atomically, write_json
from ..core.output_folders import OF_MODELS, WRITTEN_BY
from ..hub.repository import Repository
from ..hub.safety import MANIFEST_FILE, SAFE_SUFFIXES
from ..models.adapters import is_on_merged
from ..pipeline.bases import base_of_adapter
from ..pipeline.manifest import (
    ADAPTED_MODEL,
    BASE_MODEL,
    INDEX,
    RETRIEVED,
    UPSTREAM_MODEL,
    Manifest,
    Part,
    read_manifest,
)
from ..pipeline.pipeline import ReCrossPipeline
from ..pipeline.publication import CARD_FILE

OVERWRITE = (
    "Write into an output folder that holds something else: what tells of it goes, files of the same names are replaced, and others "
    "stay."
)
LARGE = 32 << 20
"""Bytes from which on a file of a part is linked to, where the file system can, and not copied."""
MOST_COPIED = 1 << 30


def make_way(output_dir: str | Path, *, others: Iterable[str] = ()) -> None:
    """Takes away what would make `check_not_of_others` refuse a folder: the files that tell what it holds, and models."""
    state = process_state()
    if state.is_main_process:
        for name in (*WRITTEN_BY, *OF_MODELS, *others):
            (Path(output_dir) / name).unlink(missing_ok=True)
    state.wait_for_everyone()


def write_report(
    adapter: RetrievalAugmentedAdapter,
    output_dir: Path,
    results: dict[str, Any],
    answers: Answers | None,
    *,
    opens_as_pipeline: bool,
) -> None:
    """Writes the page on what changed and why, which is for those who have no labels."""
    is_peft = hasattr(adapter.model, "peft_config")
    models = [output_dir / name for name in (BASE_MODEL, UPSTREAM_MODEL) if opens_as_pipeline]
    own = next((folder for folder in models if (folder / "config.json").is_file()), None)
    base, beneath = str(own or adapter.model.config.name_or_path), None
    if opens_as_pipeline and is_on_merged(adapter.model):
        base, beneath = str(output_dir / UPSTREAM_MODEL), read_manifest(output_dir).parts[BASE_MODEL].repository
        beneath = beneath or Repository(str(output_dir / BASE_MODEL))
    adaptation = adapter.adaptation
    report = AdaptationReport(
        results=results,
        settings={**adaptation.settings, **adaptation.decoding},
        inputs=adapter.query_dataset["input"][:SHOWN_INPUTS],
        answers=answers,
        retrieved=adapter.retrieved,
        folder=str(output_dir),
        opens_as_pipeline=opens_as_pipeline,
        loading_code=loading_code(
            str(output_dir),
            base,
            None,
            adapter.architecture,
            adapter.processing_class,
            is_peft,
            adaptation.settings,
            beneath=beneath,
        ),
        is_peft=is_peft,
    )
    page = report.to_html()
    write_atomically(output_dir / REPORT_FILE, lambda partial: partial.write_text(page, encoding="utf-8"))


def write_adapted_manifest(pipeline: ReCrossPipeline, adapted: ReCrossPipeline, output_dir: Path) -> str | None:
    """Makes a pipeline of a folder with an adapted model: `ReCrossPipeline.from_pretrained` opens it, too.

    Parts on the Hub are named. Those of a folder are put beside the model, since a pipeline folder holds all that it needs: small
    files are copied, large ones are linked to (hard links take no space), or copied on another file system if they are not too large.

    Args:
        pipeline: what was adapted.
        adapted: what came of it, whose model lies in the root of the folder.
        output_dir: the folder.

    Returns:
        None, or why no manifest was written, as a sentence.
    """
    if pipeline.folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            published = pipeline.publication("local/adapted", Path(scratch))
        parts, encoder, dtype = dict(published.published_parts), published.encoder, published.dtype
    else:
        manifest = read_manifest(pipeline.folder)
        parts, encoder, dtype = dict(manifest.parts), manifest.encoder, manifest.dtype
    parts = {name: part for name, part in parts.items() if name not in (ADAPTED_MODEL, RETRIEVED)}
    if (lance := adapted.parts.lance_index(output_dir)) is not None:
        parts[INDEX] = Part({}, lance=lance)  # it stays where it is
    here = {name: part for name, part in parts.items() if part.repository is None and part.lance is None}
    sources = [Path(pipeline.folder or "") / part.path / file for part in here.values() for file in part.sha256]
    copied = sum(source.stat().st_size for source in sources if not _can_link(source, output_dir))
    if copied > MOST_COPIED:
        return (
            f"{MANIFEST_FILE} was left out: the parts of the pipeline lie on another file system, and {copied / 2**30:.1f} GiB would be "
            "copied. Use an output folder beside the pipeline to have it."
        )
    for name, part in here.items():
        _put_beside(Path(pipeline.folder or "") / part.path, part, output_dir / name)
        parts[name] = Part(part.sha256, name)
    # transformers reads a folder as a whole, so that everything beside the model belongs to it.
    beside = (MANIFEST_FILE, RETRIEVED_FILE, CARD_FILE)
    files = [path for path in sorted(output_dir.iterdir()) if path.is_file() and path.name not in beside]
    own = {path.name: sha256_of(path) for path in files if path.suffix in SAFE_SUFFIXES}
    base = base_of_adapter(adapted.adapted_model, has_base=BASE_MODEL in parts)
    parts |= {
        ADAPTED_MODEL: Part(own, base=base),
        RETRIEVED: Part({RETRIEVED_FILE: sha256_of(output_dir / RETRIEVED_FILE)}),
    }
    write_json(output_dir / MANIFEST_FILE, Manifest(parts, encoder, adapted.adaptation, dtype).to_json())
    return None


def _can_link(source: Path, output_dir: Path) -> bool:
    return source.stat().st_size >= LARGE and source.stat().st_dev == output_dir.stat().st_dev


def _put_beside(source: Path, part: Part, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for file in part.sha256:
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if _can_link(source / file, folder):
            try:
                os.link(source / file, target)
                continue
            except OSError:  # the file system has no links, or the file is somebody else's
                pass
        shutil.copyfile(source / file, target)
