"""Mine supervision for a reranker: which upstream examples help on which queries (Algorithm 1 of the paper).

    accelerate launch --quiet examples/mine_supervision.py --pipeline bart0-pipeline --output_dir supervision

Queries come from the pipeline's own upstream examples, or from --example_files of the same tasks. Tasks in --exclude_tasks
are neither queried nor retrieved: name the tasks that the reranker is to be judged on. A killed run continues when it is
started again; several processes share the query sets. Written: query_sets/ (what was measured), pairs.parquet (what a
reranker is trained on), README.md (a data card), summary.json and task_utilities.png (which task helps which).

The launcher's --quiet keeps it from adding a traceback of its own to the line that says what was wrong.
"""

from functools import partial

from recross_hf.cli.main import run

main = partial(run, "mine")

if __name__ == "__main__":
    main()
