"""Prepare upstream data: the rows of many tasks become examples, split, without repetition or contamination.

The paper's tasks, from the Hub, by the templates of PromptSource, free of its target tasks:

    python examples/prepare_upstream.py --tasks recross --output_dir upstream --num_proc 8

Your own tasks, listed in a YAML file (see `recross_hf.mixture.sources.read_task_sources`), and your own targets:

    python examples/prepare_upstream.py --tasks tasks.yaml --target_files 'target/*/test.parquet' --output_dir upstream

Files of examples that are rendered already, a folder a task:

    python examples/prepare_upstream.py --files 'raw/*/train.parquet' --columns references=outputs id=example_id \
        --target_files 'target/*/test.parquet' --output_dir upstream

`--dry_run` says what it will take. A killed run continues; finished tasks are kept. Tasks can be spread over machines: each runs `--only` some of them.
"""

from functools import partial

from recross_hf.cli.main import run

main = partial(run, "prepare")

if __name__ == "__main__":
    main()
