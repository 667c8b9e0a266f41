"""`ReCrossPipeline`: an upstream model, its index and its reranker in one folder; adapt, predict, save."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..adaptation.adapter import RetrievalAugmentedAdapter
from ..adaptation.arguments import AdaptationArguments
from ..adaptation.retrieval import check_parts
from ..core.distributed import agreed, process_state
from ..core.output_folders import check_apart, folder_to_write
from ..models.base import check_vocabulary
from ..reranking.reranker import Reranker
from ..retrieval.encoder import MeanPooledEncoder
from ..retrieval.index import UpstreamIndex
from ..retrieval.lance.index import LanceIndex
from ..retrieval.lance.retriever import dense_retriever
from ..retrieval.retriever import Retriever
from ..retrieval.sentence_encoder import SentenceEncoder
from .bases import check_upstream_adapter
from .manifest import INDEX, Part, write_manifest
from .parts import PipelineParts
from .prediction import LENGTHS_AND_BEAMS, PredictingPipeline
from .saving import check_encoder_of_index, encoder_settings, write_encoder, write_upstream

if TYPE_CHECKING:
    from peft import PeftConfig

    from ..adaptation.safety_gate import GateVerdict


class ReCrossPipeline(PredictingPipeline):
    """A multi-task model that adapts itself to an unseen task from a handful of unlabelled inputs (arXiv 2204.07937).

    ```python
    pipeline = ReCrossPipeline.from_pretrained()  # the small one that comes with the package
    adapted = pipeline.adapt(inputs)  # a list of about sixteen inputs
    adapted("one more input")
    adapted.retrieved.to_pandas().groupby("task").size()
    adapted.save_pretrained("adapted")
    ```

    A saved or published pipeline opens its parts when they are first used: to predict, neither index nor reranker are
    fetched. Parts are attributes, and assigning one replaces it. Adapters of many tasks share one base ([`add_adapted`]).

    Args:
        upstream_model: The multi-task model, of either kind, which embeds inputs, too. It is never changed.
        processing_class: The model's tokenizer.
        index: The upstream examples and their vectors.
        reranker: Scores the examples that dense retrieval finds; none by default.
        adaptation: Defaults of [`AdaptationArguments`] that suit this model.
        adapted_model: The model that predicts, if the pipeline has been adapted.
        retrieved: The examples that the adapted model learned from, with `rank`, `query` and `distance`.

    Raises:
        ValueError: The tokenizer has tokens for which the model has no embeddings.

    Attributes:
        gate: The verdict of the safety gate on an adaptation; None where it was off, and for a loaded pipeline.
    """

    gate: GateVerdict | None = None

    def __init__(
        self,
        upstream_model: PreTrainedModel,
        processing_class: PreTrainedTokenizerBase,
        index: UpstreamIndex | LanceIndex,
        *,
        reranker: Reranker | None = None,
        adaptation: dict[str, Any] | None = None,
        adapted_model: PreTrainedModel | None = None,
        retrieved: Dataset | None = None,
    ) -> None:
        check_vocabulary(upstream_model, processing_class)
        parts = PipelineParts().replaced(
            upstream_model=upstream_model,
            processing_class=processing_class,
            index=index,
            reranker=reranker,
            adapted_model=adapted_model,
            retrieved=retrieved,
        )
        super().__init__(parts, adaptation)

    @classmethod
    def build(
        cls,
        upstream_model: PreTrainedModel,
        processing_class: PreTrainedTokenizerBase,
        upstream_dataset: Dataset | LanceIndex,
        output_dir: str | Path,
        *,
        encoder: MeanPooledEncoder | SentenceEncoder | None = None,
        adaptation: dict[str, Any] | None = None,
        **index_kwargs: Any,
    ) -> ReCrossPipeline:
        """Indexes upstream examples and writes a pipeline folder (paper, section 3.2).

        A killed build continues when it is called again. Under `accelerate launch` all processes encode.

        Args:
            upstream_model: The multi-task model, whole or a LoRA adapter on a base (a `PeftModel`), which are stored apart.
            processing_class: The model's tokenizer.
            upstream_dataset: Examples to retrieve from ([`load_examples`]), or a [`LanceIndex`] of them, which stays where it is: the folder
                names its version.
            output_dir: Folder to write.
            encoder: Encoder of the inputs: the model's own, `MeanPooledEncoder(model, tokenizer)`, by default; or a
                [`SentenceEncoder`], which the pipeline keeps as a part, named by its commit where it is from the Hub.
            adaptation: Settings that suit this model, the defaults of `adapt`.
            index_kwargs: Arguments of [`UpstreamIndex.build`]: `factory`, `metric_type`, ...

        Raises:
            ExampleError: The examples do not have the schema's columns.
            IndexMismatchError: The folder holds the shards of another build.
            ValueError: The folder is that of the upstream model, the tokenizer has tokens without embeddings, or the upstream
                model's adapter is no plain LoRA.
        """
        folder, state = folder_to_write(output_dir), process_state()
        check_apart(folder, {"the upstream model": upstream_model.name_or_path})
        check_vocabulary(upstream_model, processing_class)
        check_upstream_adapter(upstream_model)
        parts = PipelineParts().replaced(upstream_model=upstream_model, processing_class=processing_class)
        if isinstance(upstream_dataset, LanceIndex):
            if index_kwargs or encoder not in (None, upstream_dataset.encoder):
                raise TypeError(
                    f"Expected a LanceIndex alone, which has its encoder and settings, found {', '.join([*index_kwargs] or ['encoder'])} too. "
                    "Leave them out."
                )
            check_encoder_of_index(parts.replaced(index=upstream_dataset))
        described = write_upstream(parts, folder) if state.is_main_process else {}
        index: UpstreamIndex | LanceIndex
        if isinstance(upstream_dataset, LanceIndex):
            index = upstream_dataset
        else:
            encoder = encoder or MeanPooledEncoder(upstream_model, processing_class)
            index = UpstreamIndex.build(upstream_dataset, encoder, folder / INDEX, **index_kwargs)
        if state.is_main_process:
            parts = parts.replaced(index=index)
            described |= write_encoder(parts, folder)
            if (lance := parts.lance_index(folder)) is not None:
                described[INDEX] = Part({}, lance=lance)
            own = () if INDEX in described else (INDEX,)
            write_manifest(
                folder,
                own,
                encoder_settings(parts, frozenset()),
                dict(adaptation or {}),
                described=described,
                dtype=parts.dtype(frozenset()),
            )
        state.wait_for_everyone()
        return cls(upstream_model, processing_class, index, adaptation=adaptation)

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
        """The trainer behind [`adapt`], for those who want to evaluate, log or resume with it; the arguments are the same.

        Args:
            inputs: Unlabelled inputs of the task.
            args: All settings; those of the pipeline by default. Like any trainer, this one makes `args.output_dir`.
            retriever: Another retriever than `DenseRetriever(pipeline.index)`.
            reranker: Another reranker than the pipeline's own.
            rerank: Whether the pipeline's own reranker is used.
            peft_config: Configuration of an adapter that is trained in place of all weights.
            kwargs: Further arguments of [`RetrievalAugmentedAdapter`]: `eval_dataset`, `callbacks`, ...

        Raises:
            FileExistsError: The output folder holds what no adaptation wrote.
            ValueError: The output folder is the pipeline's, lies inside it or holds it.
        """
        if reranker is not None and rerank is False:
            raise TypeError("Expected a `reranker` or `rerank=False`, found both. Leave one of them out.")
        check_parts(retriever, reranker, peft_config)
        args = args or self.arguments()
        self.check_output_dir(str(args.output_dir))
        rerank = args.rerank if rerank is None else rerank
        # The pipeline's own was trained on what dense retrieval finds; random examples are a baseline as they are. With an
        # upsampling ratio of 1 there is nothing to choose from.
        is_dense = retriever is None or retriever.is_dense
        if rerank and reranker is None and is_dense and args.upsampling_ratio > 1:
            reranker = self.reranker
        return RetrievalAugmentedAdapter(
            self.upstream_model,
            args,
            retriever=retriever or dense_retriever(self.index),
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
        """Adapts a copy of the upstream model to the task of the inputs (paper, section 3 and figure 2).

        Nothing is written unless an `output_dir` is given, for checkpoints.

        Args:
            inputs: Unlabelled inputs, about sixteen: a list of strings, or whatever [`load_queries`] takes.
            args: All settings; those that the pipeline was saved with by default.
            retriever: Another retriever than `DenseRetriever(pipeline.index)`.
            reranker: Another reranker than the pipeline's own, which goes with dense retrieval and an `upsampling_ratio` above 1.
            rerank: Whether the pipeline's own reranker is used, if there is one; as `args.rerank` says by default.
            peft_config: Configuration of a small adapter that is trained in place of all weights, e.g.
                `LoraConfig(task_type="SEQ_2_SEQ_LM")`; for a decoder-only model `task_type="CAUSAL_LM"`.
            overrides: Single settings, e.g. `num_retrieved=256, seed=1`.

        Returns:
            A new pipeline that predicts with the adapted model; this one stays as it is.

        Raises:
            FileExistsError: The output folder holds what no adaptation wrote.
            TypeError: Both `args` and single settings are given, or both a `reranker` and `rerank=False`.
            ValueError: The output folder is the pipeline's, lies inside it or holds it.
        """
        if args is not None and overrides:
            raise TypeError(
                f"Expected `args` or single settings, found both ({', '.join(overrides)}). Set them in `args`."
            )
        with _scratch_folder() as scratch:
            adapter = self.adapter(
                inputs,
                args or self.arguments(**{"output_dir": scratch, **overrides}),
                retriever=retriever,
                reranker=reranker,
                rerank=rerank,
                peft_config=peft_config,
            )
            adapter.train()
        return self.adapted(adapter)

    def adapted(self, adapter: RetrievalAugmentedAdapter) -> ReCrossPipeline:
        """This pipeline with the model that an adapter trained, as a new one; parts that were not used yet stay unopened.

        Args:
            adapter: The adapter ([`ReCrossPipeline.adapter`]), after its `train`.
        """
        model = adapter.accelerator.unwrap_model(adapter.model)
        model.eval()
        pipeline = copy.copy(self)
        pipeline._tasks = None
        pipeline.adaptation = self.adaptation | {name: getattr(adapter.args, name) for name in LENGTHS_AND_BEAMS}
        pipeline.parts = self.parts.replaced(adapted_model=model, retrieved=adapter.retrieved)
        pipeline.record = adapter.adaptation
        pipeline.gate = adapter.gate
        return pipeline


@contextmanager
def _scratch_folder() -> Iterator[str]:
    """A temporary folder that all processes share, and that goes when all of them are done with it."""
    with tempfile.TemporaryDirectory() as scratch:
        yield agreed(lambda: scratch)
        process_state().wait_for_everyone()
