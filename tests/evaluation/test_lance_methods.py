"""A comparison of methods on a pipeline whose examples are in a Lance data set: the same cells, and what would read all of it is refused."""

import copy
import json

import pytest
from datasets import Dataset
from evaluation_cases import ADAPTATION, task
from example_scripts import recross

pytest.importorskip("lance", reason="pylance is absent: pip install 'recross_hf[cluster]'")

from recross_hf import (
    LanceIndex,
    MeanPooledEncoder,
    TargetTask,
    evaluate_methods,
    load_examples,
    paper_methods,
)
from recross_hf.core.files import write_parquet
from recross_hf.evaluation import overlaps
from recross_hf.evaluation.methods import IN_LANCE
from recross_hf.evaluation.overlaps import OverlapError, find_overlaps
from recross_hf.evaluation.run import prepare_evaluation
from recross_hf.retrieval.lance.retriever import LanceRows, rows_of

NAMES = (*(name for name in IN_LANCE if name != "recross"), "dense_by_task")


@pytest.fixture(scope="module")
def in_lance(pipeline, tmp_path_factory):
    """The pipeline, with its examples in a Lance data set."""
    found, index = copy.copy(pipeline), pipeline.index
    storage = tmp_path_factory.mktemp("lance") / "index.lance"
    found.index = LanceIndex.build(index.dataset, index.encoder, storage)
    return found


@pytest.fixture(scope="module")
def overlapping(examples):
    """A task that is upstream, too, and one of whose test examples is an upstream one of another task."""
    film = task("film", "film", 1)
    rows = [*film.test.to_list()[:2], examples[30] | {"id": "film|test|plain|#9", "template": "plain", "task": "film"}]
    return [
        TargetTask("film", load_examples(Dataset.from_list(rows)), film.query_sets),
        TargetTask("sum", film.test, film.query_sets),
    ]


def compared(pipeline, tasks, names, folder):
    methods = paper_methods(pipeline, names, num_queries=3, num_in_context=2)
    settings = ADAPTATION | {"max_input_length": 64}
    results = evaluate_methods(
        pipeline, tasks, methods, folder, settings=settings, on_overlap="drop", show_progress=False
    )
    assert not [cell.error for cell in results.cells if cell.error]
    cells = [json.loads(path.read_text()) for path in sorted(folder.rglob("*.json"))]
    found = [(cell["cell"]["method"], cell.get("retrieved", {}).get("id"), cell["predictions"]) for cell in cells]
    return found, [(cell.method, cell.task, cell.retrieved_tasks) for cell in results.cells], results.predictions


@pytest.mark.slow
def test_all_methods_that_do_not_read_all_give_what_they_give_of_a_data_set(pipeline, in_lance, overlapping, tmp_path):
    ours, shares, predictions = compared(in_lance, overlapping, NAMES, tmp_path / "lance")
    theirs, expected_shares, expected = compared(pipeline, overlapping, NAMES, tmp_path / "faiss")
    assert {method for method, _, _ in ours} == {*NAMES}
    assert ours == theirs
    assert shares == expected_shares
    assert predictions.to_list() == expected.to_list()
    assert not [ids for _, ids, _ in ours if ids and pipeline.index.dataset["id"][30] in ids]


def test_overlaps_are_found_in_pieces(in_lance, examples, overlapping, monkeypatch):
    monkeypatch.setattr(overlaps, "_ROWS_AT_ONCE", 5)
    found = find_overlaps(overlapping, [rows_of(in_lance.index)])
    assert found == find_overlaps(overlapping, [examples])
    assert found["film"].upstream_in_test == {examples["id"][30]: "exact: film|test|plain|#9"}
    assert found["sum"].is_upstream
    with pytest.raises(OverlapError, match="film: 1 upstream examples in the test set"):
        prepare_evaluation(in_lance, overlapping, paper_methods(in_lance, ["dense"]), "cells")


def test_a_data_set_is_read_once_by_the_columns_that_are_compared(in_lance, tmp_path, monkeypatch):
    read, batches = [], LanceRows.batches

    def noticed(self, columns, size):
        read.append(columns)
        return batches(self, columns, size)

    monkeypatch.setattr(LanceRows, "batches", noticed)
    prepare_evaluation(in_lance, [task("film", "film", 1)], paper_methods(in_lance, NAMES), tmp_path)
    assert read == [["id", "task", "input"]]


@pytest.mark.parametrize("name", ["bm25", "bm25_by_task", "sbert", "rds", "sift"])
def test_what_would_read_all_is_refused_with_what_works(name, in_lance):
    with pytest.raises(
        ValueError, match=rf"found {name}\. Those that work there are none, random, dense, recross, "
    ) as error:
        paper_methods(in_lance, ["none", name])
    assert "\n" not in str(error.value)


def test_a_method_with_an_index_of_its_own_is_not_refused(in_lance, index, answering_bart, tokenizer, tmp_path):
    found = paper_methods(
        in_lance, ["sbert", "sift", "mine"], sbert_index=index, indexes={"sift": index, "mine": index}
    )
    assert [method.retriever.index for method in found] == [index] * 3
    weighted = MeanPooledEncoder(answering_bart, tokenizer, pooling="weighted_mean")
    own = copy.copy(in_lance)
    own.index = LanceIndex.build(index.dataset, weighted, tmp_path / "index.lance")
    assert paper_methods(own, ["rds"])[0].retriever.index is own.index


def test_the_command_compares_what_works_by_default_and_refuses_in_a_line(in_lance, tmp_path):
    in_lance.save_pretrained(tmp_path / "pipeline")
    film = task("film", "film", 1)
    (tmp_path / "film").mkdir()
    for name, rows in (("test.parquet", film.test), ("query-0.parquet", film.query_sets[0])):
        write_parquet(rows, tmp_path / "film" / name)
    words = ["benchmark", "--pipeline", "pipeline", "--target_tasks", "film", "-o", "out", "--num_retrieved", "8"]
    words += ["--max_steps", "1", "--max_target_length", "4", "--use_cpu", "true"]
    code, _, told = recross(tmp_path, *words, "--methods", "none", "bm25", "sift")
    assert code == 2
    assert "found bm25, sift. Those that work there are none, random, dense" in told.strip().splitlines()[-1]
    assert recross(tmp_path, *words)[0] == 0
    cells = [json.loads(path.read_text())["cell"]["method"] for path in (tmp_path / "out" / "cells").rglob("*.json")]
    assert sorted(cells) == ["dense", "dense_by_task", "none", "random"]
