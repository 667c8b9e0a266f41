"""`recross demo`: adapt the starter, a small model that comes with the package, to a task that it never saw."""

from __future__ import annotations

from collections.abc import Sequence

from ..adaptation.arguments import AdaptationArguments
from .adapt import adapt
from .adapt_arguments import DEFAULTS, ScriptArguments
from .lora import LoraArguments
from .parser import CommandParser

ABOUT = (
    "Adapt the starter, a small model that comes with the package, to a task that it never saw, from sixteen unlabelled inputs. It takes "
    "half a minute on two cores, and no network."
)
GROUPS = {
    "What to adapt to, and how": ["task", "query_set", "retriever", "use_peft", "rerank", "num_retrieved"],
    "Where it goes": ["output_dir", "overwrite"],
}


def main(argv: Sequence[str]) -> None:
    """Adapts the starter as the command line says."""
    parser = CommandParser(
        "demo", (ScriptArguments, LoraArguments, AdaptationArguments), about=ABOUT, groups=GROUPS, defaults=DEFAULTS
    )
    said = parser.said(argv)
    if own := sorted({"pipeline", "query_file", "query_files", "eval_file"} & set(said)):
        parser.error(
            f"Expected the starter and one of its tasks, found --{', --'.join(own)}: `recross adapt` takes what is yours"
        )
    adapt(parser, parser.made(ScriptArguments, said), said)
