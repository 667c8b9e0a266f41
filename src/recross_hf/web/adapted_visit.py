"""`AdaptedVisit`: what came of a visitor's adaptation, and how it is told."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo

from ..adaptation.report import REPORT_FILE, SHOWN_INPUTS, AdaptationReport, marked, verdict
from ..data.schema import ExampleError
from ..hub.publishing import full_name
from ..hub.repository import is_repo_id
from ..pipeline.pipeline import ReCrossPipeline
from .inputs import Given
from .retrieved import Found

ADAPTER_FOLDER = "adapter"
"""Name of the folder that is taken away."""


@dataclass(frozen=True)
class AdaptedVisit:
    """What came of an adaptation.

    Args:
        pipeline: The adapted pipeline, whose adapter lies on the weights that all visitors share.
        given: The inputs.
        found: What was learned from.
        results: What [`adaptation_results`][recross_hf.adaptation.results.adaptation_results] gives.
        settings: Settings of the adaptation.
        answers: Answers before and after to the inputs.
        folder: Folder with the adapter, its card and the examples.
        code: Python that loads the adapter, and that makes it anew.
    """

    pipeline: ReCrossPipeline
    given: Given
    found: Found
    results: Mapping[str, Any]
    settings: Mapping[str, Any]
    answers: tuple[Sequence[str], Sequence[str]]
    folder: Path
    code: str

    @property
    def report(self) -> AdaptationReport:
        """The report, of which the page shows a part."""
        shown = slice(SHOWN_INPUTS)
        return AdaptationReport(
            results=self.results,
            settings=self.settings,
            inputs=self.given.texts[shown],
            answers=(self.answers[0][shown], self.answers[1][shown]),
            retrieved=self.found.retrieved,
            folder=ADAPTER_FOLDER,
            opens_as_pipeline=False,
            loading_code=self.code,
            is_peft=True,
        )

    @property
    def is_kept(self) -> bool:
        """Whether the safety gate kept the adapted model, if there was one."""
        return not self.report.is_refused

    @property
    def verdict(self) -> list[str]:
        """What changed and what is known of it, in sentences."""
        first, more = verdict(self.report)
        return [_as_on_the_page(sentence) for sentence in (first, *more)]

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """The inputs with their answers before and after, and what differs marked."""
        return [compared(*pair) for pair in zip(self.given.texts, *self.answers, strict=True)]

    def zipped(self, folder: Path, name: str) -> Path:
        """The adapter, its card, the examples and the report as a zip file.

        Args:
            folder: Folder to write to.
            name: Name of the file, without an ending.
        """
        self.write_report(self.folder / REPORT_FILE)
        return Path(shutil.make_archive(str(folder / name), "zip", self.folder.parent, self.folder.name))

    def write_report(self, path: Path) -> Path:
        """Writes the report, a page that needs nothing else.

        Args:
            path: File to write.
        """
        path.write_text(self.report.to_html(), encoding="utf-8")
        return path

    def push(
        self, repo_id: str, token: str, *, private: bool, planning: AbstractContextManager[object] | None = None
    ) -> CommitInfo:
        """Publishes the adapted pipeline under the visitor's name and with the visitor's token; parts that are on the Hub are named.

        Args:
            repo_id: Name of the repository.
            token: The visitor's token. That of whoever serves the page is never used.
            private: Whether repositories that are made are private.
            planning: Held while it is found out what is to be written, and not while it is.

        Raises:
            ExampleError: A name or a token is missing.
            HubError: The Hub does not take it.
        """
        repo_id, token = repo_id.strip(), token.strip()
        if not repo_id or not is_repo_id(repo_id):
            raise ExampleError(
                f"Expected the name of a repository, such as me/my-adapter, found {repo_id!r}. Write one."
            )
        if not token:
            raise ExampleError(
                "Expected a token of yours that may write, found none. Make one at huggingface.co/settings/tokens and paste it."
            )
        repo_id = full_name(repo_id, token)
        with tempfile.TemporaryDirectory() as scratch:
            with planning or nullcontext():
                planned = self.pipeline.publication(repo_id, Path(scratch))
            return planned.push(token=token, private=private)[-1]


def compared(text: str, before: str, after: str) -> dict[str, Any]:
    """An input with its answers before and after, in pieces of which those that differ are marked."""
    return {"input": text, "is_changed": before != after, "answers": marked(before, after)}


def ten_lines(
    pipeline: str | None,
    revision: str | None,
    *,
    settings: Mapping[str, Any],
    lora: Mapping[str, Any] | None,
    retriever: str,
    excluded: Sequence[str],
) -> str:
    """Python that loads a visitor's adapter, and Python that makes it anew from a file of the inputs.

    Args:
        pipeline: Name of the pipeline; None for the starter.
        revision: Its commit.
        settings: Settings of the adaptation that a visitor could choose.
        lora: Arguments of the `LoraConfig`; None where the upstream model has an adapter of its own.
        retriever: Name of the class of the retriever.
        excluded: Tasks that were left out.
    """
    name = [] if pipeline is None else [json.dumps(pipeline)]
    name += [] if revision is None else [f"revision={json.dumps(revision)}"]
    more = ""
    lines = []
    if lora is not None:
        lines.append(f"lora = LoraConfig({', '.join(f'{key}={json.dumps(value)}' for key, value in lora.items())})")
        more += ", peft_config=lora"
    if excluded:
        lines.append(f"others = {retriever}(pipeline.index, exclude_tasks={json.dumps(list(excluded))})")
        more += ", retriever=others"
    return "\n".join(
        [
            *(["from peft import LoraConfig"] if lora is not None else []),
            f"from recross_hf import {', '.join([*([retriever] if excluded else []), 'ReCrossPipeline'])}",
            "",
            f"pipeline = ReCrossPipeline.from_pretrained({', '.join(name)})",
            f'pipeline.add_adapted("mine", "{ADAPTER_FOLDER}")  # the folder of the zip file',
            'print(pipeline.adapted_as("mine")("one more input"))',
            "",
            "# The same adaptation anew, from a file with one input a line:",
            'inputs = [line.strip() for line in open("inputs.txt", encoding="utf-8") if line.strip()]',
            *lines,
            f"settings = {json.dumps(dict(settings))}",
            f"adapted = pipeline.adapt(inputs{more}, **settings)",
        ]
    )


def _as_on_the_page(sentence: str) -> str:
    """A sentence with the names that flags of the command line have among the settings of the page."""
    return re.sub(r"--gate (\w+)", r"the gate “\1”", sentence)
