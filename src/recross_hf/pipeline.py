"""`ReCrossPipeline`: an upstream model, its index and its reranker in one folder; adapt, predict, save."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from . import __version__
from .adapter import RETRIEVED_FILE, RetrievalAugmentedAdapter
from .architectures import load_model
from .arguments import AdaptationArguments
from .cross_encoder import CrossEncoderReranker
from .encoder import MeanPooledEncoder
from .files import read_json, sha256_of, write_json, write_parquet
from .generation import generate_texts
from .index import UpstreamIndex
from .processes import process_state
from .reranker import Reranker
from .retriever import DenseRetriever, Retriever
from .starter import STARTER_DIRECTORY

if TYPE_CHECKING:
    from peft import PeftConfig

FORMAT_VERSION = 1
MANIFEST_FILE = "recross.json"
UPSTREAM_MODEL, INDEX, RERANKER, ADAPTED_MODEL = "upstream_model", "index", "reranker", "adapted_model"
_LENGTHS_AND_BEAMS = ("max_input_length", "max_target_length", "generation_num_beams")


class PipelineFolderError(ValueError):
    """A folder is no pipeline, or not the one that was saved; the message says what is wrong with it."""


class ReCrossPipeline:
    """A multi-task model that adapts itself to an unseen task from a handful of unlabelled inputs.

    ```python
    pipeline = ReCrossPipeline.from_pretrained()  # the small one that comes with the package
    adapted = pipeline.adapt(inputs)  # a list of about sixteen inputs
    adapted("one more input")
    adapted.retrieved.to_pandas().groupby("task").size()
    adapted.save_pretrained("adapted")
    ```

    Args:
        upstream_model: the multi-task model, sequence-to-sequence or decoder-only, which embeds inputs, too. It is never
            changed.
        processing_class: its tokenizer.
        index: the upstream examples.
        reranker: chooses among what the index finds, if there is one.
        adaptation: defaults of [`AdaptationArguments`] that suit this model.
        adapted_model: what predicts, if the pipeline has been adapted.
        retrieved: what it learned from, with `rank`, `query` and `distance`.
    """

    def __init__(
        self,
        upstream_model: PreTrainedModel,
        processing_class: PreTrainedTokenizerBase,
        index: UpstreamIndex,
        *,
        reranker: Reranker | None = None,
        adaptation: dict[str, Any] | None = None,
        adapted_model: PreTrainedModel | None = None,
        retrieved: Dataset | None = None,
    ) -> None:
        self.upstream_model = upstream_model
        self.processing_class = processing_class
        self.index = index
        self.reranker = reranker
        self.adaptation = dict(adaptation or {})
        self.adapted_model = adapted_model
        self.retrieved = retrieved

    @classmethod
    def build(
        cls,
        upstream_model: PreTrainedModel,
        processing_class: PreTrainedTokenizerBase,
        upstream_dataset: Dataset,
        output_dir: str | Path,
        *,
        encoder: MeanPooledEncoder | None = None,
        adaptation: dict[str, Any] | None = None,
        **index_kwargs: Any,
    ) -> ReCrossPipeline:
        """Indexes upstream examples with the model's own encoder and writes a pipeline folder.

        A killed build continues when it is called again. Under `accelerate launch` all processes encode.

        Args:
            upstream_dataset: the examples to retrieve from ([`load_examples`]).
            output_dir: the folder to write.
            encoder: the model's encoder, where its length or precision matter; `MeanPooledEncoder(model, tokenizer)` by
                default.
            adaptation: settings that suit this model, the defaults of `adapt`.
            index_kwargs: passed to [`UpstreamIndex.build`]: `factory`, `metric_type`, ...
        """
        folder, state = Path(output_dir), process_state()
        if state.is_main_process:
            upstream_model.save_pretrained(folder / UPSTREAM_MODEL)
            processing_class.save_pretrained(folder / UPSTREAM_MODEL)
        encoder = encoder or MeanPooledEncoder(upstream_model, processing_class)
        index = UpstreamIndex.build(upstream_dataset, encoder, folder / INDEX, **index_kwargs)
        if state.is_main_process:
            parts = {UPSTREAM_MODEL: UPSTREAM_MODEL, INDEX: INDEX}
            write_manifest(folder, parts, encoder.settings, dict(adaptation or {}))
        state.wait_for_everyone()
        return cls(upstream_model, processing_class, index, adaptation=adaptation)

    @property
    def model(self) -> PreTrainedModel:
        """The model that predicts: the adapted one, or the upstream one."""
        return self.upstream_model if self.adapted_model is None else self.adapted_model

    def __call__(self, inputs: str | Sequence[str], **generate_kwargs: Any) -> str | list[str]:
        """Answers one input (a string) or many (a list of strings, in their order).

        Args:
            generate_kwargs: passed to `model.generate`, e.g. `num_beams=4`; by default as in the adaptation.
        """
        is_single = isinstance(inputs, str)
        texts = [inputs] if is_single else list(inputs)
        wrong = next((text for text in texts if not isinstance(text, str)), None)
        if wrong is not None:
            raise TypeError(f"Expected an input or a list of inputs that are strings, found {type(wrong).__name__}.")
        args = self.arguments()
        beams = {} if args.generation_num_beams is None else {"num_beams": args.generation_num_beams}
        answers = generate_texts(
            self.model,
            self.processing_class,
            texts,
            max_input_length=args.max_input_length,
            show_progress=len(texts) > 256,
            **{"max_new_tokens": args.max_target_length, **beams, **generate_kwargs},
        )
        return answers[0] if is_single else answers

    # ---- adapting --------------------------------------------------------------------------------------------------

    def adapter(
        self,
        inputs: Dataset | Sequence[str],
        args: AdaptationArguments | None = None,
        *,
        retriever: Retriever | None = None,
        reranker: Reranker | None = None,
        rerank: bool | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> RetrievalAugmentedAdapter:
        """The trainer behind [`adapt`], for those who want to evaluate, log or resume with it.

        `kwargs` go to [`RetrievalAugmentedAdapter`] (`eval_dataset`, `callbacks`, ...).
        """
        if reranker is not None and rerank is False:
            raise TypeError("Expected a `reranker` or `rerank=False`, found both.")
        args = args or self.arguments()
        rerank = args.rerank if rerank is None else rerank
        # The pipeline's own was trained on what dense retrieval finds; random examples are a baseline as they are. With an
        # upsampling ratio of 1 there is nothing to choose from.
        is_dense = retriever is None or isinstance(retriever, DenseRetriever)
        if rerank and reranker is None and is_dense and args.upsampling_ratio > 1:
            reranker = self.reranker
        return RetrievalAugmentedAdapter(
            self.upstream_model,
            args,
            retriever=retriever or DenseRetriever(self.index),
            reranker=reranker,
            query_dataset=inputs,
            processing_class=self.processing_class,
            peft_config=peft_config,
            **kwargs,
        )

    def adapt(
        self,
        inputs: Dataset | Sequence[str],
        args: AdaptationArguments | None = None,
        *,
        retriever: Retriever | None = None,
        reranker: Reranker | None = None,
        rerank: bool | None = None,
        peft_config: PeftConfig | None = None,
        **overrides: Any,
    ) -> ReCrossPipeline:
        """Adapts a copy of the upstream model to the task that the inputs are of.

        Args:
            inputs: unlabelled inputs, about sixteen: a list of strings, or whatever [`load_queries`] takes.
            args: all settings; by default those that the pipeline was saved with.
            retriever: another one than `DenseRetriever(pipeline.index)`.
            reranker: another one than the pipeline's own, which goes with dense retrieval and an `upsampling_ratio` above 1.
            rerank: whether to use the pipeline's own reranker, if it has one; as `args.rerank` says by default.
            peft_config: train a small adapter, e.g. `LoraConfig(task_type="SEQ_2_SEQ_LM")`; for a decoder-only model
                `task_type="CAUSAL_LM"`.
            overrides: single settings, e.g. `num_retrieved=256, seed=1`.

        Returns:
            A new pipeline that predicts with the adapted model; this one stays as it is.
        """
        if args is not None and overrides:
            raise TypeError(
                f"Expected `args` or single settings, found both ({', '.join(overrides)}). Set them in `args`."
            )
        adapter = self.adapter(
            inputs,
            args or self.arguments(**overrides),
            retriever=retriever,
            reranker=reranker,
            rerank=rerank,
            peft_config=peft_config,
        )
        adapter.train()
        return self.adapted(adapter)

    def adapted(self, adapter: RetrievalAugmentedAdapter) -> ReCrossPipeline:
        """This pipeline with the model that `adapter` trained."""
        model = adapter.accelerator.unwrap_model(adapter.model)
        model.eval()
        return ReCrossPipeline(
            self.upstream_model,
            self.processing_class,
            self.index,
            reranker=self.reranker,
            adaptation=self.adaptation | {name: getattr(adapter.args, name) for name in _LENGTHS_AND_BEAMS},
            adapted_model=model,
            retrieved=adapter.retrieved,
        )

    def arguments(self, **overrides: Any) -> AdaptationArguments:
        """The arguments that suit this pipeline, with some of them replaced."""
        # An adaptation writes nothing unless it is told where to; the base class makes its output folder all the same.
        defaults = {"report_to": "none", "output_dir": tempfile.gettempdir()}
        return AdaptationArguments(**{**defaults, **self.adaptation, **overrides})

    # ---- saving and loading ----------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the pipeline: `recross.json`, `upstream_model/`, `index/`, `reranker/`, and what an adaptation added.

        A folder beside it is filled first and takes its place when it is whole.
        """
        if not process_state().is_main_process:
            return
        folder = Path(save_directory).resolve()
        if folder.exists() and not (folder / MANIFEST_FILE).is_file() and any(folder.iterdir()):
            raise FileExistsError(
                f"{folder} holds something that is no pipeline. Save to another folder, or empty this one first."
            )
        partial, replaced = (
            folder.with_name(f".{folder.name}.{os.getpid()}.{name}") for name in ("partial", "replaced")
        )
        shutil.rmtree(partial, ignore_errors=True)
        try:
            self._write(partial)
            if folder.exists():
                folder.rename(replaced)
            partial.rename(folder)
        finally:
            if replaced.is_dir() and not folder.exists():
                replaced.rename(folder)  # the new one did not take its place
            shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)

    def _write(self, folder: Path) -> None:
        if not isinstance(self.index.encoder, MeanPooledEncoder):
            raise TypeError(
                "Expected an index made with the upstream model's own encoder, found one of "
                f"{type(self.index.encoder).__name__}: a pipeline folder cannot hold it. Save the index on its own."
            )
        if self.reranker is not None and not isinstance(self.reranker, CrossEncoderReranker):
            raise TypeError(
                f"Expected a CrossEncoderReranker, found {type(self.reranker).__name__}: a pipeline folder cannot hold it. Set "
                "`pipeline.reranker = None` and save, then pass it to `adapt`."
            )
        parts = {UPSTREAM_MODEL: UPSTREAM_MODEL, INDEX: INDEX}
        self.upstream_model.save_pretrained(folder / UPSTREAM_MODEL)
        self.processing_class.save_pretrained(folder / UPSTREAM_MODEL)
        self.index.save_pretrained(folder / INDEX)
        if self.reranker is not None:
            parts[RERANKER] = RERANKER
            self.reranker.save_pretrained(folder / RERANKER)
        if self.adapted_model is not None:
            parts[ADAPTED_MODEL] = ADAPTED_MODEL
            self.adapted_model.save_pretrained(folder / ADAPTED_MODEL)
            self.processing_class.save_pretrained(folder / ADAPTED_MODEL)
        if self.retrieved is not None:
            parts["retrieved"] = RETRIEVED_FILE
            write_parquet(self.retrieved, folder / RETRIEVED_FILE)
        write_manifest(folder, parts, self.index.encoder.settings, self.adaptation)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_pipeline_path: str | Path | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device | None = None,
        verify_checksums: bool = True,
    ) -> ReCrossPipeline:
        """Loads a pipeline folder; with no path, the small starter that comes with the package.

        Args:
            dtype: of the models. The index must have been built with the same.
            device: of the models; Accelerate's choice by default.
            verify_checksums: compare every file with the checksum that was saved with it.

        Raises:
            FileNotFoundError: there is no such folder.
            PipelineFolderError: the folder is no pipeline, or a file of it is missing or changed.
            IndexMismatchError: model and index do not belong together.
        """
        folder = _resolve(pretrained_pipeline_path)
        manifest = read_manifest(folder, verify_checksums=verify_checksums)
        parts = {name: folder / path for name, path in manifest["parts"].items()}
        device = torch.device(device) if device is not None else process_state().device
        model = load_model(parts[UPSTREAM_MODEL], dtype=dtype).to(device).eval()
        tokenizer = AutoTokenizer.from_pretrained(parts[UPSTREAM_MODEL])
        encoder = MeanPooledEncoder.from_settings(model, tokenizer, manifest["encoder"])
        index = UpstreamIndex.from_pretrained(parts[INDEX], encoder=encoder)
        return cls(
            model,
            tokenizer,
            index,
            reranker=CrossEncoderReranker.from_pretrained(parts[RERANKER], dtype=dtype, device=device)
            if RERANKER in parts
            else None,
            adaptation=manifest["adaptation"],
            adapted_model=_load_adapted(parts[ADAPTED_MODEL], model, dtype) if ADAPTED_MODEL in parts else None,
            retrieved=Dataset.from_parquet(str(parts["retrieved"])) if "retrieved" in parts else None,
        )


def save_reranker(pipeline_path: str | Path, reranker: CrossEncoderReranker) -> None:
    """Puts a reranker into a pipeline folder, in place of the one that it has; nothing else in it is written anew.

    Raises:
        PipelineFolderError: the folder is no pipeline.
    """
    folder = Path(pipeline_path)
    manifest = read_manifest(folder, verify_checksums=False)
    partial, replaced = (folder / f".{RERANKER}.{os.getpid()}.{name}" for name in ("partial", "replaced"))
    shutil.rmtree(partial, ignore_errors=True)
    reranker.save_pretrained(partial)
    if (folder / RERANKER).exists():
        (folder / RERANKER).rename(replaced)
    partial.rename(folder / RERANKER)
    shutil.rmtree(replaced, ignore_errors=True)
    write_manifest(folder, manifest["parts"] | {RERANKER: RERANKER}, manifest["encoder"], manifest["adaptation"])


def _resolve(name_or_path: str | Path | None) -> Path:
    """The folder of a pipeline. (Names on the Hub will be resolved here.)"""
    if name_or_path is None:
        return STARTER_DIRECTORY
    folder = Path(name_or_path)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Expected the folder of a pipeline, found none at {folder}. Pipelines are loaded from disk: download a "
            "published one first (`hf download`), or call `from_pretrained()` for the starter."
        )
    return folder


def _load_adapted(folder: Path, upstream_model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    if not (folder / "adapter_config.json").is_file():
        return load_model(folder, dtype=dtype).to(upstream_model.device).eval()
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ImportError("This pipeline holds a PEFT adapter: pip install 'recross_hf[peft]' to load it.") from error
    return PeftModel.from_pretrained(copy.deepcopy(upstream_model), folder).eval()


# ---- the manifest ------------------------------------------------------------------------------------------------------


def write_manifest(
    folder: Path, parts: dict[str, str], encoder_settings: dict[str, Any], adaptation: dict[str, Any]
) -> None:
    """Writes `recross.json`: the format, the parts, the settings, and a checksum of every file of a part."""
    files = [
        path
        for part in parts.values()
        for path in ([folder / part] if (folder / part).is_file() else sorted((folder / part).rglob("*")))
        if path.is_file()
    ]
    manifest = {
        "format_version": FORMAT_VERSION,
        "recross_hf_version": __version__,
        "parts": parts,
        "encoder": encoder_settings,
        "adaptation": adaptation,
        "sha256": {path.relative_to(folder).as_posix(): sha256_of(path) for path in files},
    }
    write_json(folder / MANIFEST_FILE, manifest)


def read_manifest(folder: Path, *, verify_checksums: bool = True) -> dict[str, Any]:
    """Reads and checks `recross.json`."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise PipelineFolderError(
            f"Expected a pipeline folder with {MANIFEST_FILE}, found none in {folder}. A pipeline is written by "
            "`ReCrossPipeline.save_pretrained`; a model alone is no pipeline."
        )
    manifest = read_json(path)
    if manifest.get("format_version") != FORMAT_VERSION:
        raise PipelineFolderError(
            f"Expected a pipeline of format {FORMAT_VERSION}, found {manifest.get('format_version')} in {folder} (written "
            f"by recross_hf {manifest.get('recross_hf_version')}). Install a version that reads it: pip install -U "
            "recross_hf."
        )
    for name, expected in manifest["sha256"].items():
        if not (folder / name).is_file():
            raise PipelineFolderError(f"Expected the file {name} in {folder}, found none. Download or save it again.")
        if verify_checksums and sha256_of(folder / name) != expected:
            raise PipelineFolderError(
                f"{folder / name} is not the file that was saved: its checksum differs. Download or save it again; if "
                "you changed it on purpose, pass `verify_checksums=False`."
            )
    return manifest
