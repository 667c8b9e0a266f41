"""Index upstream examples with an upstream model's own encoder, and write a pipeline folder.

    accelerate launch examples/build_index.py --model_name_or_path bart0 --train_files 'upstream/*/train.parquet' \
        --output_dir bart0-pipeline

A killed run continues when the same command is given again. `examples/adapt.py --pipeline bart0-pipeline` adapts the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import faiss
import torch
from transformers import AutoTokenizer, HfArgumentParser

from recross_hf import MeanPooledEncoder, ReCrossPipeline, load_examples, load_model
from recross_hf.plan import warn_where_disk_is_short
from recross_hf.probing import index_bytes, plan_index
from recross_hf.processes import process_state


@dataclass
class IndexArguments:
    model_name_or_path: str = field(
        metadata={"help": "The upstream model: any sequence-to-sequence or decoder-only model."}
    )
    train_files: list[str] = field(metadata={"help": "Upstream examples: files, folders or patterns."})
    output_dir: str = field(metadata={"help": "The pipeline folder to write."})
    columns: list[str] = field(
        default_factory=list, metadata={"help": "Column mapping, e.g. --columns references=outputs id=example_id"}
    )
    factory: str = field(
        default="Flat", metadata={"help": "FAISS factory string: Flat, SQ8, IVF1024,Flat, HNSW32, ..."}
    )
    inner_product: bool = field(default=False, metadata={"help": "Search by inner product in place of L2 distance."})
    train_size: int = field(default=100_000, metadata={"help": "Vectors to train the index on, drawn at random."})
    max_input_length: int | None = field(
        default=None,
        metadata={
            "help": "Inputs are cut to this many tokens, here and in adaptations; what the model takes by default."
        },
    )
    max_target_length: int = field(
        default=64, metadata={"help": "Answers are cut to this many tokens in adaptations."}
    )
    bf16: bool = field(default=False, metadata={"help": "Encode in bfloat16, here and in retrieval."})
    learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate that adaptations of this model use unless told otherwise."}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Say what it will take, time, memory and disk, from a small probe, and stop."}
    )


def main() -> None:
    args = HfArgumentParser(IndexArguments).parse_args_into_dataclasses()[0]
    state = process_state()
    model = load_model(args.model_name_or_path).to(state.device)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    with state.main_process_first():
        upstream = load_examples(args.train_files, columns=dict(pair.split("=", 1) for pair in args.columns))
    encoder = MeanPooledEncoder(
        model, tokenizer, max_length=args.max_input_length, autocast_dtype=torch.bfloat16 if args.bf16 else None
    )
    index_settings = {
        "factory": args.factory,
        "metric_type": faiss.METRIC_INNER_PRODUCT if args.inner_product else faiss.METRIC_L2,
        "train_size": args.train_size,
    }
    if args.dry_run:
        state.print(plan_index(upstream, encoder, args.output_dir, model=model, **index_settings))
        state.wait_for_everyone()
        state.destroy_process_group()
        return
    vectors, index = 4 * encoder.dimension * len(upstream), index_bytes(encoder.dimension, len(upstream), args.factory)
    if state.is_main_process:
        warn_where_disk_is_short(
            args.output_dir, vectors + index, "Use a larger disk or a smaller --factory, such as SQ8."
        )
    adaptation = {"max_input_length": encoder.max_length, "max_target_length": args.max_target_length}
    if args.learning_rate is not None:
        adaptation["learning_rate"] = args.learning_rate
    pipeline = ReCrossPipeline.build(
        model,
        tokenizer,
        upstream,
        args.output_dir,
        encoder=encoder,
        adaptation=adaptation,
        **index_settings,
    )
    state.print(f"{len(pipeline.index)} examples indexed in {args.output_dir}.")
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    main()
