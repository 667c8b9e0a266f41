"""Train a reranker on mined pairs, and put it into a pipeline.

    accelerate launch --quiet examples/train_reranker.py --pairs supervision/pairs.parquet --output_dir reranker \
        --model_name_or_path FacebookAI/roberta-base --num_dev_tasks 4

    accelerate launch --quiet examples/train_reranker.py --pairs supervision/pairs.parquet --output_dir reranker \
        --loss pairwise --group_by_query --add_to_pipeline bart0-pipeline

The dev split holds out whole tasks. Few query sets are soon learned by heart: to keep the checkpoint that does best on held-out
tasks, add --eval_strategy steps --eval_steps 50 --save_strategy steps --save_steps 50 --load_best_model_at_end
--metric_for_best_model eval_auc. What is printed and written to dev_metrics.json: how well the reranker tells what helps
there, beside the dense retriever's own order and chance. Every argument of `TrainingArguments` works.

The launcher's --quiet keeps it from adding a traceback of its own to the line that says what was wrong.
"""

from functools import partial

from recross_hf.cli.main import run

main = partial(run, "train-reranker")

if __name__ == "__main__":
    main()
