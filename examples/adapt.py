"""Adapt an upstream model to an unseen task from a few unlabelled inputs.

The starter, a small model that comes with the package, on a task it never saw:

    accelerate launch --quiet examples/adapt.py

Your own pipeline and inputs (one a line, or parquet, jsonl, csv), here with LoRA:

    accelerate launch --quiet examples/adapt.py --pipeline bart0-pipeline --query_file tickets.txt --eval_file labelled.jsonl \
        --use_peft --learning_rate 1e-4 --output_dir ticket-triage

From a pipeline on the Hub, and the adapted one to the Hub; what it was made of is named there, and not uploaded again:

    accelerate launch --quiet examples/adapt.py --pipeline org/bart0-pipeline --query_file tickets.txt --use_peft \
        --push_to_hub --hub_model_id me/ticket-triage

Every argument of `Seq2SeqTrainingArguments` works. Settings come from the command line, else from `--preset`, else from the
pipeline, else from the paper.

The launcher's --quiet keeps it from adding a traceback of its own to the line that says what was wrong.
"""

from functools import partial

from recross_hf.cli.main import run

main = partial(run, "adapt")

if __name__ == "__main__":
    main()
