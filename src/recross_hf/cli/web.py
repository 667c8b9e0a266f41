"""`recross web`: try a pipeline in a browser, on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..core.environment import PIPELINE_VARIABLE
from ..web.limits import Limits
from ..web.serving import launch
from .parser import CommandParser
from .pipeline_choice import PipelineChoice

ABOUT = (
    "Serve a page on which a pipeline is tried: paste inputs, see which training examples are near, adapt, compare the answers, take the adapter "
    "away. Nothing leaves this machine. The same page is a Space of the Hub: recross publish --space."
)
GROUPS = {
    "What is served, and where": ["pipeline", "revision", "host", "port", "browser"],
    "What a visitor may ask for": ["max_inputs", "max_characters", "max_retrieved", "max_adaptation_steps"],
}
_LIMITS = Limits()


@dataclass
class WebArguments(PipelineChoice):
    """What `recross web` takes."""

    host: str = field(
        default="127.0.0.1", metadata={"help": "The address to listen at; 0.0.0.0 lets other machines in."}
    )
    port: int | None = field(default=None, metadata={"help": "The port; the first that is free from 7860 on."})
    browser: bool = field(default=False, metadata={"help": "Open a browser."})
    max_inputs: int = field(default=_LIMITS.inputs, metadata={"help": "Inputs of a visitor."})
    max_characters: int = field(default=_LIMITS.characters, metadata={"help": "Characters of an input."})
    max_retrieved: int = field(default=_LIMITS.retrieved, metadata={"help": "Examples to learn from."})
    max_adaptation_steps: int = field(default=_LIMITS.steps, metadata={"help": "Steps of a training."})

    @property
    def limits(self) -> Limits:
        """How much a visitor may ask for."""
        return Limits(
            self.max_inputs, self.max_characters, retrieved=self.max_retrieved, steps=self.max_adaptation_steps
        )


def main(argv: Sequence[str]) -> None:
    """Serves the page as the command line says, until it is interrupted."""
    parser = CommandParser("web", [WebArguments], about=ABOUT, groups=GROUPS, positional="pipeline")
    (args,) = parser.parse(argv)
    launch(
        args.pipeline or os.environ.get(PIPELINE_VARIABLE) or None,
        revision=args.revision,
        limits=args.limits,
        host=args.host,
        port=args.port,
        opens_browser=args.browser,
        tell=lambda address: print(f"The page is at {address} (Ctrl+C ends it)", flush=True),
    )
