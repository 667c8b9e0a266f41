"""`Method`: one way to answer the inputs of an unseen task, as a row of a comparison."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..pipeline.prediction import LENGTHS_AND_BEAMS
from ..reranking.reranker import Reranker
from ..retrieval.retriever import Retriever
from .in_context import PER

if TYPE_CHECKING:
    from peft import PeftConfig

RetrieverSource = Retriever | Callable[[int], Retriever]


@dataclass(frozen=True)
class Method:
    """One way to adapt, as a row of a comparison.

    ```python
    Method("mine", MyRetriever(index.dataset), settings={"num_retrieved": 256})
    Method("random", lambda seed: RandomRetriever(index.dataset, seed=seed))
    Method("in context", DenseRetriever(index), in_context=4, settings={"max_input_length": 1024})
    ```

    Args:
        name: Name in tables.
        retriever: Retriever of the examples to learn from. A method that draws them gives a function of a seed, which differs from task
            to task and from query set to query set. None stands for the model as it is.
        reranker: Reranker that chooses among `upsampling_ratio` times as many examples. The pipeline's own is used only where it is
            given here.
        settings: Fields of [`AdaptationArguments`] that this method has in place of the evaluation's, such as `{"gate": "form"}`.
        num_queries: Number of inputs to use of a query set, |Q|; of smaller sets, all inputs.
        peft_config: Configuration of an adapter to train in place of all weights.
        family: Name of the method that this one varies, in an ablation.
        in_context: Number of retrieved examples that stand above an input, the nearest last, in place of all training; fewer where they
            would be too long (`settings={"max_input_length": ...}`), as the cell's details say.
        in_context_per: Whose examples those are. "input" shows each test input its own nearest (Liu et al. 2022, arXiv 2101.06804), so
            that all query sets share a cell; "task" shows all of them the first that were retrieved for the query set.
        num_adapters: Number of parts of the query set that adapters learn from apart, each from its share of |R|; the mean of what they
            change is the adapted model (Wortsman et al. 2022, arXiv 2203.05482). They need a `peft_config` of LoRA.

    Raises:
        ValueError: There is no name, |Q| is below 1, or a reranker, settings or a `peft_config` come without a retriever. Examples in
            context are to be trained on, too, or there is none.
    """

    name: str
    retriever: RetrieverSource | None = None
    reranker: Reranker | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    num_queries: int = 16
    peft_config: PeftConfig | None = None
    family: str = ""
    in_context: int | None = None
    in_context_per: str = "input"
    num_adapters: int = 1

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("Expected a method with a name, found an empty one.")
        if self.num_queries < 1:
            raise ValueError(f"Method {self.name}: expected at least one query, found num_queries={self.num_queries}.")
        if self.retriever is None and (self.reranker is not None or self.settings or self.peft_config is not None):
            raise ValueError(
                f"Method {self.name}: expected a retriever beside a reranker, settings or a `peft_config`, found none. Without a "
                "retriever, a method is the model as it is."
            )
        if self.in_context_per not in PER:
            raise ValueError(
                f"Method {self.name}: `in_context_per` must be {' or '.join(PER)}, found {self.in_context_per!r}."
            )
        if not 1 <= self.num_adapters <= self.num_queries:
            raise ValueError(
                f"Method {self.name}: expected a number of 1 to {self.num_queries} adapters, one for an input at the most, found "
                f"num_adapters={self.num_adapters}."
            )
        if self.num_adapters > 1 and self.peft_config is None:
            raise ValueError(
                f"Method {self.name}: expected a `peft_config` for the {self.num_adapters} adapters to average, found none. Pass a "
                "LoraConfig."
            )
        if self.in_context is not None:
            self._check_in_context(self.in_context)

    def _check_in_context(self, num_examples: int) -> None:
        if num_examples < 1 or self.retriever is None:
            raise ValueError(
                f"Method {self.name}: expected a retriever and at least one example in context, found in_context={num_examples} and "
                f"{'no' if self.retriever is None else 'a'} retriever. Without examples, a method is the model as it is."
            )
        of_training = [name for name in self.settings if name not in LENGTHS_AND_BEAMS]
        of_training += [name for name in ("reranker", "peft_config") if getattr(self, name) is not None]
        if of_training:
            raise ValueError(
                f"Method {self.name}: expected no more than {', '.join(LENGTHS_AND_BEAMS)} beside examples in context, which nothing is "
                f"trained on, found {', '.join(of_training)}. Leave them out."
            )

    @property
    def draws(self) -> bool:
        """Whether the examples are drawn, so that they depend on a seed."""
        return self.retriever is not None and not isinstance(self.retriever, Retriever)

    @property
    def trains(self) -> bool:
        """Whether a copy of the model is trained, rather than the model as it is asked."""
        return self.retriever is not None and self.in_context is None

    @property
    def is_shared(self) -> bool:
        """Whether nothing depends on a query set, so that all of a task's share one cell."""
        return self.retriever is None or (self.in_context is not None and self.in_context_per == "input")

    def retriever_for(self, seed: int) -> Retriever:
        """The retriever, with this seed if it draws.

        Raises:
            ValueError: The method has no retriever.
        """
        if self.retriever is None:
            raise ValueError(
                f"Method {self.name}: expected a retriever, found none. It is the model as it is, which retrieves nothing."
            )
        return self.retriever if isinstance(self.retriever, Retriever) else self.retriever(seed)

    def identity(self, seed: int) -> dict[str, Any]:
        """Everything that results depend on beside the model, the task and the evaluation's settings, as JSON values."""
        identity: dict[str, Any] = {"num_queries": self.num_queries, "retriever": self.retriever_for(seed).identity()}
        if self.reranker is not None:
            identity["reranker"] = self.reranker.identity()
        if self.in_context is not None:
            identity["in_context"] = {"num_examples": self.in_context, "per": self.in_context_per}
        if self.num_adapters > 1:
            identity["num_adapters"] = self.num_adapters
        if self.is_shared:
            del identity["num_queries"]
        if self.peft_config is not None:
            identity["peft_config"] = self.peft_config.to_dict()
        return json.loads(json.dumps(identity, default=_json_value, sort_keys=True))


def _json_value(value: Any) -> Any:
    """A JSON value for what PEFT's configurations hold: sets, enumerations and objects."""
    if isinstance(value, enum.Enum):
        return value.value
    return sorted(value) if isinstance(value, set | frozenset) else repr(value)
