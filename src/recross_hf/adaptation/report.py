"""The report of an adaptation: one page, for somebody without labels, on what changed and why."""

from __future__ import annotations

import difflib
import json
import math
import platform
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from typing import Any

from datasets import Dataset
from jinja2 import Environment, StrictUndefined

from .._version import __version__
from ..core.statistics import Interval, share_interval
from .results import form_rows

REPORT_FILE = "report.html"
SHOWN_INPUTS = 32
"""Number of inputs that are answered for the report, and shown in it: hundreds of inputs cost no more than these."""
_TEMPLATE = "report.html"
_SHOWN_EXAMPLES = 4
_SHOWN_TASKS = 15
_LONGEST_HEAD = 280
# Comparing word by word takes time that grows with the square of their number.
_MOST_WORDS = 500
# Answers with less in common are two answers, and no corrected one.
_LEAST_IN_COMMON = 0.5
_PACKAGES = ("torch", "transformers", "accelerate", "datasets")

Answers = tuple[Sequence[str], Sequence[str]]
"""Answers of the base, and of what was written, to the shown inputs."""


@dataclass(frozen=True)
class AdaptationReport:
    """What the report of an adaptation is made of.

    Args:
        results: What [`adaptation_results`] gives.
        settings: Settings that the model was adapted with, by their names.
        inputs: The unlabelled inputs that are shown, the first ones.
        answers: Answers of the base and of what was written, each in the order of `inputs`; None where they were not generated.
        retrieved: Examples that the model learned from, with `query` and `distance`.
        folder: The folder that the model was written to.
        opens_as_pipeline: Whether `ReCrossPipeline.from_pretrained` opens that folder.
        loading_code: Python that loads the model without this library.
        is_peft: Whether it is an adapter.
    """

    results: Mapping[str, Any]
    settings: Mapping[str, Any]
    inputs: Sequence[str]
    answers: Answers | None
    retrieved: Dataset
    folder: str
    opens_as_pipeline: bool
    loading_code: str
    is_peft: bool

    @property
    def is_refused(self) -> bool:
        """Whether the safety gate put the base's weights back."""
        return self.results["gate"] is not None and not self.results["gate"]["kept"]

    @property
    def num_changed(self) -> int:
        """Number of shown inputs whose answer is another one than before."""
        return 0 if self.answers is None else sum(before != after for before, after in zip(*self.answers, strict=True))

    def to_html(self) -> str:
        """The page, which needs no other file, no script and no network."""
        source = resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
        # Inputs, answers, retrieved texts and names of tasks are anybody's: they are escaped.
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        environment.filters |= {"head": _head, "setting": _setting}
        by_query = _retrieved_for(self.retrieved, range(-1, len(self.inputs)))
        shares = [*self.results["retrieved_tasks"].items()]
        packages = (*_PACKAGES, *(["peft"] if self.is_peft else []))
        return environment.from_string(source).render(
            report=self,
            verdict=verdict(self),
            folder_code=json.dumps(self.folder, ensure_ascii=False),
            # Of a refused model, what was written is the base, and its scores are the same.
            scores=_scores(self.results)[: 1 if self.is_refused else 2],
            pairs=[
                {
                    "input": text,
                    "is_changed": False if self.answers is None else self.answers[0][place] != self.answers[1][place],
                    "answers": None
                    if self.answers is None
                    else marked(self.answers[0][place], self.answers[1][place]),
                    "examples": by_query[place],
                }
                for place, text in enumerate(self.inputs)
            ],
            for_all=by_query[-1],
            form=[] if self.results["gate"] is None else form_rows(self.results["gate"]),
            shown_examples=_SHOWN_EXAMPLES,
            shares=shares[:_SHOWN_TASKS],
            largest=max(share for _, share in shares),
            others=(len(shares[_SHOWN_TASKS:]), sum(share for _, share in shares[_SHOWN_TASKS:])),
            total_seconds=sum(self.results["seconds"].values()),
            versions={"recross_hf": __version__, "Python": platform.python_version()}
            | {name: metadata.version(name) for name in packages},
        )


def verdict(report: AdaptationReport) -> tuple[str, list[str]]:
    """The first sentence of a report, and those that explain it: what changed, and what is known of whether that is good."""
    results, gate, shown = report.results, report.results["gate"], len(report.inputs)
    scored = _scores(results)
    if report.is_refused:
        first = "The safety gate did not keep the adapted model: what was written answers as the base model does"
    elif report.answers is None:
        first = "The model was adapted"
    elif report.num_changed:
        first = f"The adapted model answers {report.num_changed} of {shown} inputs in another way than the base model"
    else:
        first = (
            f"The adapted model answers {'the input' if shown == 1 else f'all {shown} inputs'} as the base model does"
        )
    more = []
    if not report.is_refused and scored:
        base, adapted = (intervals[0] for _, intervals in scored)
        first += f", and exact match on {results['adapted']['n']:,} labelled examples went from {base.mean:.1f} % to {adapted.mean:.1f} %"
        if base.low <= adapted.high and adapted.low <= base.high:
            more.append("The intervals of the two scores overlap, so that the difference may be one of chance.")
    elif not report.is_refused:
        more.append(
            "There were no labels, so that nobody can say whether the answers got better: read some of them below."
        )
    if gate is None:
        more.append(
            "The safety gate was off. With --gate form, the base model's weights are put back where the answers lose their form; "
            "it needs no labels."
        )
    elif gate["kept"]:
        more.append(f"The safety gate kept the adapted model. {gate['reason']}")
        if gate["level"] == "form":
            more.append(
                "It looks at the form of answers. With --gate strict, it also asks whether held-out examples got likelier."
            )
    else:
        more.append(f"The base model's weights were put back. {gate['reason']}")
    return f"{first}.", more


def marked(before: str, after: str) -> list[list[tuple[str, bool]]]:
    """Both texts in pieces, each with whether it is only in this one; texts with little in common are one piece."""
    if before == after:
        return [[(before, False)], [(after, False)]]
    words = [re.findall(r"\s+|\S+", text) for text in (before, after)]
    if max(map(len, words)) <= _MOST_WORDS:
        matcher = difflib.SequenceMatcher(None, words[0], words[1], autojunk=False)
        if matcher.ratio() >= _LEAST_IN_COMMON:
            pieces: list[list[tuple[str, bool]]] = [[], []]
            for kind, first, last, start, end in matcher.get_opcodes():
                for side, text in enumerate(("".join(words[0][first:last]), "".join(words[1][start:end]))):
                    pieces[side] += [(text, kind != "equal")] if text else []
            return pieces
    return [[(before, True)], [(after, True)]]


def _retrieved_for(retrieved: Dataset, queries: Sequence[int]) -> dict[int, dict[str, Any]]:
    """How many examples each input brought, and its nearest ones, each once; -1 stands for all inputs together."""
    rows: dict[int, list[int]] = defaultdict(list)
    for row, query in enumerate(retrieved["query"][:]):
        rows[query].append(row)
    distances, ids = retrieved["distance"][:], retrieved["id"][:]
    found = {}
    for query in queries:
        nearest = sorted(rows[query], key=lambda row: math.inf if math.isnan(distances[row]) else distances[row])
        distinct = [*{ids[row]: row for row in reversed(nearest)}.values()][::-1]
        found[query] = {"number": len(distinct), "nearest": [*retrieved.select(distinct[:_SHOWN_EXAMPLES])]}
    return found


def _scores(results: Mapping[str, Any]) -> list[tuple[str, list[Interval]]]:
    """Model, exact match and SoftEM with their intervals; nothing where nothing was evaluated."""
    if not (results["base"] and results["adapted"]):
        return []
    return [
        (name, [share_interval(results[name][metric], results[name]["n"]) for metric in ("exact_match", "soft_em")])
        for name in ("base", "adapted")
    ]


def _head(text: str) -> str | None:
    """The beginning of a text that is too long to be shown at once."""
    return None if len(text) <= _LONGEST_HEAD else text[:_LONGEST_HEAD].rstrip()


def _setting(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
