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

from __future__ import annotations

import tempfile
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import ModelCard, RepoCard
from transformers import HfArgumentParser

import recross_hf.soft_em
from recross_hf import ReCrossPipeline
from recross_hf.core.files import read_json
from recross_hf.core.recipes import named_values
from recross_hf.hub.publishing import Publication, publish
from recross_hf.hub.repository import Repository
from recross_hf.pipeline.manifest import INDEX, RERANKER, UPSTREAM_MODEL
from recross_hf.pipeline.saving import PIPELINE

SPACE = Path(__file__).with_name("soft_em_space")
MODEL_CARDS = Path(__file__).parents[1] / "model_cards"


@dataclass
class PublishArguments:
    namespace: str = field(metadata={"help": "The user or organization to publish under."})
    pipeline: str | None = field(
        default=None, metadata={"help": "A pipeline folder, or a name on the Hub; the starter by default."}
    )
    name: str | None = field(default=None, metadata={"help": "Of the pipeline; that of its folder by default."})
    private: bool = field(default=False, metadata={"help": "Make private repositories."})
    revision: str | None = field(default=None, metadata={"help": "The branch to write to; made if it is not there."})
    create_pr: bool = field(default=False, metadata={"help": "Propose the commits in place of making them."})
    license: str | None = field(default=None, metadata={"help": "Such as apache-2.0, for the cards that are written."})
    results: str | None = field(
        default=None, metadata={"help": "eval_results.json of train_upstream.py, for the upstream model's card."}
    )
    cards: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Cards in place of those that are written, e.g. index=model_cards/index.md; also upstream_model, reranker, pipeline."
        },
    )
    metric: bool = field(default=True, metadata={"help": "Publish the SoftEM metric, too."})
    dry_run: bool = field(default=False, metadata={"help": "Show every file, size and card, and publish nothing."})


def read_card(path: str | Path, repo_id: str) -> RepoCard:
    """A card with the names that it is published under."""
    text = Path(path).read_text(encoding="utf-8").replace("this-namespace/this-pipeline", repo_id)
    return ModelCard(text.replace("this-namespace", repo_id.partition("/")[0]))


def metric_space(namespace: str) -> Publication:
    """SoftEM as a Space, which `evaluate.load` takes by its name."""
    files: dict[str, Path | bytes] = {path.name: path for path in SPACE.iterdir() if path.is_file()}
    files["README.md"] = str(read_card(MODEL_CARDS / "soft_em.md", f"{namespace}/soft_em")).encode()
    files["soft_em.py"] = Path(recross_hf.soft_em.__file__)
    return Publication(f"{namespace}/soft_em", "space", files, space_sdk="gradio")


def show(publication: Publication) -> None:
    """Prints what a repository would hold."""
    sizes = publication.sizes
    repository = Repository(publication.repo_id, publication.repo_type)
    print(f"\n{repository.url} ({publication.repo_type}): {len(sizes)} files, {sum(sizes.values()):,} bytes")
    for name, size in sizes.items():
        print(f"  {size:>15,}  {name}")
    card = publication.files["README.md"]
    text = card.decode() if isinstance(card, bytes) else card.read_text(encoding="utf-8")
    print(textwrap.indent(text, "    | ", lambda line: True))


def main(argv: list[str] | None = None) -> None:
    parser = HfArgumentParser(PublishArguments)
    args = parser.parse_args_into_dataclasses(argv)[0]
    cards_at = named_values("--cards", args.cards, parser.error, known=[PIPELINE, UPSTREAM_MODEL, INDEX, RERANKER])
    pipeline = ReCrossPipeline.from_pretrained(args.pipeline)
    name = args.name or (Path(args.pipeline).resolve().name if args.pipeline else "starter")
    repo_id = f"{args.namespace}/{name}"
    cards = {name: read_card(path, repo_id) for name, path in cards_at.items()}
    license = args.license
    if args.pipeline is None:
        license = license or "apache-2.0"
        cards.setdefault("pipeline", read_card(MODEL_CARDS / "starter.md", repo_id))
    about = {"license": license, "cards": cards, "results": read_json(Path(args.results)) if args.results else None}
    settings = {"private": args.private or None, "revision": args.revision, "create_pr": args.create_pr}
    if args.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            for publication in pipeline.publication(repo_id, Path(scratch), **about).publications():
                show(publication)
        if args.metric:
            show(metric_space(args.namespace))
        print("\nNothing was published: this was a dry run.")
        return
    commits = [publish(metric_space(args.namespace), **settings)] if args.metric else []
    with tempfile.TemporaryDirectory() as scratch:
        commits += pipeline.publication(repo_id, Path(scratch), **about).push(**settings)
    for commit in commits:
        print(commit.pr_url or commit.commit_url)
    if args.create_pr:
        print(
            "\nThe pipeline names the commits proposed of its parts: merge those pull requests or keep them, and do not delete them."
        )
    print(f'\nReCrossPipeline.from_pretrained("{repo_id}", revision="{commit.oid}")')


if __name__ == "__main__":
    main()
