"""The flags that say which pipeline a sub-command works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..core.environment import PIPELINE_VARIABLE


@dataclass
class PipelineChoice:
    """The pipeline, and its revision."""

    pipeline: str | None = field(
        default=None,
        metadata={
            "help": f"A pipeline folder, or a name on the Hub; by default what {PIPELINE_VARIABLE} names, else the starter."
        },
    )
    revision: str | None = field(
        default=None, metadata={"help": "Of a pipeline on the Hub: a branch, a tag or a commit."}
    )
