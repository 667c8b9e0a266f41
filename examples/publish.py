"""Publish a pipeline and the SoftEM metric on the Hub: one commit a repository, the pipeline's own last.

Look first, without a token and without a request:

    python examples/publish.py --namespace my-org --pipeline bart0-pipeline --dry_run

then publish, as `hf auth login` (or HF_TOKEN) allows:

    python examples/publish.py --namespace my-org --pipeline bart0-pipeline --private

    my-org/bart0-pipeline                  recross.json and the card; of an adapted pipeline also what was adapted
    my-org/bart0-pipeline-upstream-model   opens with AutoModelForSeq2SeqLM or AutoModelForCausalLM
    my-org/bart0-pipeline-index            a data set; load_dataset and load_faiss_index
    my-org/bart0-pipeline-reranker         opens with sentence_transformers.CrossEncoder
    my-org/soft_em                         a Space; evaluate.load("my-org/soft_em")

Cards are written from what is known of each part; `--license` and `--results bart0/eval_results.json` add what is not. A README.md in
the folder of a part is published in place of the one that would be written, and so is what `--cards` names:

    python examples/publish.py --namespace my-org --pipeline bart0-pipeline --license apache-2.0 \
        --cards upstream_model=model_cards/bart0.md index=model_cards/index.md reranker=model_cards/reranker.md

In those files `this-namespace/this-pipeline` stands for the pipeline's name. The starter's card and the metric's are those in model_cards/.

Run again after a failure: what is there already is not uploaded a second time.
"""

from functools import partial

from recross_hf.cli.main import run

main = partial(run, "publish")

if __name__ == "__main__":
    main()
