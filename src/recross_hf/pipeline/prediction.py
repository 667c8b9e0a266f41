"""`PredictingPipeline`: a pipeline that answers, with one model or with the adapters of many tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from datasets import Dataset
from transformers import PreTrainedModel

from ..adaptation.arguments import AdaptationArguments
from ..data.inputs import one_or_many
from ..hub.repository import HubAccess
from ..models.generation import generate_texts
from ..models.shared_weights import base_alone
from .adapted_tasks import AdaptedTasks
from .hub_mixin import PipelineHubMixin
from .manifest import BASE_MODEL, UPSTREAM_MODEL

LENGTHS_AND_BEAMS = ("max_input_length", "max_target_length", "generation_num_beams")
"""Settings of an adaptation that its predictions depend on, too."""

Inputs: TypeAlias = str | Iterable[str] | Dataset | Mapping[str, Any]


class PredictingPipeline(PipelineHubMixin):
    """What answers of a pipeline: its own model, and adapters of further tasks on the same base."""

    _tasks: AdaptedTasks | None = None

    @property
    def model(self) -> PreTrainedModel:
        """The model that predicts: the adapted one, or the upstream one."""
        return self.upstream_model if self.adapted_model is None else self.adapted_model

    def __call__(
        self,
        inputs: Inputs,
        *,
        adapter_names: Sequence[str] | None = None,
        show_progress: bool | None = None,
        **generate_kwargs: Any,
    ) -> str | list[str]:
        """Answers one input or many, in their order.

        Args:
            inputs: A string, a row with the string "input", or the turns of one conversation (`[{"role": "user", "content": ...}]`), for
                one answer. For a list of answers: a list, tuple, generator, array, Series or column of strings or conversations, or a
                `Dataset`, DataFrame or mapping with the column "input". An empty string is an input, too; no inputs get no answers.
            adapter_names: For each input the adapter that answers it ([`add_adapted`]), as in PEFT; "__base__" stands for the base
                alone. By default the pipeline's own model answers.
            show_progress: Whether a progress bar is shown; by default for more than 256 inputs.
            generate_kwargs: Arguments of `model.generate`, e.g. `num_beams=4`; by default as in the adaptation. A model that ships
                `do_sample` samples where `do_sample=True` is passed, and only there.

        Raises:
            TypeError: The inputs are of another type: a set has no order, and numbers are no texts.
            ExampleError: A table has no column "input".
            ValueError: There is no such adapter, or not one name for each input.
        """
        return self._answers(inputs, self.adaptation, adapter_names, None, show_progress, generate_kwargs)

    def _answers(
        self,
        inputs: Inputs,
        adaptation: Mapping[str, Any],
        adapter_names: Sequence[str] | None,
        task: str | None,
        show_progress: bool | None,
        generate_kwargs: dict[str, Any],
    ) -> str | list[str]:
        texts, is_single = one_or_many(inputs)
        around_batch = None
        if adapter_names is not None:
            model, around_batch = self._loaded_tasks().mixed(adapter_names, len(texts))
        else:
            model = self.model if task is None else self._loaded_tasks().with_active(task)
        if not texts:
            return []
        # Not by arguments of a training: they take the process's devices anew, below a training in another thread.
        own = {name: adaptation.get(name, getattr(AdaptationArguments, name)) for name in LENGTHS_AND_BEAMS}
        settings = {"max_input_length": own["max_input_length"], "max_new_tokens": own["max_target_length"]}
        beams = own["generation_num_beams"]
        settings |= {} if beams is None else {"num_beams": beams}
        answers = generate_texts(
            model,
            self.processing_class,
            texts,
            around_batch=around_batch,
            show_progress=len(texts) > 256 if show_progress is None else show_progress,
            **(settings | generate_kwargs),
        )
        return answers[0] if is_single else answers

    # ---- adapters of many tasks --------------------------------------------------------------------------------------

    def add_adapted(
        self,
        name: str,
        source: str | Path | PredictingPipeline,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> None:
        """Loads the LoRA adapter of another task beside those that are there; all of them share one base in memory.

        ```python
        pipeline.add_adapted("billing", "billing-lora")
        pipeline.add_adapted("triage", "me/ticket-triage")
        pipeline.adapted_as("billing")(inputs)
        pipeline(inputs, adapter_names=["billing", "triage", "billing"])
        ```

        Adapters may be of different ranks and modules, also in one batch.

        Args:
            name: What the adapter is called from then on, of letters, digits and underscores.
            source: Folder or repository of a LoRA adapter, or of an adapted pipeline; or an adapted pipeline in memory.
            revision: Branch, tag or commit of a repository.
            token: A token of the Hub, `False` for none; the one of `hf auth login` by default.
            cache_dir: Folder that fetched files are kept in.
            local_files_only: Take the files that are in the cache and make no request.

        Raises:
            ArtifactError: The files are not those that were saved, or not safe to read.
            HubError: The repository could not be had.
            ValueError: The name cannot be taken, there is no plain LoRA adapter, it is on another base or commit of it, or it was trained
                with another chat template or system prompt.
        """
        settings: dict[str, Any] = {}
        given: Any = source
        tasks = self._loaded_tasks()
        if isinstance(source, PredictingPipeline):
            settings, given = source.adaptation, source.adapted_model
            tasks.check_reading(source.processing_class, "the adapted model")
        tasks.add(name, given, HubAccess(token, cache_dir, local_files_only), revision)
        tasks.settings[name] |= settings

    def remove_adapted(self, name: str) -> None:
        """Forgets an adapter that was added, and frees its memory.

        Raises:
            ValueError: There is no such adapter.
        """
        self._loaded_tasks().remove(name)

    def adapted_as(self, name: str) -> AdaptedTask:
        """What answers with an adapter that was added. Calls of one pipeline come one after another, and not from several threads.

        Raises:
            ValueError: There is no such adapter.
        """
        self._loaded_tasks().check_names([name])
        return AdaptedTask(self, name)

    @property
    def adapter_names(self) -> list[str]:
        """Names of the adapters that were added."""
        return [] if self._tasks is None else self._tasks.names

    def _loaded_tasks(self) -> AdaptedTasks:
        if self._tasks is None:
            stored, base = self.parts.stored, BASE_MODEL if self.parts.has(BASE_MODEL) else UPSTREAM_MODEL
            known = stored.manifest.parts[base] if stored is not None and self.parts.is_stored(base) else None
            base_model = base_alone(self.upstream_model)
            self._tasks = AdaptedTasks(base_model, known, processing_class=self.processing_class)
        return self._tasks


class AdaptedTask:
    """Answers inputs of one task with its adapter, on the base that a pipeline's adapters share.

    Args:
        pipeline: The pipeline that the adapter was added to.
        name: Name of the adapter.
    """

    def __init__(self, pipeline: PredictingPipeline, name: str) -> None:
        self.pipeline = pipeline
        self.name = name

    @property
    def model(self) -> PreTrainedModel:
        """The PEFT model, with this task's adapter switched on until another's is."""
        return self.pipeline._loaded_tasks().with_active(self.name)

    def __call__(
        self, inputs: Inputs, *, show_progress: bool | None = None, **generate_kwargs: Any
    ) -> str | list[str]:
        """Answers one input or many, as [`ReCrossPipeline`] does, with the lengths and beams of the task's adaptation."""
        settings = self.pipeline.adaptation | self.pipeline._loaded_tasks().settings[self.name]
        return self.pipeline._answers(inputs, settings, None, self.name, show_progress, generate_kwargs)
