"""`ServedPipeline`: the one pipeline behind the page, which all visitors share."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..adaptation.arguments import AdaptationArguments
from ..adaptation.retrieval import retrieve_examples
from ..hub.repository import Repository
from ..models.adapters import ALL_LINEAR, is_peft_model
from ..models.architectures import architecture_of
from ..models.generation import generate_texts
from ..pipeline.pipeline import ReCrossPipeline
from ..retrieval.index_map import IndexMap
from ..retrieval.lance.retriever import dense_retriever, rows_of
from ..retrieval.retriever import NeighbourRetriever
from .inputs import Given
from .limits import Limits
from .retrieved import Found, Noticing, neighbours_of, noticed

if TYPE_CHECKING:
    from peft import PeftConfig

LORA_RATE = 5.0
"""How much larger the learning rate of a LoRA adapter is than that of all weights, which the pipeline names. On three tasks of the starter, 200
test examples each, five times gave what training all weights gave; the same rate gave a third of it, and ten times harmed one."""


class ServedPipeline:
    """A pipeline that is not changed by its visitors, and a lock for what they may not do at the same time.

    Args:
        pipeline: The pipeline; where it was adapted, its upstream model is what is shown and adapted.
        limits: How much a visitor may ask for.
        name: The name that the pipeline was loaded by; None for the starter.

    Attributes:
        base: The pipeline as it answers before an adaptation.
        lock: Held by whoever uses the tokenizer, which cannot be used by two threads at once.
        one_at_a_time: Held by the training that is going on, and by whoever makes arguments of one: transformers then forgets the devices
            that a training in another thread works with.
    """

    def __init__(self, pipeline: ReCrossPipeline, limits: Limits, name: str | None = None) -> None:
        self.base, self.index = copy.copy(pipeline), pipeline.index
        if pipeline.adapted_model is not None:
            self.base.parts = pipeline.parts.replaced(adapted_model=None, retrieved=None)
        self.limits = limits
        self.name = name
        self.lock = threading.Lock()
        self.one_at_a_time = threading.Lock()
        self.defaults = self.arguments()
        self.rows = rows_of(self.index)
        self.tasks = sorted(self.rows.all_tasks)

    @property
    def is_starter(self) -> bool:
        """Whether it is the small pipeline that comes with the package."""
        return self.name is None

    @property
    def repository(self) -> Repository | None:
        """Where the pipeline is on the Hub, and at which commit; None for one of a folder."""
        stored = self.base.parts.stored
        return stored.home if stored is not None and isinstance(stored.home, Repository) else None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it nobody trains, retrieves or is answered."""
        with self.one_at_a_time, self.lock:
            yield

    @cached_property
    def index_map(self) -> IndexMap:
        """The picture of the index, made when it is first asked for, which may encode texts."""
        with self.lock:
            return IndexMap.of(self.index)

    def arguments(self, **overrides: Any) -> AdaptationArguments:
        """Arguments of an adaptation that suit the pipeline, within the limits.

        Args:
            overrides: Fields that a visitor chose.
        """
        settings: dict[str, Any] = {
            "disable_tqdm": True,
            "save_strategy": "no",
            "upstream_adapter": "continue",
            **overrides,
        }
        args = self.base.arguments(**settings)
        retrieved = min(args.num_retrieved, self.limits.retrieved)
        # The rate of an upstream model that is an adapter is one for adapters.
        rate = args.learning_rate * (1.0 if is_peft_model(self.base.upstream_model) else LORA_RATE)
        steps = args.max_steps
        if steps <= 0:
            steps = round(math.ceil(retrieved / args.per_device_train_batch_size) * args.num_train_epochs)
        settings |= {"num_retrieved": retrieved, "learning_rate": rate, "max_steps": min(steps, self.limits.steps)}
        return self.base.arguments(**settings)

    def peft_config(self) -> PeftConfig | None:
        """The adapter that is trained; None where the upstream model has one, which is trained further."""
        if is_peft_model(self.base.upstream_model):
            return None
        from peft import LoraConfig

        task_type = architecture_of(self.base.upstream_model).peft_task_type
        return LoraConfig(task_type=task_type, r=16, lora_alpha=32, target_modules=ALL_LINEAR)

    def retriever(self, excluded: Sequence[str]) -> NeighbourRetriever:
        """What the examples come from.

        Args:
            excluded: Tasks to leave out.

        Raises:
            ValueError: There is no such task, or nothing is left.
        """
        return dense_retriever(self.index, exclude_tasks=excluded)

    def retrieve(self, given: Given, excluded: Sequence[str] = (), num_retrieved: int | None = None) -> Found:
        """Retrieves what an adaptation learns from, and the nearest examples of each input.

        Args:
            given: Inputs of a visitor.
            excluded: Tasks to leave out.
            num_retrieved: Number of examples; as the pipeline says by default.

        Raises:
            ValueError: There is no such task, or nothing is left.
        """
        start = time.perf_counter()
        args = copy.copy(self.defaults)
        args.num_retrieved = min(num_retrieved or args.num_retrieved, self.limits.retrieved)
        noticing = Noticing(self.index.encoder)
        index = noticed(self.index, noticing)
        retriever = dense_retriever(index, aggregation=noticing.aggregate, exclude_tasks=excluded)
        reranker = self.base.reranker if args.rerank and args.upsampling_ratio > 1 else None
        with self.lock:
            retrieved = retrieve_examples(given.texts, retriever, reranker, args, {})
        assert noticing.hits is not None and noticing.vectors is not None
        neighbours = neighbours_of(noticing.hits, self.rows, retrieved)
        places = self.index_map.project(noticing.vectors)
        return Found(retrieved, neighbours, tuple(excluded), places, time.perf_counter() - start)

    def answers(self, pipeline: ReCrossPipeline, texts: Sequence[str]) -> list[str]:
        """The answers of the base, or of what a visitor adapted from it.

        Args:
            pipeline: [`base`], or an adapted pipeline.
            texts: Inputs.
        """
        args, model = self.defaults, pipeline.model
        settings: dict[str, Any] = (
            {} if args.generation_num_beams is None else {"num_beams": args.generation_num_beams}
        )
        with self.lock:
            return generate_texts(
                model,
                self.base.processing_class,
                texts,
                max_input_length=args.max_input_length,
                max_new_tokens=args.max_target_length,
                show_progress=False,
                **settings,
            )
