"""`recross index --engine ray`: the index is built on a cluster, and the pipeline folder names it."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from .. import MeanPooledEncoder, ReCrossPipeline, SentenceEncoder
from ..core.distributed import process_state
from ..planning.cluster import plan_cluster_index
from ..retrieval.cluster.build import build_cluster_index
from ..retrieval.lance.index import LanceIndex
from ..retrieval.lance.vector_index import IndexSettings
from .chat_format import ChatArguments
from .index_models import encoder_alone, encoder_of, upstream_model
from .outputs import make_way
from .parser import CommandParser

_OF_FAISS = ("factory", "train_size")


@dataclass
class ClusterArguments:
    """What `recross index` takes beyond one machine."""

    engine: Literal["local", "ray"] = field(
        default="local",
        metadata={
            "help": "What builds the index: FAISS here, or Lance on a Ray cluster. The latter needs the extra [cluster]."
        },
    )
    storage: str | None = field(
        default=None,
        metadata={
            "help": "Where --engine ray writes it. A folder that all nodes share, lance://FOLDER, s3://BUCKET/PATH or gs://BUCKET/PATH; "
            "index.lance in the pipeline folder by default."
        },
    )
    num_workers: int | None = field(
        default=None, metadata={"help": "Workers of --engine ray; one a GPU, or one a CPU but for one, by default."}
    )
    ray_address: str | None = field(
        default=None,
        metadata={
            "help": "Address of the Ray cluster; RAY_ADDRESS by default, and without it a cluster on this machine."
        },
    )
    price_per_hour: float | None = field(
        default=None, metadata={"help": "Price of a worker for an hour, from which --dry_run tells the cost."}
    )
    index_kind: Literal["IVF_RQ", "IVF_PQ"] = field(
        default="IVF_RQ", metadata={"help": "Kind of the index in Lance; IVF_PQ takes many times as long to build."}
    )
    num_partitions: int | None = field(
        default=None, metadata={"help": "Partitions of the index in Lance; one for 4,096 examples by default."}
    )
    code_size: int | None = field(
        default=None,
        metadata={
            "help": "Bits a dimension of IVF_RQ (2 by default), or bytes a vector of IVF_PQ (one for 8 dimensions)."
        },
    )
    refine_factor: int = field(
        default=IndexSettings.refine_factor,
        metadata={"help": "Hits among the codes of Lance for each result, which are ranked again by their vectors."},
    )
    min_recall: float = field(
        default=0.9, metadata={"help": "Recall at 64 of an index in Lance, below which the build is refused."}
    )

    def check(self, parser: CommandParser, said: Collection[str]) -> None:
        """Refuses flags of the one engine beside the other.

        Raises:
            UsageError: There are some.
        """
        own = [name for name in ClusterArguments.__dataclass_fields__ if name != "engine"]
        foreign = _OF_FAISS if self.engine == "ray" else own
        if wrong := [f"--{name}" for name in foreign if name in said]:
            other = "local" if self.engine == "ray" else "ray"
            parser.error(
                f"{', '.join(wrong)}: for --engine {other}, found --engine {self.engine}; leave out the one or the other"
            )
        if self.engine == "ray" and process_state().num_processes > 1:
            parser.error(
                "Expected one process for --engine ray, which starts workers itself, found a launcher of several"
            )


def index_on_cluster(args: Any, chat: ChatArguments, cluster: ClusterArguments, columns: dict[str, str]) -> str:
    """Builds the index on the cluster and writes the pipeline folder, or says what it will take.

    Args:
        args: What `recross index` takes.
        chat: How a decoder-only model reads inputs.
        cluster: What it takes beyond one machine.
        columns: Columns of the files by the names of the schema.

    Returns:
        What to tell.
    """
    args, chat = replace(args, **_absolute(args, _PATHS)), replace(chat, **_absolute(chat, ("chat_template",)))
    make_encoder = partial(encoder_alone, args, chat)
    settings = IndexSettings(
        metric="inner_product" if args.inner_product else "l2",
        kind=cluster.index_kind,
        num_partitions=cluster.num_partitions,
        code_size=cluster.code_size,
        nprobes=args.nprobe,
        refine_factor=cluster.refine_factor,
    )
    files: dict[str, Any] = {"columns": columns, "vector_dtype": args.vector_dtype, "settings": settings}
    if args.dry_run:
        plan = plan_cluster_index(args.train_files, make_encoder(), price_per_hour=cluster.price_per_hour, **files)
        return str(plan)
    storage = cluster.storage or str(Path(args.output_dir) / "index.lance")
    build_cluster_index(
        args.train_files,
        make_encoder,
        storage,
        num_workers=cluster.num_workers,
        address=cluster.ray_address,
        min_recall=cluster.min_recall,
        **files,
    )
    model, tokenizer = upstream_model(args, chat)
    encoder: MeanPooledEncoder | SentenceEncoder = encoder_of(args, model, tokenizer)
    index = LanceIndex.from_pretrained(storage, encoder=encoder)
    adaptation: dict[str, float] = {
        "max_input_length": args.max_input_length or MeanPooledEncoder(model, tokenizer).max_length,
        "max_target_length": args.max_target_length,
    }
    if args.learning_rate is not None:
        adaptation["learning_rate"] = args.learning_rate
    if args.overwrite:
        make_way(args.output_dir)
    ReCrossPipeline.build(model, tokenizer, index, args.output_dir, adaptation=adaptation)
    return (
        f"{len(index):,} examples indexed in {storage}, version {index.version}, which the pipeline in {args.output_dir} names. Recall at 64: "
        f"{index.config['recall']['value']:.3f}."
    )


_PATHS = ("model_name_or_path", "gguf_file", "encoder_name_or_path")


def _absolute(arguments: Any, names: Collection[str]) -> dict[str, str]:
    """The arguments that are paths of this machine, whole: a worker stands in another folder."""
    values = {name: getattr(arguments, name) for name in names}
    return {name: os.path.abspath(value) for name, value in values.items() if value and os.path.exists(value)}
