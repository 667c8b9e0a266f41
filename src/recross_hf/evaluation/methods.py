"""Methods to compare: the retrievers of examples to learn from, and the rerankers that choose among them."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from filelock import FileLock

from ..data.schema import ids_hash
from ..pipeline.pipeline import ReCrossPipeline
from ..reranking.reranker import Reranker
from ..retrieval.bm25 import BM25Retriever
from ..retrieval.encoder import Encoder
from ..retrieval.index import UpstreamIndex
from ..retrieval.index_files import CONFIG_FILE
from ..retrieval.retriever import DenseRetriever, RandomRetriever, Retriever
from ..retrieval.vector_shards import IndexMismatchError

if TYPE_CHECKING:
    from peft import PeftConfig

_WAYS = ("none", "random", "bm25", "sbert", "dense", "recross")

RetrieverSource = Retriever | Callable[[int], Retriever]


@dataclass(frozen=True)
class Method:
    """One way to adapt, as a row of a comparison.

    ```python
    Method("mine", MyRetriever(index.dataset), settings={"num_retrieved": 256})
    Method("random", lambda seed: RandomRetriever(index.dataset, seed=seed))
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

    Raises:
        ValueError: There is no name, |Q| is below 1, or a reranker, settings or a `peft_config` come without a retriever.
    """

    name: str
    retriever: RetrieverSource | None = None
    reranker: Reranker | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    num_queries: int = 16
    peft_config: PeftConfig | None = None
    family: str = ""

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

    @property
    def draws(self) -> bool:
        """Whether the examples are drawn, so that they depend on a seed."""
        return self.retriever is not None and not isinstance(self.retriever, Retriever)

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
        if self.peft_config is not None:
            identity["peft_config"] = self.peft_config.to_dict()
        return json.loads(json.dumps(identity, default=_json_value, sort_keys=True))


def paper_methods(
    pipeline: ReCrossPipeline,
    names: Sequence[str] = ("none", "random", "bm25", "dense", "recross", "dense_by_task", "recross_by_task"),
    *,
    sbert_index: UpstreamIndex | None = None,
    num_queries: int = 16,
    upsampling_ratio: float | None = None,
    peft_config: PeftConfig | None = None,
) -> list[Method]:
    """The methods of the paper's tables, and methods that select whole tasks.

    Args:
        pipeline: Pipeline with the examples, the encoder and the reranker of the methods.
        names: Names of methods: `none`, the model as it is; `random`; `bm25`; `sbert`; `dense`, ReCross-dagger; `recross`, with the
            pipeline's reranker; and all but the first two with `_by_task`, which selects whole tasks (`select_by="task"`).
        sbert_index: Index of the pipeline's examples by another encoder, for `sbert`.
        num_queries: Number of inputs to use of a query set, |Q|.
        upsampling_ratio: Ratio mu of candidates to chosen examples, where a method chooses; the pipeline's by default, 2 where that
            is 1.
        peft_config: Configuration of an adapter to train in place of all weights.

    Raises:
        ValueError: There is no method of a name, no `sbert_index` for `sbert`, or no reranker for `recross`.
    """
    mu = upsampling_ratio or pipeline.arguments().upsampling_ratio
    mu = mu if mu > 1 else 2.0
    retrievers: dict[str, RetrieverSource] = {}

    def retriever(way: str) -> RetrieverSource:
        if way == "random":
            return lambda seed: RandomRetriever(pipeline.index.dataset, seed=seed)
        if way == "bm25":
            return BM25Retriever(pipeline.index.dataset)
        return DenseRetriever(sbert_index if way == "sbert" and sbert_index is not None else pipeline.index)

    methods = []
    for name in names:
        way = name.removesuffix("_by_task")
        if way not in _WAYS or name in ("none_by_task", "random_by_task"):
            raise ValueError(
                f"Expected methods among {', '.join(_WAYS)}, found {name!r}. All but two go with `_by_task`."
            )
        if way == "sbert" and sbert_index is None:
            raise ValueError(
                f"Expected an index by another encoder for the method {name}, found no `sbert_index`. Name one with --sbert_name_or_path."
            )
        if way == "recross" and pipeline.reranker is None:
            raise ValueError(f"Expected a pipeline with a reranker for the method {name}, found one without.")
        if way == "none":
            methods.append(Method(name))
            continue
        if way not in retrievers:
            retrievers[way] = retriever(way)
        by_task = name != way
        settings: dict[str, Any] = {"select_by": "task" if by_task else "example"}
        if by_task or way == "recross":
            settings["upsampling_ratio"] = mu
        reranker = pipeline.reranker if way == "recross" else None
        methods.append(Method(name, retrievers[way], reranker, settings, num_queries, peft_config))
    return methods


def ablations(
    method: Method,
    *,
    num_queries: Sequence[int] = (1, 8, 32),
    num_retrieved: Sequence[int] = (256, 1024),
    upsampling_ratios: Sequence[float] = (3, 4),
) -> list[Method]:
    """Variants of a method with another |Q|, |R| or mu, one at a time (paper, table 3).

    Args:
        method: Method to vary.
        num_queries: Values of |Q|.
        num_retrieved: Values of |R|.
        upsampling_ratios: Values of mu, which is varied only where it is a setting of the method.
    """
    variants = [replace(method, name=f"{method.name} |Q|={count}", num_queries=count) for count in num_queries]
    varied: dict[str, tuple[str, Sequence[float]]] = {"num_retrieved": ("|R|", num_retrieved)}
    if "upsampling_ratio" in method.settings:
        varied["upsampling_ratio"] = ("mu", upsampling_ratios)
    for setting, (symbol, values) in varied.items():
        variants += [
            replace(method, name=f"{method.name} {symbol}={value:g}", settings={**method.settings, setting: value})
            for value in values
        ]
    return [replace(other, family=method.name) for other in variants]


def build_index_once(upstream: Dataset, encoder: Encoder, folder: str | Path) -> UpstreamIndex:
    """Opens the index in a folder; if there is none, the first process that asks builds it while the others wait.

    Args:
        upstream: Examples to index.
        encoder: Encoder of the examples.
        folder: Folder of the index.

    Raises:
        IndexMismatchError: The folder holds the index of other examples or another encoder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "build.lock"):
        if not (folder / CONFIG_FILE).is_file():
            return UpstreamIndex.build(upstream, encoder, folder)
    index = UpstreamIndex.from_pretrained(folder, encoder=encoder)
    if ids_hash(index.dataset) != ids_hash(upstream):
        raise IndexMismatchError(
            f"Expected an index of the {len(upstream)} upstream examples in {folder}, found one of {len(index)} others. Delete it, or "
            "choose another folder."
        )
    return index


def _json_value(value: Any) -> Any:
    """A JSON value for what PEFT's configurations hold: sets, enumerations and objects."""
    if isinstance(value, enum.Enum):
        return value.value
    return sorted(value) if isinstance(value, set | frozenset) else repr(value)
