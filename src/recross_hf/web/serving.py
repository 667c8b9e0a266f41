"""`launch` and `launch_space`: serve the page, on this machine or in a Space."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ..core.environment import PIPELINE_VARIABLE, REVISION_VARIABLE
from ..pipeline.pipeline import ReCrossPipeline
from .actions import Actions
from .layout import css, imported_gradio, theme
from .limits import Limits
from .page import Page
from .served import ServedPipeline
from .visits import Visits

_LARGEST_UPLOAD = 32 << 20
"""Bytes from which on a file is not even received; those that are larger than the limits are refused with a reason."""


def launch(
    pipeline: str | None = None,
    *,
    revision: str | None = None,
    limits: Limits | None = None,
    host: str | None = None,
    port: int | None = None,
    opens_browser: bool = False,
    tell: Callable[[str], object] | None = None,
) -> None:
    """Serves the page until it is interrupted.

    Args:
        pipeline: Folder of a pipeline, or its name on the Hub; the starter by default.
        revision: Of a pipeline on the Hub: a branch, a tag or a commit.
        limits: How much a visitor may ask for.
        host: Address to listen at; that which `GRADIO_SERVER_NAME` says by default, or 127.0.0.1.
        port: Port to listen at; that which `GRADIO_SERVER_PORT` says by default, or the first that is free from 7860 on.
        opens_browser: Whether a browser is opened.
        tell: Is called with the address, once the page is there.

    Raises:
        ImportError: gradio or peft is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="recross-web-files-", ignore_cleanup_errors=True) as files:
        gr = imported_gradio(Path(files))
        import peft  # noqa: F401 (a page that could not adapt is not shown)

        limits = limits or Limits()
        served = ServedPipeline(ReCrossPipeline.from_pretrained(pipeline, revision=revision), limits, pipeline)
        visits = Visits(limits, Path(files))
        page = Page(gr, Actions(served, visits)).blocks
        serve = partial(
            page.launch,
            server_name=host,
            server_port=port,
            inbrowser=opens_browser,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            footer_links=[],
            max_file_size=_LARGEST_UPLOAD,
            ssr_mode=False,
            theme=theme(gr),
            css=css(),
        )
        with _ending_cleanly(visits):
            try:
                _, address, _ = serve()
            except OSError as error:
                raise OSError(f"Expected a free port to serve the page at, found none: {error}") from error
            if tell is not None:
                tell(address)
            page.block_thread()


def launch_space(pipeline: str | None = None, *, revision: str | None = None) -> None:
    """Serves the page in a Space, whose variables come before what its code says: whoever duplicates it changes no code.

    Args:
        pipeline: Name of a pipeline on the Hub, unless `RECROSS_PIPELINE` names another; the starter by default.
        revision: Its commit, unless `RECROSS_REVISION` names another; that of the code does not go with another pipeline.
    """
    other = os.environ.get(PIPELINE_VARIABLE)
    launch(other or pipeline, revision=os.environ.get(REVISION_VARIABLE) or (None if other else revision))


@contextmanager
def _ending_cleanly(visits: Visits) -> Iterator[None]:
    """Removes the visitors' files at the end, also where the system ends the process, as it does with a Space."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        visits.end_all()
