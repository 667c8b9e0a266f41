"""Methods to compare: the retrievers of examples to learn from, and the rerankers that choose among them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from filelock import FileLock

from ..data.schema import ids_hash
from ..pipeline.pipeline import ReCrossPipeline
from ..retrieval.aggregation import round_robin
from ..retrieval.balanced import BalancedRetriever
from ..retrieval.bm25 import BM25Retriever
from ..retrieval.encoder import Encoder, MeanPooledEncoder
from ..retrieval.index import UpstreamIndex
from ..retrieval.index_files import CONFIG_FILE
from ..retrieval.lance.index import LanceIndex, in_memory
from ..retrieval.lance.retriever import dense_retriever, rows_of
from ..retrieval.mixed import MixedRetriever
from ..retrieval.retriever import RandomRetriever
from ..retrieval.sift import SIFTRetriever
from ..retrieval.vector_shards import IndexMismatchError
from .method import Method, RetrieverSource

if TYPE_CHECKING:
    from peft import PeftConfig

WITHOUT_TASKS = (
    "none",
    "random",
    "rds",
    "sift",
    "dense_replay",
    "dense_balanced",
    "in_context",
    "in_context_per_task",
)
"""Names of methods that there is no `_by_task` of."""
WAYS = ("none", "random", "bm25", "sbert", "dense", "recross", *WITHOUT_TASKS[2:])
"""Names of the methods of [`paper_methods`]."""
IN_LANCE = (
    "none",
    "random",
    "dense",
    "recross",
    "dense_replay",
    "dense_balanced",
    "in_context",
    "in_context_per_task",
)
"""Names of the methods that do not read all upstream examples into memory, and go with a pipeline whose index is in Lance."""
WEIGHTED_COSINE: dict[str, Any] = {"factory": "L2norm,Flat"}
"""Arguments of an index build for `rds`, which compares by cosine; its encoder has `pooling="weighted_mean"`."""


def paper_methods(
    pipeline: ReCrossPipeline,
    names: Sequence[str] = ("none", "random", "bm25", "dense", "recross", "dense_by_task", "recross_by_task"),
    *,
    sbert_index: UpstreamIndex | LanceIndex | None = None,
    indexes: Mapping[str, UpstreamIndex | LanceIndex] | None = None,
    num_queries: int = 16,
    upsampling_ratio: float | None = None,
    peft_config: PeftConfig | None = None,
    num_in_context: int = 4,
) -> list[Method]:
    """The methods of the paper's tables, methods that select whole tasks, and those of other papers.

    Args:
        pipeline: Pipeline with the examples, the encoder and the reranker of the methods.
        names: Names of methods. Of the paper: `none`, the model as it is; `random`; `bm25`; `sbert`; `dense`, ReCross-dagger; `recross`,
            with the pipeline's reranker. All but the first two also with `_by_task`, which selects whole tasks (`select_by="task"`).
            Of others: `rds`, [`round_robin`] over the index "rds" (RDS+, Ivison et al. 2025); `sift`, [`SIFTRetriever`]; `dense_replay`,
            half of it random ([`MixedRetriever`]); `dense_balanced`, the answers of each task in turn ([`BalancedRetriever`]);
            `in_context`, each input below its own nearest examples without training (Liu et al. 2022); `in_context_per_task`,
            all inputs below those nearest to the query set. A name of `indexes` is dense retrieval there. Where the pipeline's index is a [`LanceIndex`], those of `IN_LANCE` alone, and those of `indexes`.
        sbert_index: Index of the pipeline's examples by another encoder, for `sbert`.
        indexes: Further indexes of the pipeline's examples by the names of their methods. That of `rds` is of the model's own vectors with
            `pooling="weighted_mean"`, compared by cosine ([`WEIGHTED_COSINE`]); by default the pipeline's own, where it has that pooling.
        num_queries: Number of inputs to use of a query set, |Q|.
        upsampling_ratio: Ratio mu of candidates to chosen examples, where a method chooses; the pipeline's by default, 2 where that
            is 1.
        peft_config: Configuration of an adapter to train in place of all weights.
        num_in_context: Number of examples above an input, k, of methods that show them.

    Raises:
        ValueError: There is no method of a name, no index for `sbert` or `rds`, or no reranker for `recross`; or a method would read all
            of a Lance data set.
    """
    mu = upsampling_ratio or pipeline.arguments().upsampling_ratio
    mu = mu if mu > 1 else 2.0
    known = {**(indexes or {}), **({} if sbert_index is None else {"sbert": sbert_index})}
    check_can_read(pipeline, names, known)
    retrievers: dict[str, RetrieverSource] = {}
    methods = []
    for name in names:
        way = name.removesuffix("_by_task")
        if (way not in WAYS and way not in known) or (name != way and way in WITHOUT_TASKS):
            others = ", ".join([*WAYS, *(of_index for of_index in known if of_index not in WAYS)])
            raise ValueError(
                f"Expected methods among {others}, found {name!r}. All but {', '.join(WITHOUT_TASKS)} go with `_by_task`."
            )
        if way == "recross" and pipeline.reranker is None:
            raise ValueError(f"Expected a pipeline with a reranker for the method {name}, found one without.")
        if way == "none":
            methods.append(Method(name))
            continue
        if way not in retrievers:
            retrievers[way] = _retriever(way, pipeline, known, name)
        if way.startswith("in_context"):
            per = "task" if way == "in_context_per_task" else "input"
            methods.append(
                Method(name, retrievers[way], num_queries=num_queries, in_context=num_in_context, in_context_per=per)
            )
            continue
        by_task = name != way
        settings: dict[str, Any] = {"select_by": "task" if by_task else "example"}
        if by_task or way == "recross":
            settings["upsampling_ratio"] = mu
        reranker = pipeline.reranker if way == "recross" else None
        methods.append(Method(name, retrievers[way], reranker, settings, num_queries, peft_config))
    return methods


def check_can_read(pipeline: ReCrossPipeline, names: Sequence[str], known: Collection[str] = ()) -> None:
    """Refuses methods that would read all upstream examples into memory, where the pipeline's are in a Lance data set.

    Args:
        pipeline: Pipeline with the examples.
        names: Names of methods of [`paper_methods`].
        known: Names of those that have an index of their own.

    Raises:
        ValueError: There is such a method.
    """
    if not isinstance(pipeline.index, LanceIndex):
        return
    able = {*IN_LANCE, *known, *(["rds"] if has_weighted_pooling(pipeline) else [])}
    unable = [name for name in names if name.removesuffix("_by_task") in {*WAYS} - able]
    if unable:
        raise ValueError(
            f"Expected methods that need some upstream examples at a time, for the pipeline's {len(pipeline.index):,} stay in a Lance data set, "
            f"found {', '.join(unable)}. Those that work there are {', '.join(IN_LANCE)}; dense and recross also with `_by_task`."
        )


def has_weighted_pooling(pipeline: ReCrossPipeline) -> bool:
    """Whether the pipeline's own index is one for `rds`."""
    return getattr(pipeline.index.encoder, "pooling", "") == "weighted_mean"


def _retriever(
    way: str, pipeline: ReCrossPipeline, indexes: Mapping[str, UpstreamIndex | LanceIndex], name: str
) -> RetrieverSource:
    """The retriever of a method of [`paper_methods`]; `name` is what the method is called in an error."""
    index: UpstreamIndex | LanceIndex | None
    if way == "random":
        return lambda seed: RandomRetriever(rows_of(pipeline.index), seed=seed)
    if way == "bm25":
        return BM25Retriever(pipeline.index.dataset)
    if way == "sift":
        return SIFTRetriever(in_memory(indexes.get(way) or pipeline.index))
    if way == "dense_replay":
        return lambda seed: MixedRetriever(dense_retriever(pipeline.index), share=0.5, seed=seed)
    if way == "dense_balanced":
        return BalancedRetriever(dense_retriever(pipeline.index))
    if way == "sbert" and way not in indexes:
        raise ValueError(
            f"Expected an index by another encoder for the method {name}, found no `sbert_index`. Name one with --sbert_name_or_path."
        )
    if way == "rds":
        own = pipeline.index if has_weighted_pooling(pipeline) else None
        if (index := indexes.get(way) or own) is None:
            raise ValueError(
                "Expected an index of the model's own vectors with the pooling weighted_mean for the method rds, found none. Pass "
                '`indexes={"rds": index}`, or a pipeline whose index has that pooling.'
            )
        return dense_retriever(index, aggregation=round_robin)
    return dense_retriever(indexes.get(way) or pipeline.index)


def build_weighted_index_once(pipeline: ReCrossPipeline, folder: str | Path) -> UpstreamIndex:
    """Opens or builds the index for `rds`: the pipeline's examples by its model's own vectors, later tokens counting more, by cosine.

    Args:
        pipeline: Pipeline with the model and the examples.
        folder: Folder of the index.
    """
    encoder = MeanPooledEncoder(pipeline.upstream_model, pipeline.processing_class, pooling="weighted_mean")
    return build_index_once(pipeline.index.dataset, encoder, folder, **WEIGHTED_COSINE)


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

    Raises:
        ValueError: The method trains nothing.
    """
    if not method.trains:
        raise ValueError(
            f"Expected a method that trains, found {method.name}, which has no |R| or mu. Vary `num_in_context` yourself, by methods of "
            "different names."
        )
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


def build_index_once(upstream: Dataset, encoder: Encoder, folder: str | Path, **build_kwargs: Any) -> UpstreamIndex:
    """Opens the index in a folder; if there is none, the first process that asks builds it while the others wait.

    Args:
        upstream: Examples to index.
        encoder: Encoder of the examples.
        folder: Folder of the index.
        build_kwargs: Arguments of [`UpstreamIndex.build`], where it is built.

    Raises:
        IndexMismatchError: The folder holds the index of other examples or another encoder, or one of another kind than is asked for.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "build.lock"):
        if not (folder / CONFIG_FILE).is_file():
            return UpstreamIndex.build(upstream, encoder, folder, **build_kwargs)
    index = UpstreamIndex.from_pretrained(folder, encoder=encoder)
    if ids_hash(index.dataset) != ids_hash(upstream):
        raise IndexMismatchError(
            f"Expected an index of the {len(upstream)} upstream examples in {folder}, found one of {len(index)} others. Delete it, or "
            "choose another folder."
        )
    if (factory := build_kwargs.get("factory", index.config["factory"])) != index.config["factory"]:
        raise IndexMismatchError(
            f"Expected an index of the kind {factory} in {folder}, found {index.config['factory']}, which may compare otherwise. Delete it, "
            "or choose another folder."
        )
    return index
