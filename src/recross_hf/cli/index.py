"""`recross index`: index upstream examples with an upstream model's own encoder, and write a pipeline folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import faiss
import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import MeanPooledEncoder, ReCrossPipeline, SentenceEncoder, load_examples
from ..core.distributed import end_process_group, process_state
from ..core.output_folders import OF_MODELS, check_apart, check_apart_from_files, check_not_of_others
from ..core.recipes import named_values
from ..data.files import files_of
from ..data.schema import COLUMNS
from ..hub.safety import MANIFEST_FILE
from ..planning.index import index_bytes, plan_index
from ..planning.plan import warn_where_disk_is_short
from .chat_format import ChatArguments
from .cluster_index import ClusterArguments, index_on_cluster
from .console import show
from .index_models import encoder_of, upstream_model
from .model_loading import ModelLoading
from .outputs import OVERWRITE, make_way
from .parser import CommandParser

ABOUT = (
    "Index upstream examples with an upstream model's own encoder, or another one, and write a pipeline folder, which `recross adapt` takes. A killed run "
    "continues when the same command is given again. Beyond one machine, --engine ray builds it on a cluster."
)
GROUPS = {
    "What to index, and where it goes": ["model_name_or_path", "train_files", "columns", "output_dir", "overwrite"],
    "How": ["encoder_name_or_path", "factory", "dtype", "bf16", "max_input_length", "engine", "storage", "dry_run"],
}


@dataclass
class IndexArguments(ModelLoading):
    """What `recross index` takes."""

    model_name_or_path: str = field(
        metadata={
            "help": "The upstream model: any sequence-to-sequence or decoder-only model, or a LoRA adapter on one."
        }
    )
    train_files: list[str] = field(metadata={"help": "Upstream examples: files, folders or patterns."})
    output_dir: str = field(metadata={"help": "The pipeline folder to write."})
    columns: list[str] = field(
        default_factory=list, metadata={"help": "Column mapping, e.g. --columns references=outputs id=example_id"}
    )
    factory: str = field(
        default="Flat",
        metadata={
            "help": "FAISS factory string. Flat is exact, up to about a million examples; SQ8 takes a quarter of its space. Above, "
            "'IVF1024,PQ48np,Refine(SQfp16)' (a byte for 8 dimensions): 1/25 of Flat is searched, half of it on disk."
        },
    )
    nprobe: int | None = field(
        default=None, metadata={"help": "Lists that an IVF index visits in a search; a sixteenth of them by default."}
    )
    vector_dtype: Literal["float32", "float16"] = field(
        default="float32",
        metadata={"help": "Of the vectors on disk until the index is built; float16 takes half the space."},
    )
    inner_product: bool = field(default=False, metadata={"help": "Search by inner product in place of L2 distance."})
    train_size: int = field(default=100_000, metadata={"help": "Vectors to train the index on, drawn at random."})
    max_input_length: int | None = field(
        default=None,
        metadata={
            "help": "Inputs are cut to this many tokens, here and in adaptations; what the model takes by default. A sentence-transformers encoder cuts "
            "where it says itself."
        },
    )
    max_target_length: int = field(
        default=64, metadata={"help": "Answers are cut to this many tokens in adaptations."}
    )
    encoder_name_or_path: str | None = field(
        default=None,
        metadata={"help": "A sentence-transformers model that encodes in place of the upstream model."},
    )
    encoder_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of an encoder on the Hub."}
    )
    encoder_prompt: str | None = field(
        default=None,
        metadata={"help": "Text before each input, such as 'query: '; the encoder's default prompt by default."},
    )
    pooling: Literal["mean", "weighted_mean"] = field(
        default="mean",
        metadata={
            "help": "How the states of an input's tokens become its vector; weighted_mean counts later tokens more, as suits decoder-only models."
        },
    )
    bf16: bool = field(default=False, metadata={"help": "Encode in bfloat16, here and in retrieval."})
    learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate that adaptations of this model use unless told otherwise."}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Say what it will take, time, memory and disk, from a small probe, and stop."}
    )
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})


def main(argv: Sequence[str]) -> None:
    """Builds an index as the command line says, or says what it will take."""
    parser = CommandParser("index", [IndexArguments, ClusterArguments, ChatArguments], about=ABOUT, groups=GROUPS)
    if gone := [flag for flag in ("--part", "--num_parts") if any(word.split("=")[0] == flag for word in argv)]:
        parser.error(
            f"{' and '.join(gone)}: gone, for `--engine ray` shares the work out itself; give that in their place"
        )
    given = parser.said(argv)
    args: Any = parser.made(IndexArguments, given)
    chat, cluster = parser.made(ChatArguments, given), parser.made(ClusterArguments, given)
    cluster.check(parser, given)
    _check_encoder(parser, args, given)
    columns = named_values("--columns", args.columns, parser.error, known=list(COLUMNS))
    check_apart(args.output_dir, {"the upstream model": args.model_name_or_path})
    check_apart_from_files(
        args.output_dir, [path for one in args.train_files if "://" not in one for path in files_of(one)]
    )
    if not args.overwrite:
        check_not_of_others(args.output_dir, MANIFEST_FILE, overwritten=OF_MODELS)
    # The others wait while the main process trains and fills an index of millions.
    state = process_state(timeout=timedelta(days=1))
    if cluster.engine == "ray":
        show(index_on_cluster(args, chat, cluster, columns))
        return
    model, tokenizer = upstream_model(args, chat)
    with state.main_process_first():
        upstream = load_examples(args.train_files, columns=columns)
    encoder = encoder_of(args, model, tokenizer)
    index_settings = {
        "factory": args.factory,
        "metric_type": faiss.METRIC_INNER_PRODUCT if args.inner_product else faiss.METRIC_L2,
        "train_size": args.train_size,
    }
    vectors = {"vector_dtype": args.vector_dtype}
    if args.dry_run:
        said: object = plan_index(upstream, encoder, args.output_dir, model=model, **index_settings, **vectors)
    else:
        if args.overwrite:
            make_way(args.output_dir)
        pipeline = _build(args, model, tokenizer, upstream, encoder, **index_settings, **vectors)
        said = f"{len(pipeline.index)} examples indexed in {args.output_dir}."
    if state.is_main_process:
        show(str(said))
    end_process_group()


def _check_encoder(parser: CommandParser, args: IndexArguments, said: Collection[str]) -> None:
    """Refuses flags of the one kind of encoder beside the other."""
    own, others = ("pooling", "bf16"), ("encoder_revision", "encoder_prompt")
    is_own = args.encoder_name_or_path is None
    if wrong := [f"--{name}" for name in (others if is_own else own) if name in said]:
        kind = (
            "a sentence-transformers model (--encoder_name_or_path), found none"
            if is_own
            else ("the upstream model's own encoder, found --encoder_name_or_path")
        )
        parser.error(f"{', '.join(wrong)}: for {kind}; leave out the one or the other")


def _build(
    args: IndexArguments,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    upstream: Dataset,
    encoder: MeanPooledEncoder | SentenceEncoder,
    **settings: Any,
) -> ReCrossPipeline:
    if process_state().is_main_process:
        shards = np.dtype(args.vector_dtype).itemsize * encoder.dimension * len(upstream)
        warn_where_disk_is_short(
            args.output_dir,
            shards + index_bytes(encoder.dimension, len(upstream), args.factory),
            "Use a larger disk, a smaller --factory, such as SQ8, or --vector_dtype float16.",
        )
    adaptation: dict[str, float] = {
        "max_input_length": args.max_input_length or MeanPooledEncoder(model, tokenizer).max_length,
        "max_target_length": args.max_target_length,
    }
    if args.learning_rate is not None:
        adaptation["learning_rate"] = args.learning_rate
    return ReCrossPipeline.build(
        model,
        tokenizer,
        upstream,
        args.output_dir,
        encoder=encoder,
        adaptation=adaptation,
        nprobe=args.nprobe,
        **settings,
    )
