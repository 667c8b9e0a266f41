"""`space_publication`: a Space of the Hub that serves the page, beside a pipeline and pinned to its commit."""

from __future__ import annotations

import json

from huggingface_hub import SpaceCard, SpaceCardData

from .._version import __version__
from ..hub.publishing import Publication
from ..hub.repository import Repository

GRADIO_VERSION = "6.31.0"
"""The version of gradio that the Hub installs for the Space, which the page was tested with."""

_APP = '''"""The page of recross_hf on which a pipeline is tried. RECROSS_PIPELINE and RECROSS_REVISION name another pipeline."""

from recross_hf.web.serving import launch_space

launch_space({arguments})
'''
_CARD = """\
{data}

# Try {title}

Paste about sixteen inputs of a task of yours, without answers. The page finds the training examples that are nearest to them, trains a small
adapter on those in your session, shows the answers before and after, and gives you the adapter, a report and the Python that does the same.

- The pipeline is {pipeline}.
- One adaptation runs at a time; the others wait. Inputs, their length and steps are limited.
- What you paste is seen by nobody else. It is deleted, with all that came of it, when you leave the page.
- To serve another pipeline, duplicate the Space and set the variables `RECROSS_PIPELINE` and, to pin it, `RECROSS_REVISION`. A private pipeline needs
  the secret `HF_TOKEN` beside them, a token that may read it.
- On your own machine: `pip install 'recross_hf[web]'`, then `recross web{argument}`.

The method is ReCross (Lin et al. 2022, [arXiv 2204.07937](https://arxiv.org/abs/2204.07937)).
"""


def space_files(pipeline: Repository | None = None, *, license: str | None = None) -> dict[str, bytes]:
    """The files of the Space: the few lines that serve the page, what they need, and the card.

    Args:
        pipeline: Where the pipeline is, and at which commit; the starter by default.
        license: License, such as apache-2.0.
    """
    name, pinned = (
        ("the starter", "the small starter that comes with recross_hf")
        if pipeline is None
        else (
            pipeline.repo_id,
            f"[{pipeline.repo_id}]({pipeline.url}) at commit `{pipeline.revision}`",
        )
    )
    arguments = "" if pipeline is None else f"{json.dumps(pipeline.repo_id)}, revision={json.dumps(pipeline.revision)}"
    data = SpaceCardData(
        title=f"Adapt {name}",
        emoji="🧭",
        colorFrom="blue",
        colorTo="indigo",
        sdk="gradio",
        sdk_version=GRADIO_VERSION,
        python_version="3.11",
        app_file="app.py",
        pinned=False,
        license=license,
        models=None if pipeline is None else [pipeline.repo_id],
        tags=["recross", "retrieval-augmentation", "unsupervised-adaptation"],
        short_description="See what a model learns from, adapt it, compare",
    )
    content = _CARD.format(
        data=f"---\n{data.to_yaml()}\n---",
        title=name,
        pipeline=pinned,
        argument="" if pipeline is None else f" {pipeline.repo_id}",
    )
    return {
        "README.md": str(SpaceCard(content)).encode(),
        "app.py": _APP.format(arguments=arguments).encode(),
        "requirements.txt": f"recross_hf[web]=={__version__}\n".encode(),
    }


def space_publication(pipeline: Repository, *, license: str | None = None) -> Publication:
    """The Space of a published pipeline, which has the pipeline's name.

    Args:
        pipeline: Where the pipeline is, and at which commit.
        license: License, such as apache-2.0.
    """
    return Publication(pipeline.repo_id, "space", space_files(pipeline, license=license), space_sdk="gradio")
