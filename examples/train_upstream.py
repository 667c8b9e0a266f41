"""Train an upstream model: one text-to-text model on a mixture of many tasks.

From a pretrained sequence-to-sequence model, as the paper does (BART-large on 36 tasks), or a decoder-only one; on eight
GPUs:

    accelerate launch --quiet --config_file examples/recipes/accelerate/ddp.yaml examples/train_upstream.py \
        --config examples/recipes/bart0.yaml --train_files 'upstream/*/train.parquet' --eval_files 'upstream/*/dev.parquet'

From a pretrained encoder, where the machine is small:

    accelerate launch --quiet examples/train_upstream.py --config examples/recipes/minilm.yaml --train_files 'upstream/*/train.parquet'

A recipe is a YAML file with the arguments of this script; what the command line says comes before it. Every argument of
`Seq2SeqTrainingArguments` works; `--resume_from_checkpoint true` continues a killed run from its last checkpoint.

The launcher's --quiet keeps it from adding a traceback of its own to the line that says what was wrong.
"""

from functools import partial

from recross_hf.cli.main import run

main = partial(run, "train")

if __name__ == "__main__":
    main()
