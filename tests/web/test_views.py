"""What is shown: texts of anybody are shown as texts."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from recross_hf.retrieval.index_map import IndexMap
from recross_hf.web.adapted_visit import compared
from recross_hf.web.retrieved import Found
from recross_hf.web.training import Progress
from recross_hf.web.views import COLOUR_OF_YOURS, OTHERS, YOURS, picture_of, shown

EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">&amp;${alert(3)}{{alert(4)}}'


@pytest.fixture
def found():
    row = {"id": EVIL, "task": EVIL, "template": "", "input": EVIL, "references": [EVIL]}
    retrieved = Dataset.from_list([{**row, "rank": 0, "query": 0, "distance": 0.25}])
    return Found(retrieved, [[{**row, "distance": 0.25, "is_taken": True}]], (EVIL,), np.zeros((1, 2)), 0.1)


def parts(found):
    adapted = SimpleNamespace(is_kept=False, verdict=[EVIL], results={"base": None, "adapted": None})
    yield "message", (EVIL,)
    yield "note", (EVIL,)
    yield "header", (EVIL, EVIL, False, 10, 2)
    yield "tasks", (found, 1)
    yield "neighbours", ([EVIL], found)
    yield "neighbours", ([EVIL * 10], found)
    yield "progress", (Progress(EVIL, 1, 2, 3.0),)
    yield "verdict", (adapted,)
    yield "pairs", ([compared(EVIL, EVIL, "other"), compared(EVIL * 9, EVIL, EVIL)],)
    yield "one_pair", (compared(EVIL, "", EVIL),)
    yield "code", (EVIL,)
    yield "pushed", (EVIL, EVIL)


def test_no_text_becomes_html(found):
    for name, values in parts(found):
        page = shown(name, *values)
        assert "alert(1)" in page, name
        assert not re.search(r"<(script|img)|onerror=\"", page), name


def test_progress_is_told_to_those_who_do_not_see_it(found):
    page = shown("progress", Progress("Training", 30, 120, 8.2))
    assert 'role="progressbar"' in page
    assert 'aria-valuenow="25"' in page
    assert "step 30 of 120, about 9 s left" in page
    assert "left" not in shown("progress", Progress("Waiting", 0, 0))


def test_few_inputs_are_advised_against(found):
    assert "About sixteen inputs find better examples than 1." in shown("tasks", found, 1)
    assert "About sixteen" not in shown("tasks", found, 8)


def test_the_picture_has_the_inputs_on_top_and_the_tasks_that_were_found_in_colour(found):
    examples = Dataset.from_list([{"task": task, "input": task * 200} for task in ("a", "b", "a")])
    index_map = IndexMap(examples, np.arange(6.0).reshape(3, 2), np.zeros(2), np.eye(2), 1.0)
    retrieved = found.retrieved.remove_columns("task").add_column("task", ["a"])
    frame, colours = picture_of(index_map, replace(found, retrieved=retrieved), ["mine"])
    assert frame["group"].tolist() == [OTHERS, "a", "a", YOURS]
    assert frame["text"].iloc[-1] == "mine"
    assert frame["text"].str.len().max() <= 141
    assert list(colours) == [OTHERS, "a", YOURS]
    assert colours[YOURS] == COLOUR_OF_YOURS
    assert frame[["x", "y"]].to_numpy().tolist() == [[2.0, 3.0], [0.0, 1.0], [4.0, 5.0], [0.0, 0.0]]
