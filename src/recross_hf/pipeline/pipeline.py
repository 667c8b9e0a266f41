"""`ReCrossPipeline`: an upstream model, its index and its reranker in one folder; adapt, predict, save."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from huggingface_hub import CommitInfo, DatasetCard, ModelCard, RepoCard
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..adaptation.adapter import RetrievalAugmentedAdapter
from ..adaptation.arguments import AdaptationArguments
from ..adaptation.model_card import adapted_model_card
from ..adaptation.record import RETRIEVED_FILE, Adaptation
from ..core.distributed import process_state
from ..core.files import write_json, write_parquet
from ..core.output_folders import OF_MODELS, check_apart, check_not_of_others
from ..data.inputs import input_texts
from ..data.starter import STARTER_DIRECTORY
from ..hub.publishing import Publication, full_name
from ..hub.repository import HubAccess, Repository
from ..hub.safety import MANIFEST_FILE
from ..models.architectures import DECODER_ONLY, SEQUENCE_TO_SEQUENCE
from ..models.base import check_vocabulary
from ..models.generation import generate_texts
from ..reranking.cross_encoder import CrossEncoderReranker
from ..reranking.model_card import reranker_card
from ..reranking.reranker import Reranker
from ..retrieval.dataset_card import index_card
from ..retrieval.encoder import MeanPooledEncoder
from ..retrieval.index import UpstreamIndex
from ..retrieval.retriever import DenseRetriever, Retriever
from ..retrieval.vector_shards import IndexMismatchError
from .cards import pipeline_card, upstream_model_card
from .manifest import (
    ADAPTED_MODEL,
    INDEX,
    RERANKER,
    RETRIEVED,
    UPSTREAM_MODEL,
    Manifest,
    Part,
    describe_part,
    read_manifest,
    write_manifest,
)
from .parts import PipelineParts
from .publication import CARD_FILE, PipelinePublication

if TYPE_CHECKING:
    from peft import PeftConfig

    from ..adaptation.safety_gate import GateVerdict

PIPELINE = "pipeline"
LENGTHS_AND_BEAMS = ("max_input_length", "max_target_length", "generation_num_beams")
"""Settings of an adaptation that its predictions depend on, too."""


class ReCrossPipeline:
    """A multi-task model that adapts itself to an unseen task from a handful of unlabelled inputs.

    ```python
    pipeline = ReCrossPipeline.from_pretrained()  # the small one that comes with the package
    adapted = pipeline.adapt(inputs)  # a list of about sixteen inputs
    adapted("one more input")
    adapted.retrieved.to_pandas().groupby("task").size()
    adapted.save_pretrained("adapted")
    ```

    A saved or published pipeline opens its parts when they are first used: to predict, neither index nor reranker are
    fetched.

    Args:
        upstream_model: the multi-task model, sequence-to-sequence or decoder-only, which embeds inputs, too. It is never
            changed.
        processing_class: its tokenizer.
        index: the upstream examples.
        reranker: chooses among what the index finds, if there is one.
        adaptation: defaults of [`AdaptationArguments`] that suit this model.
        adapted_model: what predicts, if the pipeline has been adapted.
        retrieved: what it learned from, with `rank`, `query` and `distance`.

    Raises:
        ValueError: the tokenizer has tokens for which the model has no embeddings.

    Attributes:
        gate: what the safety gate said of an adaptation with `safety_gate=True`; None otherwise, and of a loaded pipeline.
    """

    gate: GateVerdict | None = None

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
        check_vocabulary(upstream_model, processing_class)
        self.upstream_model = upstream_model
        self.processing_class = processing_class
        self.index = index
        self.reranker = reranker
        self.adaptation = dict(adaptation or {})
        self.adapted_model = adapted_model
        self.retrieved = retrieved
        self._stored: PipelineParts | None = None
        self._adaptation: Adaptation | None = None

    # Of a pipeline that was loaded; assigned, they are what they were assigned.

    @cached_property
    def upstream_model(self) -> PreTrainedModel:
        """The multi-task model."""
        return self._stored.upstream_model

    @cached_property
    def processing_class(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return self._stored.processing_class

    @cached_property
    def index(self) -> UpstreamIndex:
        """The upstream examples."""
        return self._stored.index

    @cached_property
    def reranker(self) -> Reranker | None:
        """Chooses among what the index finds."""
        return self._stored.reranker

    @cached_property
    def adapted_model(self) -> PreTrainedModel | None:
        """What predicts, if the pipeline has been adapted."""
        return self._stored.adapted_model

    @cached_property
    def retrieved(self) -> Dataset | None:
        """What an adapted pipeline learned from."""
        return self._stored.retrieved

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
        check_apart(folder, {"the upstream model": upstream_model.name_or_path})
        check_vocabulary(upstream_model, processing_class)
        if state.is_main_process:
            upstream_model.save_pretrained(folder / UPSTREAM_MODEL)
            processing_class.save_pretrained(folder / UPSTREAM_MODEL)
        encoder = encoder or MeanPooledEncoder(upstream_model, processing_class)
        index = UpstreamIndex.build(upstream_dataset, encoder, folder / INDEX, **index_kwargs)
        if state.is_main_process:
            write_manifest(folder, (UPSTREAM_MODEL, INDEX), encoder.settings, dict(adaptation or {}))
        state.wait_for_everyone()
        return cls(upstream_model, processing_class, index, adaptation=adaptation)

    @property
    def folder(self) -> Path | None:
        """The folder that the pipeline was loaded from; None for one of the Hub or one that was made here."""
        home = None if self._stored is None else self._stored.home
        return home if isinstance(home, Path) else None

    @property
    def model(self) -> PreTrainedModel:
        """The model that predicts: the adapted one, or the upstream one."""
        return self.upstream_model if self.adapted_model is None else self.adapted_model

    def __call__(
        self,
        inputs: str | Iterable[str] | Dataset | Mapping[str, Any],
        *,
        show_progress: bool | None = None,
        **generate_kwargs: Any,
    ) -> str | list[str]:
        """Answers one input or many, in their order.

        Args:
            inputs: a string, or a row with the string "input", for one answer. For a list of answers: a list, tuple, generator,
                array, Series or column of strings, or a `Dataset`, DataFrame or mapping with the column "input". An empty string is
                an input, too; no inputs get no answers.
            show_progress: by default for more than 256 inputs.
            generate_kwargs: passed to `model.generate`, e.g. `num_beams=4`; by default as in the adaptation. A model that ships
                `do_sample` samples where `do_sample=True` is passed, and only there.

        Raises:
            TypeError: it is something else: a set has no order, and numbers are no texts.
            ExampleError: a table has no column "input".
        """
        if isinstance(inputs, Mapping) and isinstance(inputs.get("input"), str):
            inputs = inputs["input"]  # a row of a data set
        is_single = isinstance(inputs, str)
        texts = input_texts([inputs] if is_single else inputs)
        if not texts:
            return []
        args = self.arguments()
        beams = {} if args.generation_num_beams is None else {"num_beams": args.generation_num_beams}
        answers = generate_texts(
            self.model,
            self.processing_class,
            texts,
            max_input_length=args.max_input_length,
            show_progress=len(texts) > 256 if show_progress is None else show_progress,
            **{"max_new_tokens": args.max_target_length, **beams, **generate_kwargs},
        )
        return answers[0] if is_single else answers

    # ---- adapting --------------------------------------------------------------------------------------------------

    def adapter(
        self,
        inputs: Dataset | Iterable[str],
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
        self.check_output_dir(args.output_dir)
        rerank = args.rerank if rerank is None else rerank
        # With an upsampling ratio of 1 there is nothing to choose from.
        is_dense = retriever is None or retriever.is_dense
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
        inputs: Dataset | Iterable[str],
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

    def check_output_dir(self, output_dir: str | Path) -> None:
        """Refuses to write an adaptation into this pipeline's folder, or where something else lies; an earlier adaptation may.

        Raises:
            ValueError: the folder is the pipeline's, lies inside it or holds it.
            FileExistsError: it holds what no adaptation wrote.
        """
        if Path(output_dir) == Path(tempfile.gettempdir()):  # of `arguments`, for an adaptation that writes nothing
            return
        check_apart(output_dir, {"the pipeline": self.folder})
        check_not_of_others(output_dir, RETRIEVED_FILE, overwritten=(CARD_FILE, *OF_MODELS))

    def adapted(self, adapter: RetrievalAugmentedAdapter) -> ReCrossPipeline:
        """This pipeline with the model that `adapter` trained."""
        model = adapter.accelerator.unwrap_model(adapter.model)
        model.eval()
        # A copy, for parts that were not used yet stay where they are.
        pipeline = copy.copy(self)
        pipeline.adaptation = self.adaptation | {name: getattr(adapter.args, name) for name in LENGTHS_AND_BEAMS}
        pipeline.adapted_model = model
        pipeline.retrieved = adapter.retrieved
        pipeline._adaptation = adapter.adaptation
        pipeline.gate = adapter.gate
        return pipeline

    def arguments(self, **overrides: Any) -> AdaptationArguments:
        """The arguments that suit this pipeline, with some of them replaced."""
        # An adaptation writes nothing unless it is told where to; the base class makes its output folder all the same.
        defaults = {"report_to": "none", "output_dir": tempfile.gettempdir()}
        return AdaptationArguments(**{**defaults, **self.adaptation, **overrides})

    # ---- saving and loading ----------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the pipeline: `recross.json`, `upstream_model/`, `index/`, `reranker/`, and what an adaptation added.

        A folder beside it is filled first and takes its place when it is whole. A `README.md` that somebody wrote for the
        pipeline or a part of it is kept.
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
            for name in (PIPELINE, UPSTREAM_MODEL, INDEX, RERANKER):
                place = "" if name == PIPELINE else name
                written = folder / place / CARD_FILE
                card = written.read_bytes() if written.is_file() else self._card_beside(name)
                if card is not None and (partial / place).is_dir():
                    (partial / place / CARD_FILE).write_bytes(card)
            if folder.exists():
                folder.rename(replaced)
            partial.rename(folder)
        finally:
            if replaced.is_dir() and not folder.exists():
                replaced.rename(folder)  # the new one did not take its place
            shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)

    def _write(self, folder: Path) -> None:
        self._check_classes()
        parts = [UPSTREAM_MODEL, INDEX]
        parts += [RERANKER] * (self.reranker is not None)
        parts += [ADAPTED_MODEL] * (self.adapted_model is not None)
        for name in parts:
            self._write_part(name, folder / name)
        if self.retrieved is not None:
            parts.append(RETRIEVED)
            write_parquet(self.retrieved, folder / RETRIEVED_FILE)
        write_manifest(folder, parts, self.index.encoder.settings, self.adaptation)

    def _write_part(self, name: str, folder: Path) -> None:
        part = getattr(self, name)
        # The base of an adapter stays as it is: PEFT would ask the Hub whether its vocabulary was resized.
        part.save_pretrained(folder, **({"save_embedding_layers": False} if hasattr(part, "peft_config") else {}))
        if name in (UPSTREAM_MODEL, ADAPTED_MODEL):
            self.processing_class.save_pretrained(folder)
        (folder / CARD_FILE).unlink(missing_ok=True)  # PEFT writes one that says nothing

    def _check_classes(self) -> None:
        self._check_encoder_of_index()
        if not self._is_stored(INDEX) and not isinstance(self.index.encoder, MeanPooledEncoder):
            raise TypeError(
                "Expected an index made with the upstream model's own encoder, found one of "
                f"{type(self.index.encoder).__name__}: a pipeline folder cannot hold it. Save the index on its own."
            )
        if not self._is_stored(RERANKER) and not isinstance(self.reranker, CrossEncoderReranker | None):
            raise TypeError(
                f"Expected a CrossEncoderReranker, found {type(self.reranker).__name__}: a pipeline folder cannot hold it. Set "
                "`pipeline.reranker = None` and save, then pass it to `adapt`."
            )

    def _check_encoder_of_index(self) -> None:
        """Model and index go together; either may have been replaced since they were loaded."""
        if (self._is_stored(UPSTREAM_MODEL) and self._is_stored(INDEX)) or not isinstance(
            self.index.encoder, MeanPooledEncoder
        ):
            return
        settings = self.index.encoder.settings
        encoder = MeanPooledEncoder.from_settings(self.upstream_model, self.processing_class, settings)
        if self.index.config["encoder"].get("weights") != encoder.identity()["weights"]:
            raise IndexMismatchError(
                "Expected an index of this upstream model's vectors, found one of other weights: the model was replaced or trained "
                "since. Build the index again with `ReCrossPipeline.build`."
            )

    def _is_stored(self, name: str) -> bool:
        """Whether a part is the one that was loaded, or would be."""
        if self._stored is None or name not in self._stored:
            return False
        names = (name, "processing_class") if name in (UPSTREAM_MODEL, ADAPTED_MODEL) else (name,)
        opened = {attribute: vars(self)[attribute] for attribute in names if attribute in vars(self)}
        return all(
            value is vars(self._stored).get(attribute, self) and self._stored.holds(name, value)
            for attribute, value in opened.items()
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device | None = None,
        verify_checksums: bool = True,
    ) -> ReCrossPipeline:
        """Loads a pipeline from a folder or the Hub; with no name, the small starter that comes with the package.

        The parts are fetched, verified and opened when they are first used; what is at fault with one of them is said then.
        Under `accelerate launch`, each process loads a pipeline of the Hub; the main process says at which commit.

        Args:
            name_or_path: the folder, or the name of a repository, such as `org/name`.
            revision: on the Hub: a branch, a tag or a commit. With a commit, a cached pipeline loads without a request. The
                others are those of [`HubAccess`].
            dtype: of the models. The index must have been built with the same.
            device: of the models; Accelerate's choice by default.
            verify_checksums: compare every file with the checksum that was saved with it. A large file is read for that
                once, see [`files.is_intact`].

        Raises:
            FileNotFoundError: there is no such folder.
            HubError: the pipeline could not be had.
            ArtifactError: it is no pipeline, or a file of it is missing; of a part whose files are others, when it is first
                used.
            IndexMismatchError: model and index do not belong together, likewise.
        """
        pipeline = cls.__new__(cls)
        pipeline._stored = PipelineParts.open(
            STARTER_DIRECTORY if name_or_path is None else name_or_path,
            HubAccess(token, cache_dir, local_files_only, force_download),
            revision=revision,
            dtype=dtype,
            device=torch.device(device) if device is not None else process_state().device,
            verify_checksums=verify_checksums,
        )
        pipeline.adaptation = dict(pipeline._stored.manifest.adaptation)
        pipeline._adaptation = None
        return pipeline

    # ---- publishing ------------------------------------------------------------------------------------------------

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | bool | None = None,
        private: bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
        results: Mapping[str, Any] | None = None,
        license: str | None = None,
        cards: Mapping[str, RepoCard] | None = None,
    ) -> CommitInfo | None:
        """Publishes the pipeline: its parts in repositories of their own, then `recross.json`, which names their commits.

        Parts that were loaded from the Hub and not replaced stay where they are and are named at their commits. An adapted
        model lies at the root of the pipeline's repository, so that `AutoModel...` or `PeftModel` opens it by its name. If
        something fails on the way, the repository holds the old pipeline, whole; called again, this uploads what is missing.

        Args:
            repo_id: such as `org/name`; parts are `org/name-index` and so on.
            results: of the upstream model on its own tasks, see [`task_results`]; they go into its card.
            license: such as apache-2.0; it goes into the cards that are written.
            cards: in place of those that are written, by part: `upstream_model`, `index`, `reranker`; the pipeline's own is
                `pipeline`. A `README.md` in the folder of a part, or of a pipeline that is published as it was loaded, is kept
                as it is.

        The others are those of [`publish`].

        Returns:
            The commit to the pipeline's repository; None in other processes than the main one, which publishes.

        Raises:
            HubError: there is no permission or no network, somebody else wrote at the same time, or those who may read the pipeline
                may not read a part of it.
            TypeError: a part is of a class that cannot be saved.
        """
        if not process_state().is_main_process:
            return None
        with tempfile.TemporaryDirectory() as scratch:
            return self.publication(
                full_name(repo_id, token), Path(scratch), results=results, license=license, cards=cards
            ).push(
                token=token,
                private=private,
                revision=revision,
                create_pr=create_pr,
                commit_message=commit_message,
            )[-1]

    def publication(
        self,
        repo_id: str,
        scratch: Path,
        *,
        results: Mapping[str, Any] | None = None,
        license: str | None = None,
        cards: Mapping[str, RepoCard] | None = None,
    ) -> PipelinePublication:
        """What `push_to_hub` would write; no request is made, unless a part has to be fetched.

        Args:
            repo_id: with its namespace.
            scratch: an empty folder for files that are not on disk yet.

        The others are those of `push_to_hub`.
        """
        self._check_classes()
        cards = dict(cards or {})
        if unknown := sorted(set(cards) - {PIPELINE, UPSTREAM_MODEL, INDEX, RERANKER}):
            raise ValueError(
                f"Expected cards of {PIPELINE}, {UPSTREAM_MODEL}, {INDEX} or {RERANKER}, found {', '.join(unknown)}. Name them so."
            )

        def given_card(name: str) -> bytes | None:
            return str(cards[name]).encode() if name in cards else self._card_beside(name)

        new_parts, published_parts = {}, {}
        for name, repo_type, present in (
            (UPSTREAM_MODEL, "model", True),
            (INDEX, "dataset", True),
            (RERANKER, "model", self._is_stored(RERANKER) or self.reranker is not None),
        ):
            if not present:
                continue
            place = self._stored.repository(name) if self._is_stored(name) else None
            if place is not None:
                part = self._stored.manifest.parts[name]
                published_parts[name] = Part(part.sha256, part.path, place)
                continue
            part_id = _part_id(repo_id, name)
            files: dict[str, Path | bytes] = dict(self._files(name, scratch))
            files[CARD_FILE] = given_card(name) or str(self._part_card(name, repo_id, results, license)).encode()
            new_parts[name] = Publication(part_id, repo_type, files)
        is_adapted = self._is_adapted()
        retrieved_file = None
        if self.retrieved is not None:
            retrieved_file = scratch / RETRIEVED_FILE
            write_parquet(self.retrieved, retrieved_file)
        return PipelinePublication(
            repo_id,
            new_parts,
            published_parts,
            adapted_files=self._files(ADAPTED_MODEL, scratch) if is_adapted else {},
            retrieved_file=retrieved_file,
            encoder=self._stored.manifest.encoder if self._is_stored(INDEX) else self.index.encoder.settings,
            adaptation=self.adaptation,
            card=lambda places: given_card(PIPELINE) or str(self._card(repo_id, places, license)).encode(),
        )

    def _files(self, name: str, scratch: Path) -> dict[str, Path]:
        """Files of a part, those that were loaded or new ones."""
        if self._is_stored(name):
            files = self._stored.files(name)
        else:
            self._write_part(name, scratch / name)
            paths = sorted(path for path in (scratch / name).rglob("*") if path.is_file())
            files = {path.relative_to(scratch / name).as_posix(): path for path in paths}
        return {name: path for name, path in files.items() if name != CARD_FILE}

    def _card_beside(self, name: str) -> bytes | None:
        """The card that somebody wrote beside a part on disk, or beside all of them."""
        if self._stored is None or not isinstance(self._stored.home, Path):
            return None
        if name == PIPELINE:
            # That of another pipeline, where something was adapted or replaced since.
            parts = {UPSTREAM_MODEL, INDEX, *self._stored.manifest.parts}
            parts |= {ADAPTED_MODEL} if self._is_adapted() else set()
            folder = self._stored.home if all(map(self._is_stored, parts)) else None
        else:
            folder = self._stored.folder(name) if self._is_stored(name) else None
        path = None if folder is None else folder / CARD_FILE
        return path.read_bytes() if path is not None and path.is_file() else None

    def _part_card(
        self, name: str, repo_id: str, results: Mapping[str, Any] | None, license: str | None
    ) -> ModelCard | DatasetCard:
        part_id = _part_id(repo_id, name)
        if name == INDEX:
            return index_card(part_id, *self._indexed(), license=license)
        if name == RERANKER:
            return reranker_card(part_id, self._config(RERANKER), license=license)
        # An index on the Hub need not be fetched for it: it has a card of its own.
        is_here = not self._is_stored(INDEX) or self._stored.repository(INDEX) is None
        return upstream_model_card(
            part_id,
            self._config(UPSTREAM_MODEL),
            pipeline_id=repo_id,
            examples=self._indexed()[0] if is_here else None,
            results=results,
            license=license,
            max_new_tokens=self.arguments().max_target_length,
        )

    def _card(self, repo_id: str, places: Mapping[str, Repository], license: str | None) -> ModelCard:
        if not self._is_adapted():
            return pipeline_card(repo_id, places, adaptation=self.adaptation, license=license)
        config = self._config(UPSTREAM_MODEL)
        return adapted_model_card(
            repo_id,
            base_model=places[UPSTREAM_MODEL].repo_id,
            base_revision=places[UPSTREAM_MODEL].revision,
            adaptation=self._adaptation or Adaptation(None, self.adaptation),
            retrieved=self.retrieved,
            architecture=SEQUENCE_TO_SEQUENCE if config.is_encoder_decoder else DECODER_ONLY,
            is_peft="adapter_config.json" in self._stored.manifest.parts[ADAPTED_MODEL].sha256
            if self._is_stored(ADAPTED_MODEL)
            else hasattr(self.adapted_model, "peft_config"),
            parts=places,
            license=license,
        )

    def _is_adapted(self) -> bool:
        return self._is_stored(ADAPTED_MODEL) or self.adapted_model is not None

    # For cards no weights are read.

    def _config(self, name: str) -> PreTrainedConfig:
        if name not in vars(self):
            return self._stored.config(name)
        part = getattr(self, name)
        return part.model.config if name == RERANKER else part.config

    def _indexed(self) -> tuple[Dataset, dict[str, Any]]:
        return (self.index.dataset, self.index.config) if INDEX in vars(self) else self._stored.indexed()


def _part_id(repo_id: str, name: str) -> str:
    return f"{repo_id}-{name.replace('_', '-')}"


def save_reranker(pipeline_path: str | Path, reranker: CrossEncoderReranker) -> None:
    """Puts a reranker into a pipeline folder, in place of the one that it has; nothing else in it is written anew.

    Killed at any point, it leaves a pipeline that is whole, with the old reranker or the new one; called again, it completes.

    Raises:
        ArtifactError: the folder is no pipeline.
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
        write_json(folder / MANIFEST_FILE, Manifest(parts, manifest.encoder, manifest.adaptation).to_json())
    shutil.rmtree(folder / other, ignore_errors=True)
