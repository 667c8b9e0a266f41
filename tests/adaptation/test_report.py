"""The report of an adaptation: it says what changed, in words and marks, and shows texts of others without heeding them."""

import re
from dataclasses import asdict, replace
from html.parser import HTMLParser

import pytest
from datasets import Dataset

from recross_hf.adaptation.answer_form import AnswerForm
from recross_hf.adaptation.report import AdaptationReport, marked, verdict
from recross_hf.models.generation import Answer

NASTY = '<script>alert(1)</script><img src="http://example.com/x.png" onerror=x>"\' {{ 7 * 7 }}'
FORM = asdict(AnswerForm.of([Answer("yes", True), Answer("no", True)], [frozenset({"yes", "no"}), frozenset()]))
GATE = {
    "kept": True,
    "reason": "The loss on 4 held-out retrieved examples went from 2.0000 to 1.0000.",
    "level": "strict",
    "base": {"loss": 2.0, "answers": FORM},
    "adapted": {"loss": 1.0, "answers": FORM | {"among_options_share": 0.0, "unended_share": 0.5, "script": NASTY}},
}
RETRIEVED = {
    "id": ["a", "b", "a", "c", "d", "e", "f"],
    "task": ["sum", "sum", "sum", NASTY, "sum", "sum", "sum"],
    "input": ["far", "near", "far", NASTY, "third", "fourth", "fifth"],
    "references": [["1"], ["2"], ["1"], [NASTY], ["3"], ["4"], ["5"]],
    "query": [0, 0, 0, 1, 0, 0, 0],
    "distance": [9.0, 1.0, 9.0, float("nan"), 2.0, 3.0, 4.0],
}
SCORES = {
    "base": {"soft_em": 30.0, "exact_match": 20.0, "n": 500},
    "adapted": {"soft_em": 61.0, "exact_match": 60.0, "n": 500},
}


def report(results=(), **changes) -> AdaptationReport:
    known = {
        "task": NASTY,
        "num_queries": 3,
        "num_retrieved": 7,
        "base": None,
        "adapted": None,
        "gate": None,
        "retrieved_tasks": {"sum": 0.75, NASTY: 0.25},
        "seconds": {"load": 1.25, "train": 2.0},
    }
    whole = AdaptationReport(
        results=known | dict(results),
        settings={"learning_rate": 1e-6, "retriever": NASTY},
        inputs=["which?", NASTY, " "],
        answers=(["the red cat", NASTY, "same"], ["the blue cat", "", "same"]),
        retrieved=Dataset.from_dict(RETRIEVED),
        folder=f"out {NASTY}",
        opens_as_pipeline=True,
        loading_code="model = load()",
        is_peft=False,
    )
    return replace(whole, **changes)


class Page(HTMLParser):
    """Tags with their attributes, and the texts by the place that they stand at."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.marks: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            return
        self.text += data
        if self.open and self.open[-1] == "mark":
            self.marks.append(data)


def test_texts_of_others_are_shown_and_nothing_of_them_runs_or_loads():
    html = report().to_html()
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "img", "link", "iframe", "object"}
    attributes = [(name, value) for _, found in page.tags for name, value in found.items()]
    assert not [name for name, _ in attributes if name.startswith("on") or name == "src"]
    assert {value[0] for name, value in attributes if name == "href"} == {"#"}
    assert not re.search(r"url\(|@import", html)
    # The name of the task, an input, an answer, an example with its answer and task, a share, a setting, and the folder twice.
    assert page.text.count("<script>alert(1)</script>") >= 9
    assert "49" not in page.text.replace(NASTY, "")


def test_what_changed_is_marked_and_counted():
    page = Page(report().to_html())
    assert page.marks == ["red", "blue", NASTY]
    assert "answers 2 of 3 inputs in another way" in page.text
    assert "Show only what changed (2)" in page.text
    classes = [found.get("class") for tag, found in page.tags if tag == "li" and "pair" in (found.get("class") or "")]
    assert classes == ["pair changed", "pair changed", "pair same"]
    assert "no answer" in page.text
    same = report(answers=(["x", "y", "z"], ["x", "y", "z"]))
    assert "answers all 3 inputs as the base model does" in verdict(same)[0]
    assert Page(same.to_html()).marks == []


@pytest.mark.parametrize(
    ("before", "after", "pieces"),
    [
        (
            "a b c d",
            "a b x d",
            [[("a b ", False), ("c", True), (" d", False)], [("a b ", False), ("x", True), (" d", False)]],
        ),
        ("yes", "no", [[("yes", True)], [("no", True)]]),
        ("", "no", [[("", True)], [("no", True)]]),
        ("a b c", "a b c", [[("a b c", False)], [("a b c", False)]]),
        ("x " * 600, "x " * 601, [[("x " * 600, True)], [("x " * 601, True)]]),  # too long to compare by words
    ],
)
def test_what_only_one_of_two_answers_has(before, after, pieces):
    assert marked(before, after) == pieces


def test_the_verdict_says_what_is_known():
    first, more = verdict(report())
    assert "no labels" in more[0]
    assert "--gate form" in more[1]
    first, more = verdict(report({"gate": GATE | {"level": "form"}}))
    assert "--gate strict" in more[-1] and GATE["reason"] in more[-2]
    first, more = verdict(report({"gate": GATE}))
    assert more[-1] == f"The safety gate kept the adapted model. {GATE['reason']}"
    refused = report({"gate": GATE | {"kept": False}} | SCORES)
    first, more = verdict(refused)
    assert first == "The safety gate did not keep the adapted model: what was written answers as the base model does."
    assert more == [f"The base model's weights were put back. {GATE['reason']}"]
    page = Page(refused.to_html())
    assert "were among the options of their input1 of 10 of 1" in page.text
    assert "ended2 of 21 of 2" in page.text
    assert "so that there is one answer to each input" in page.text
    assert ("20.0 %" in page.text, "60.0 %" in page.text) == (True, False)
    first, more = verdict(report(SCORES))
    assert first.endswith("exact match on 500 labelled examples went from 20.0 % to 60.0 %.")
    assert "overlap" not in " ".join(more)
    few = {name: scores | {"n": 5} for name, scores in SCORES.items()}
    assert "may be one of chance" in verdict(report(few))[1][0]
    text = Page(report(SCORES).to_html()).text
    assert "60.0 % (55.6 to 64.2)" in text
    assert "Scores" not in Page(report().to_html()).text


def test_the_examples_of_an_input_are_its_nearest_each_once():
    text = Page(report().to_html()).text
    order = [text.index(word) for word in ("near", "third", "fourth", "fifth")]
    assert order == sorted(order)
    assert "far" not in text
    assert "5 retrieved examples" in text
    assert "the first 4 of 5" in text
    assert "distance nan" not in text
    assert text.count("No example that was learned from came from this input.") == 1
    together = report(retrieved=Dataset.from_dict(RETRIEVED | {"query": [-1] * 7}))
    text = Page(together.to_html()).text
    assert "Retrieved for all inputs together" in text
    assert "came from this input" not in text


def test_what_is_not_known_is_left_out():
    page = Page(report({"num_queries": 300}, answers=None, opens_as_pipeline=False, is_peft=True).to_html())
    assert "The first 3 of 300 inputs are shown." in page.text
    assert "spread over several devices" in page.text
    assert "ReCrossPipeline" not in page.text
    assert "model.unload()" in page.text


def test_a_long_text_is_folded():
    page = Page(report(inputs=["word " * 200, "b", "c"]).to_html())
    assert ("details", {"class": "long"}) in page.tags
    assert "word " * 199 in page.text
