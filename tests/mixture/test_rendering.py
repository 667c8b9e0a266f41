"""Rows become examples in a `Renderer`, alone and in a pool of processes."""

import pickle

import pytest
from datasets import Dataset

from recross_hf import Decontaminator, MixtureArguments, TaskSource
from recross_hf.data.schema import EXAMPLE_FEATURES
from recross_hf.mixture import p3
from recross_hf.mixture.rendering import Renderer, RowsToRender
from recross_hf.mixture.rows import Rows
from recross_hf.mixture.task import MixtureTask
from recross_hf.mixture.templates import PromptTemplate
from recross_hf.mixture.workers import RenderingPool

TEMPLATE = PromptTemplate("asks", "Is {{number}} odd? ||| {{answer}}")


def work(first=0, number=4, templates=(TEMPLATE,), rows=None, **changes):
    rows = rows or [{"number": n, "answer": ("no", "yes")[n % 2]} for n in range(first, first + number)]
    fields = {"task": "parity", "split": "train", "columns": {}, "is_padded": False, "per_row": 1, "seed": 0}
    fields |= {"numbers": list(range(first, first + len(rows))), "truncate": True} | changes
    return RowsToRender(templates=templates, rows=rows, **fields)


@pytest.fixture
def targets():
    columns = {"id": ["t|test|x|#0"], "task": ["t"], "template": [""], "input": ["Is 2 odd"], "references": [["no"]]}
    return Decontaminator.of([Dataset.from_dict(columns | {"choices": [[]]}, features=EXAMPLE_FEATURES)])


def overlaps(rendered):
    return [overlap and overlap.kind for overlap in rendered.overlaps]


def test_each_renderer_compares_with_its_own_targets_and_so_does_its_copy_in_another_process(targets):
    clean, compared = Renderer(), Renderer(targets)
    assert overlaps(compared.render(work())) == [None, None, "exact", None]
    assert overlaps(clean.render(work())) == [None] * 4
    copy = pickle.loads(pickle.dumps(compared))  # after it has compiled its template, which no process can send
    assert overlaps(copy.render(work())) == [None, None, "exact", None]
    assert copy.render(work()).table == compared.render(work()).table


def test_a_pool_renders_in_order_and_two_at_once_do_not_mix_their_targets(targets):
    batches = [work(first, 2) for first in range(0, 12, 2)]
    with RenderingPool(Renderer(targets), 2) as first, RenderingPool(Renderer()) as second:
        found = list(first.map(iter(batches)))
        others = list(second.map(iter(batches)))
        loaded = first._pool.submit(eval, "'torch' in __import__('sys').modules").result()
    assert not loaded  # each process would take a second longer to start, and memory for it
    assert [row for made in found for row in made.table["row"].to_pylist()] == list(range(12))
    assert [kind for made in found for kind in overlaps(made)] == [None, None, "exact"] + [None] * 9
    assert not any(kind for made in others for kind in overlaps(made))


def test_white_space_around_texts_is_content_unless_the_source_pads_them():
    rows = [{"asked": "Is 1 odd?\n", "references": "\nyes"}]
    columns = {"input": "asked"}
    padded = Renderer().render(work(templates=(), rows=rows, columns=columns, is_padded=True)).table
    assert (padded["input"].to_pylist(), padded["references"].to_pylist()) == (["Is 1 odd?"], [["yes"]])
    kept = Renderer().render(work(templates=(), rows=rows, columns=columns)).table
    assert (kept["input"].to_pylist(), kept["references"].to_pylist()) == (["Is 1 odd?\n"], [["\nyes"]])


def test_a_task_of_p3_that_an_earlier_version_prepared_has_the_same_settings(monkeypatch):
    """They named the columns of P3 as the source's own; a rerun with other settings would be refused."""
    rows = Rows(1, ("inputs_pretokenized",), lambda: iter(()), version="bigscience/P3@1")
    monkeypatch.setattr(p3, "hub_rows", lambda source, **settings: rows)
    task = MixtureTask(TaskSource("cb", dataset="bigscience/P3", config="cb_*"), MixtureArguments(), {}, None)
    assert task.settings["source"]["columns"] == {
        "input": "inputs_pretokenized",
        "references": "targets_pretokenized",
        "choices": "answer_choices",
    }
