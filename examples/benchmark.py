"""Does retrieval pay, and which part of it? Methods x target tasks x query sets.

The starter, on the tasks that it never saw:

    python examples/benchmark.py

Your own pipeline, the paper's way: folders with test.parquet, query-0.parquet, ... or a YAML file (see `read_target_tasks`):

    accelerate launch --quiet examples/benchmark.py --pipeline bart0-pipeline --target_tasks 'target/*' --num_query_sets 5 \
        --methods none random bm25 sbert dense recross --sbert_name_or_path sentence-transformers/all-distilroberta-v1 \
        --ablations recross --output_dir benchmark

`--dry_run` says what it will take. Every cell is a file below `output_dir`: run it again to continue, run it several times at once to share the work, on machines
that share a folder, too. Processes of `accelerate launch` work on cells of their own, each on its GPU. Every argument of an adaptation
(`--num_retrieved`, `--learning_rate`, ...) holds for all methods; those of the pipeline are the defaults.

The launcher's --quiet keeps it from adding a traceback of its own to the line that says what was wrong.
"""

from functools import partial

from recross_hf.cli.main import run

main = partial(run, "benchmark")

if __name__ == "__main__":
    main()
