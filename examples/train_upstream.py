"""Train an upstream model: one text-to-text model on a mixture of many tasks.

From a pretrained sequence-to-sequence model, as the paper does (BART-large on 36 tasks), or a decoder-only one:

    accelerate launch examples/train_upstream.py --train_files 'upstream/*/train.parquet' \
        --model_name_or_path facebook/bart-large --output_dir bart0 --bf16 --max_steps 22000

From a pretrained encoder, where the machine is small:

    accelerate launch examples/train_upstream.py --train_files 'upstream/*/train.parquet' \
        --encoder_name_or_path sentence-transformers/all-MiniLM-L6-v2 --decoder_layers 2 --freeze_embeddings \
        --max_input_length 128 --drop_long_targets --max_target_length 24 --output_dir minilm0

Every argument of `Seq2SeqTrainingArguments` works; `--resume_from_checkpoint DIR` continues a killed run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from accelerate import PartialState
from datasets import concatenate_datasets
from transformers import AutoTokenizer, HfArgumentParser, set_seed

from recross_hf import ExampleTrainer, ExampleTrainingArguments, load_examples, load_model, warm_start_seq2seq
from recross_hf.architectures import architecture_of


@dataclass
class UpstreamArguments:
    train_files: list[str] = field(metadata={"help": "Upstream examples: files, folders or patterns."})
    eval_files: list[str] | None = field(default=None, metadata={"help": "Held-out examples of the upstream tasks."})
    columns: list[str] = field(
        default_factory=list, metadata={"help": "Column mapping, e.g. --columns references=outputs id=example_id"}
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A sequence-to-sequence or decoder-only model to start from."}
    )
    encoder_name_or_path: str | None = field(
        default=None, metadata={"help": "Or a BERT-like encoder to grow one from."}
    )
    encoder_layers: int | None = field(default=None, metadata={"help": "How many of its layers the encoder keeps."})
    decoder_layers: int = field(default=2, metadata={"help": "How many of its layers the decoder keeps."})
    freeze_embeddings: bool = field(default=False, metadata={"help": "Keep the pretrained embeddings as they are."})
    freeze_encoder_layers: int = field(
        default=0, metadata={"help": "Keep this many of the encoder's first layers as they are, too."}
    )
    max_examples_per_task: int | None = field(default=None, metadata={"help": "Cap on the examples of a task."})
    drop_long_targets: bool = field(
        default=False,
        metadata={"help": "Leave out examples whose answer exceeds max_target_length, in place of cutting it."},
    )


def main() -> None:
    parser = HfArgumentParser((UpstreamArguments, ExampleTrainingArguments))
    upstream, args = parser.parse_args_into_dataclasses()
    if (upstream.model_name_or_path is None) == (upstream.encoder_name_or_path is None):
        parser.error("give --model_name_or_path or --encoder_name_or_path, one of them")
    set_seed(args.seed)
    if upstream.model_name_or_path is not None:
        model = load_model(upstream.model_name_or_path)
        tokenizer = AutoTokenizer.from_pretrained(upstream.model_name_or_path)
    else:
        model, tokenizer = warm_start_seq2seq(
            upstream.encoder_name_or_path,
            encoder_layers=upstream.encoder_layers,
            decoder_layers=upstream.decoder_layers,
            max_new_tokens=args.max_target_length,
            freeze_embeddings=upstream.freeze_embeddings,
            freeze_encoder_layers=upstream.freeze_encoder_layers,
        )

    columns = dict(pair.split("=", 1) for pair in upstream.columns)
    with PartialState().main_process_first():
        train = load_examples(upstream.train_files, columns=columns)
        evaluation = load_examples(upstream.eval_files, columns=columns) if upstream.eval_files else None
    if upstream.drop_long_targets:
        answers = [references[0] for references in train["references"]]
        token_ids = architecture_of(model).answer_ids(tokenizer, answers, args.max_target_length + 1)
        train = train.select([row for row, ids in enumerate(token_ids) if len(ids) <= args.max_target_length])
    if upstream.max_examples_per_task:
        train = concatenate_datasets(
            [
                group.select(range(min(len(group), upstream.max_examples_per_task)))
                for name in dict.fromkeys(train["task"])
                for group in [train.filter(lambda task, name=name: task == name, input_columns="task")]
            ]
        )

    trainer = ExampleTrainer(model, args, train_dataset=train, eval_dataset=evaluation, processing_class=tokenizer)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    if evaluation is not None:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)
    if args.push_to_hub:
        trainer.push_to_hub()
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main()
