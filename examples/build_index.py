"""Index upstream examples with an upstream model's own encoder, and write a pipeline folder.

    accelerate launch --quiet examples/build_index.py --model_name_or_path bart0 --train_files 'upstream/*/train.parquet' \
        --output_dir bart0-pipeline

A killed run continues when the same command is given again. `examples/adapt.py --pipeline bart0-pipeline` adapts the model.

Nodes that do not know of one another, as in a job array, each encode a part to a folder that they share; the command without a
part then finishes the pipeline:

    accelerate launch --quiet examples/build_index.py ... --part 3 --num_parts 8

The launcher's --quiet keeps it from adding a traceback of its own to the line that says what was wrong.
"""

from functools import partial

from recross_hf.cli.main import run

main = partial(run, "index")

if __name__ == "__main__":
    main()
