import json
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image
from synthetic_results import FLOORS, synthetic_results

from recross_hf.evaluation.report.all_tables import make_tables
from recross_hf.evaluation.report.analysis import AnalysisSettings, analyze
from recross_hf.evaluation.report.comparison import Comparison
from recross_hf.evaluation.report.figures import by_share, draw_ablations, draw_retrieved, retrieved_shares
from recross_hf.evaluation.report.findings import below_floors, contributions, default_pairs, headline, roles_of
from recross_hf.evaluation.report.page import write_report
from recross_hf.evaluation.report.paper_results import COLUMNS, TABLE_1, TABLE_1_SPREAD, TABLE_2_TASKS, PaperRow
from recross_hf.evaluation.report.scores import EvaluationScores
from recross_hf.evaluation.report.summary import summarize
from recross_hf.evaluation.report.tables import (
    ablations_table,
    data_table,
    main_table,
    outputs_table,
    paper_table,
    seconds_table,
)
from recross_hf.evaluation.report.texts import write_texts
from recross_hf.evaluation.results import PREDICTION_FEATURES, EvaluationResults
from recross_hf.mixture.sources import read_task_sources

GAINS = {"none": 0.0, "random": -0.1, "dense": 0.2, "recross": 0.2, "dense_by_task": 0.35}
VARIANTS = {
    "recross |Q|=8": ("recross", 0.1, {"num_queries": 8}),
    "recross mu=4": ("recross", 0.2, {"upsampling_ratio": 4.0}),
}
HOSTILE = "<script>alert(1)</script>|&_%$x^{"


def compared(results, metric="exact_match", methods=None, tasks=None):
    return Comparison(EvaluationScores(results), metric, methods, tasks, num_resamples=200)


class Page(HTMLParser):
    """What a page opens and closes, and what it asks for."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


# ---- roles -------------------------------------------------------------------------------------------------------------


def test_roles_are_told_by_kind_and_family():
    roles = roles_of(synthetic_results(GAINS, variants=VARIANTS, num_examples=4).cells)
    assert roles.base == "none"
    assert roles.methods == ["random", "dense", "recross", "dense_by_task"]
    assert roles.floors == list(FLOORS)
    assert roles.variants == {"recross": list(VARIANTS)}
    assert roles.primary == "recross"
    assert default_pairs(roles) == [
        ("recross", "none"),
        ("random", "none"),
        ("dense", "none"),
        ("dense_by_task", "none"),
        ("dense", "random"),
        ("recross", "dense"),
        ("dense_by_task", "dense"),
    ]


def test_the_primary_method_is_not_chosen_by_its_score_and_must_be_there():
    cells = synthetic_results({"none": 0, "mine": 0.1, "random": 0}, num_examples=4).cells
    assert roles_of(cells).primary == "random"  # the last
    assert roles_of(cells, "mine").primary == "mine"
    with pytest.raises(ValueError, match="primary method among mine, random, found 'dense'"):
        roles_of(cells, "dense")


# ---- sentences ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gain, expected",
    [
        (0.3, "Retrieval augmentation helps here: recross gains +"),
        (-0.3, "Retrieval augmentation harms here: recross loses -"),
        (0.0, "No effect of retrieval augmentation is shown here: recross differs by "),
    ],
)
def test_the_first_sentence_says_what_the_interval_says(gain, expected):
    results = synthetic_results({"none": 0.0, "recross": gain}, num_examples=200, seed=3)
    comparison, roles = compared(results), roles_of(results.cells)
    sentence = headline(comparison, roles, comparison.differences(default_pairs(roles)))
    assert sentence.startswith(expected)
    assert "points of exact match" in sentence and "on 3 tasks with 3 query sets; p " in sentence
    assert "[95 % interval " in sentence


def test_parts_are_told_apart():
    results = synthetic_results(GAINS, num_examples=200)
    roles = roles_of(results.cells)
    comparison = Comparison(EvaluationScores(results), "exact_match", num_resamples=2_000)
    random, dense, recross, by_task = contributions(comparison, roles, comparison.differences(default_pairs(roles)))
    assert random.startswith("Training on upstream examples drawn at random harms: random - none -")
    assert dense.startswith("Retrieving by likeness (dense) rather than at random helps: dense - random +")
    assert recross.startswith("Choosing examples by the reranker shows no effect: recross - dense ")
    assert by_task.startswith("Selecting whole tasks (dense_by_task) helps: dense_by_task - dense +")


def test_without_a_base_or_a_method_nothing_is_claimed():
    for gains in ({"none": 0.0}, {"dense": 0.1}):
        results = synthetic_results(gains, num_examples=4)
        comparison, roles = compared(results), roles_of(results.cells)
        sentence = headline(comparison, roles, comparison.differences(default_pairs(roles)))
        assert sentence.startswith("Whether retrieval augmentation helps cannot be said")


def test_a_method_below_a_floor_is_named():
    results = synthetic_results({"none": 0.3, "dense": -0.3}, num_examples=100)
    (sentence,) = below_floors(compared(results), roles_of(results.cells))
    assert sentence.startswith("dense is below a floor: its exact match is ")
    assert "echo 3" in sentence or "echo 4" in sentence


# ---- tables ------------------------------------------------------------------------------------------------------------


def test_the_main_table_has_the_papers_rows_and_stresses_the_best_contestant():
    results = synthetic_results(GAINS, failed=[("dense", "piqa", 0)])
    table = main_table(compared(results), name="main", caption="", floors=FLOORS)
    assert [row[0] for row in table.rows] == [
        "anli_r3", "piqa", "mine", "All@mean", "All@std", "All@median", "All@min", "All@max",
    ]  # fmt: skip
    assert table.header == ["task", *GAINS, *FLOORS]
    assert {table.header[column] for _, column in table.bold} <= set(GAINS)
    assert {row for row, _ in table.bold} == {0, 1, 2, 3}
    assert table.rows[4][1] is None  # the base has one answer for all query sets
    assert any("without: piqa" in note for note in table.notes)


def test_nothing_is_stressed_that_a_constant_answer_beats():
    """Every contestant is at 0 where the floors are right, and at 0 everywhere."""
    comparison = compared(synthetic_results(GAINS))
    for of_floors, stressed in ((20.0, False), (0.0, False), (100.0, False)):
        scores = dict.fromkeys(GAINS, 0.0) | dict.fromkeys(FLOORS, of_floors)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(comparison), "score", lambda self, method, task, scores=scores: scores[method])
            patch.setattr(type(comparison), "summary", lambda self, method: None)
            table = main_table(comparison, name="main", caption="", floors=FLOORS)
        assert bool(table.bold) == stressed


def test_ablations_stand_beside_what_they_vary():
    results = synthetic_results(GAINS, variants=VARIANTS, num_examples=200)
    table = ablations_table(compared(results, "soft_em", ["recross", *VARIANTS]), "recross", name="a", caption="")
    assert [row[0] for row in table.rows] == ["recross", *VARIANTS]
    assert table.header[-1] == "paper's All@mean"
    assert [row[-1] for row in table.rows] == [44.53, 43.67, 43.91]
    main, fewer, _ = table.rows
    assert main[6] is None and fewer[6] == pytest.approx(fewer[1] - main[1])


def test_beside_the_paper_stand_its_tasks_and_methods_alone():
    results = synthetic_results(GAINS)
    table = paper_table(compared(results, "soft_em", list(GAINS), ["anli_r3", "piqa"]), name="p")
    assert table.header[1:5] == ["none", "none (paper)", "random", "random (paper)"]
    assert not any("by_task" in name for name in table.header)
    assert [row[0] for row in table.rows] == ["anli_r3", "piqa", "All@mean", "gain over none"]
    assert table.rows[0][2] == 30.5 and table.rows[2][2] == pytest.approx(33.3)
    assert table.rows[3][-2] == pytest.approx((35.76 + 41.42) / 2 - 33.3)
    mine = synthetic_results({"none": 0, "mine": 0}, num_examples=4)
    assert paper_table(compared(mine, "soft_em", ["mine"], ["anli_r3"]), name="p") is None


def test_answers_that_repeat_or_are_empty_show():
    results = synthetic_results({"none": 0.0, "dense": 0.0}, num_examples=10)
    table = results.predictions.to_pandas()
    table.loc[table["method"] == "dense", "prediction"] = [" ", *["same"] * 9] * 9
    results = replace(results, predictions=Dataset.from_pandas(table, features=PREDICTION_FEATURES))
    scores = EvaluationScores(results)
    lengths = Comparison(scores, "num_words", ["none", "dense"], num_resamples=10)
    found = outputs_table(scores, [lengths], name="o", caption="")
    assert found.header == ["method", "mean length (words)", "empty (%)", "most frequent answer (%)"]
    assert found.rows[1][2:] == pytest.approx([10.0, 90.0])
    assert found.rows[0][2] == 0.0


def test_sources_and_seconds_are_counted():
    results = synthetic_results({"none": 0.0, "dense": 0.0}, num_examples=60, renderings=3)
    assert data_table(EvaluationScores(results), results.cells, name="d", caption="").rows[0] == [
        "anli_r3", 60, 20, 3, "16",
    ]  # fmt: skip
    table = seconds_table(results.cells, name="s", caption="")
    assert table.header == ["method", "cells", "predict", "retrieve", "train", "a cell", "all cells"]
    base, dense = table.rows
    assert base[:2] == ["none", 3] and base[3] is None
    assert dense[3] == pytest.approx(0.5) and dense[-1] == pytest.approx(9 * dense[-2])


def test_the_papers_means_are_those_of_its_tasks():
    means = PaperRow(*np.mean(list(TABLE_1.values()), axis=0))
    assert np.allclose(means, PaperRow(41.33, 40.38, 39.13, 40.24, 43.57, 44.53), atol=0.006)
    for low, high in zip(TABLE_1_SPREAD["min"], TABLE_1_SPREAD["max"], strict=True):
        assert low <= high
    assert set(COLUMNS.values()) <= set(PaperRow._fields)
    targets = {source.task for source in read_task_sources("recross")["targets"]}
    assert {*TABLE_1, *TABLE_2_TASKS} == targets


# ---- pictures ----------------------------------------------------------------------------------------------------------


def test_shares_are_means_of_the_query_sets_and_the_largest_stand_first():
    results = synthetic_results({"none": 0.0, "dense": 0.0}, num_examples=4)
    shares = retrieved_shares(results.cells)
    assert list(shares) == ["dense"] and list(shares["dense"]) == ["anli_r3", "piqa", "mine"]
    for found in shares["dense"].values():
        assert sum(found.values()) == pytest.approx(1)
    names = by_share(shares.values())
    totals = [sum(found.get(name, 0) for found in shares["dense"].values()) for name in names]
    assert totals == sorted(totals, reverse=True)


def test_the_heat_map_shows_the_shares_it_was_given():
    shares = {"a": {"x": 0.75, "y": 0.25}, "b": {"y": 1.0}}
    axes = draw_retrieved(shares, title="dense", columns=["y", "x"], largest=1.0).axes[0]
    assert axes.get_images()[0].get_array().tolist() == [[25.0, 75.0], [100.0, 0.0]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["y", "x"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_an_ablation_is_drawn_along_the_setting_it_varies():
    results = synthetic_results(GAINS, variants=VARIANTS)
    comparison = compared(results, methods=["none", "recross", *VARIANTS])
    figure = draw_ablations(comparison, "recross", results.cells, base="none")
    assert [axes.get_xlabel() for axes in figure.axes] == ["|Q|", "mu"]
    ticks = [[label.get_text() for label in axes.get_xticklabels()] for axes in figure.axes]
    assert ticks == [["8", "16"], ["2", "4"]]
    assert "dashed: none" in figure.get_suptitle()
    assert "dashed" not in draw_ablations(comparison, "recross", results.cells).get_suptitle()
    assert draw_ablations(compared(results, methods=["recross"]), "recross", results.cells) is None


# ---- the report --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    results = synthetic_results(
        {name: GAINS[name] for name in ("none", "random", "recross")},
        tasks=("anli_r3", "piqa", "strategyqa", HOSTILE),
        upstream=("imdb", HOSTILE),
        variants=VARIANTS,
        failed=[("random", "piqa", 1)],
        ranked=("piqa",),
    )
    summary = write_report(results, folder, title=HOSTILE, settings={"model": HOSTILE}, num_resamples=200)
    return folder, summary


def test_the_page_is_one_file_that_runs_and_fetches_nothing(report):
    text = (report[0] / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert not page.tags & {"script", "iframe", "link", "object", "b"}
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert HOSTILE not in text and "&lt;script&gt;alert(1)&lt;/script&gt;|&amp;_%$x^{" in text
    assert "&lt;b&gt;no&lt;/b&gt;" in text  # an answer


def test_the_page_says_what_was_found_and_what_is_missing(report):
    folder, summary = report
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert summary["headline"].startswith("Retrieval augmentation helps here: recross gains +")
    assert summary["headline"].replace("<", "&lt;") in text
    assert text.index("Retrieval augmentation helps") < text.index("Which step helps?") < text.index("<table>")
    assert summary["failed"] == [
        {"method": "random", "task": "piqa", "query_set": 1, "error": "RuntimeError: out of memory"}
    ]
    assert "RuntimeError: out of memory" in text and "1 of 52 cells failed" in text
    assert "piqa: upstream in test: 2 (handling: report)." in summary["warnings"]
    assert "Nothing was found in the 3 other tasks of 4 that were searched." in text
    assert any(warning.startswith("There are 3 query sets") for warning in summary["warnings"])
    assert summary["tasks"]["anli_r3"] == {"num_examples": 60, "num_sources": 30}


def test_files_are_what_the_summary_says(report):
    folder, summary = report
    assert json.loads((folder / "summary.json").read_text()) == summary
    names = {path.name for path in (folder / "tables").iterdir()}
    for name in ("main-exact_match", "main-soft_em", "main-rank_correct", "table1-soft_em", "table2-soft_em",
                 "beside-paper", "differences-exact_match", "ablations-soft_em-01", "outputs", "data", "seconds"):  # fmt: skip
        assert {f"{name}.md", f"{name}.tex", f"{name}.csv"} <= names
    rows = (folder / "tables" / "main-exact_match.csv").read_text().splitlines()
    mean = dict(zip(rows[0].split(","), rows[-5].split(","), strict=True))
    recross = summary["metrics"]["exact_match"]["methods"]["recross"]
    assert mean["task"] == "All@mean" and float(mean["recross"]) == pytest.approx(recross["all"]["mean"], abs=1e-4)
    assert recross["all"]["low"] < recross["all"]["mean"] < recross["all"]["high"]
    for path in (folder / "figures").iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) > 300
    assert {"scores-exact_match.png", "pairs.png", "forest-01.png", "ablations-01.png", "retrieved-02.png"} <= {
        path.name for path in (folder / "figures").iterdir()
    }


def test_results_of_one_query_set_and_no_choices_are_reported_with_a_reservation(tmp_path):
    results = synthetic_results({"none": 0.0, "mine": 0.0}, tasks=("a",), num_sets=1, num_examples=20)
    results.save(tmp_path)
    summary = write_report(EvaluationResults.load(tmp_path), tmp_path, num_resamples=50)
    assert set(summary["metrics"]) == {"exact_match", "soft_em", "num_words"}
    assert any(warning.startswith("There is one query set") for warning in summary["warnings"])
    assert not list((tmp_path / "tables").glob("beside-paper*"))


def test_pictures_of_ablations_have_the_numbers_of_their_tables(tmp_path):
    variants = {**VARIANTS, "dense |Q|=8": ("dense", 0.1, {"num_queries": 8})}
    results = synthetic_results(GAINS, tasks=("a",), num_sets=1, num_examples=20, variants=variants)
    write_report(results, tmp_path, num_resamples=50)
    tables = {path.stem.rsplit("-", 1)[1]: path for path in (tmp_path / "tables").glob("ablations-exact_match-*.md")}
    pictures = {path.stem.rsplit("-", 1)[1] for path in (tmp_path / "figures").glob("ablations-*")}
    assert pictures == set(tables) == {"01", "02"}


def test_a_run_that_failed_in_all_cells_is_reported(tmp_path):
    failed = [("none", "a", -1), ("dense", "a", 0)]
    results = synthetic_results({"none": 0.0, "dense": 0.0}, tasks=("a",), num_sets=1, num_examples=4, failed=failed)
    summary = write_report(results, tmp_path, num_resamples=50)
    assert summary["headline"].endswith("dense and none have no finished tasks in common.")
    assert len(summary["failed"]) == 2


def test_figures_need_no_pictures_and_a_report_without_matplotlib_writes_nothing(tmp_path, monkeypatch):
    results = synthetic_results(GAINS, variants=VARIANTS, num_examples=20)
    expected = write_report(results, tmp_path / "whole", num_resamples=50)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    analysis = analyze(results, AnalysisSettings(num_resamples=50))
    assert json.loads(json.dumps(summarize(analysis, write_texts(analysis)))) == expected
    assert [table.name for table in make_tables(analysis).all()][:2] == ["main-exact_match", "main-soft_em"]
    with pytest.raises(ImportError, match="Pictures need matplotlib"):
        write_report(results, tmp_path / "none", num_resamples=50)
    assert not (tmp_path / "none").exists()


def test_what_is_not_there_is_refused(tmp_path):
    results = synthetic_results({"none": 0.0, "dense": 0.0}, num_examples=4)
    with pytest.raises(
        ValueError, match="a metric among exact_match, soft_em, rank_correct, in_answers, num_words, found 'bleu'"
    ):
        write_report(results, tmp_path, metric="bleu")
    with pytest.raises(ValueError, match="found 'bm25' in one"):
        write_report(results, tmp_path, pairs=[("bm25", "none")], num_resamples=10)
    assert not list(tmp_path.iterdir())
