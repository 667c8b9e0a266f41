"""Index upstream examples with an upstream model's own encoder, and write a pipeline folder.

    accelerate launch --quiet examples/build_index.py --model_name_or_path bart0 --train_files 'upstream/*/train.parquet' \
        --output_dir bart0-pipeline

A killed run continues when the same command is given again. `examples/adapt.py --pipeline bart0-pipeline` adapts the model.

Beyond one machine, workers of a Ray cluster build it (the extra [cluster]):

    python examples/build_index.py ... --engine ray --ray_address 10.0.0.1:6379 --storage s3://bucket/index

The launcher's --quiet keeps it from adding a traceback of its own to the line that says what was wrong.
"""

from functools import partial

from recross_hf.cli.main import run

main = partial(run, "index")

if __name__ == "__main__":
    main()
