"""`recross publish`: publish a pipeline and the SoftEM metric on the Hub, one commit a repository, the pipeline's own last."""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import ModelCard, RepoCard
from huggingface_hub.utils import HFValidationError, validate_repo_id

from .. import ReCrossPipeline, soft_em
from ..core.files import read_json
from ..core.recipes import named_values
from ..hub.publishing import Publication, publish
from ..hub.repository import Repository
from ..pipeline.manifest import INDEX, RERANKER, UPSTREAM_MODEL
from ..pipeline.saving import PIPELINE
from ..web.space import space_publication
from .errors import UsageError
from .parser import CommandParser

# What the project itself publishes lies in a checkout of it, beside the package.
CHECKOUT = Path(__file__).parents[3]
SPACE, MODEL_CARDS = CHECKOUT / "examples" / "soft_em_space", CHECKOUT / "model_cards"
ABOUT = (
    "Publish a pipeline on the Hub: its model, its index and its reranker in repositories of their own, the pipeline's last. Look first, "
    "without a token and without a request, with --dry_run. Run again after a failure: what is there is not uploaded again."
)
GROUPS = {
    "What to publish, and where": ["pipeline", "namespace", "name", "private", "revision", "create_pr"],
    "What its cards say": ["license", "results", "cards"],
    "Before and beside": ["dry_run", "metric", "space"],
}


@dataclass
class PublishArguments:
    """What `recross publish` takes."""

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
        default=None,
        metadata={"help": "The eval_results.json that `recross train` wrote, for the upstream model's card."},
    )
    cards: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Cards in place of those that are written, e.g. index=model_cards/index.md; also upstream_model, reranker, pipeline."
        },
    )
    metric: bool = field(
        default=True,
        metadata={
            "help": "Publish the SoftEM metric, too, from a checkout of this project. --no_metric: the pipeline alone."
        },
    )
    space: bool = field(
        default=False,
        metadata={
            "help": "Publish a Space on which the pipeline is tried, pinned to its commit and to this version of the library."
        },
    )
    dry_run: bool = field(default=False, metadata={"help": "Show every file, size and card, and publish nothing."})


def read_card(path: str | Path, repo_id: str) -> RepoCard:
    """A card with the names that it is published under."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"Expected a card, a text in UTF-8, as --cards, found {path}, which is none.") from error
    text = text.replace("this-namespace/this-pipeline", repo_id)
    return ModelCard(text.replace("this-namespace", repo_id.partition("/")[0]))


def metric_space(namespace: str) -> Publication:
    """SoftEM as a Space, which `evaluate.load` takes by its name."""
    files: dict[str, Path | bytes] = {path.name: path for path in SPACE.iterdir() if path.is_file()}
    files["README.md"] = str(read_card(MODEL_CARDS / "soft_em.md", f"{namespace}/soft_em")).encode()
    files["soft_em.py"] = Path(soft_em.__file__)
    return Publication(f"{namespace}/soft_em", "space", files, space_sdk="gradio")


def left_out_of_the_package(args: PublishArguments) -> list[str]:
    """What would be published from a checkout of this project, and is not there."""
    has_own_card = any(card.startswith(f"{PIPELINE}=") for card in args.cards)
    wanted = {
        "the SoftEM metric": (SPACE, args.metric),
        "the starter's own card, in whose place one is written": (
            MODEL_CARDS,
            args.pipeline is None and not has_own_card,
        ),
    }
    return [what for what, (folder, is_wanted) in wanted.items() if is_wanted and not folder.is_dir()]


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


def main(argv: Sequence[str]) -> None:
    """Publishes as the command line says, or shows what it would publish."""
    parser = CommandParser("publish", [PublishArguments], about=ABOUT, groups=GROUPS)
    (args,) = parser.parse(argv)
    if left_out := left_out_of_the_package(args):
        print(
            f"Left out, for it lies in a checkout of this project and not in the installed package: {' and '.join(left_out)}."
        )
    args.metric = args.metric and SPACE.is_dir()
    cards_at = named_values("--cards", args.cards, parser.error, known=[PIPELINE, UPSTREAM_MODEL, INDEX, RERANKER])
    pipeline = ReCrossPipeline.from_pretrained(args.pipeline)
    name = args.name or (Path(args.pipeline).resolve().name if args.pipeline else "starter")
    repo_id = f"{args.namespace}/{name}"
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(
            f"Expected --namespace and --name of letters, digits, '-', '_' and '.', found {repo_id!r}. Choose others."
        ) from error
    cards = {name: read_card(path, repo_id) for name, path in cards_at.items()}
    license = args.license
    if args.pipeline is None:
        license = license or "apache-2.0"
        if MODEL_CARDS.is_dir():
            cards.setdefault("pipeline", read_card(MODEL_CARDS / "starter.md", repo_id))
    about = {"license": license, "cards": cards, "results": read_json(Path(args.results)) if args.results else None}
    settings = {"private": args.private or None, "revision": args.revision, "create_pr": args.create_pr}
    if args.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            for publication in pipeline.publication(repo_id, Path(scratch), **about).publications():
                show(publication)
        if args.metric:
            show(metric_space(args.namespace))
        if args.space:
            show(space_publication(Repository(repo_id, revision="0" * 40), license=license))
        print("\nNothing was published: this was a dry run.")
        return
    commits = [publish(metric_space(args.namespace), **settings)] if args.metric else []
    with tempfile.TemporaryDirectory() as scratch:
        commits += pipeline.publication(repo_id, Path(scratch), **about).push(**settings)
    at = commits[-1].oid
    if args.space:
        # After the pipeline: it names the commit.
        commits.append(publish(space_publication(Repository(repo_id, revision=at), license=license), **settings))
    for commit in commits:
        print(commit.pr_url or commit.commit_url)
    if args.create_pr:
        print(
            "\nThe pipeline names the commits proposed of its parts: merge those pull requests or keep them, and do not delete them."
        )
    print(f'\nReCrossPipeline.from_pretrained("{repo_id}", revision="{at}")')
