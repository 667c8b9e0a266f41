import json

import numpy as np
import pytest
from datasets import Dataset
from huggingface_hub import DatasetCard
from transformers import TrainerState, TrainingArguments

from recross_hf import (
    AdaptationArguments,
    RandomRetriever,
    Reranker,
    RetrievalAugmentedAdapter,
)
from recross_hf.adaptation.results import adaptation_results, format_results, plot_task_shares, task_shares
from recross_hf.core.tables import format_table
from recross_hf.reranking.evaluation import format_reranker_metrics
from recross_hf.supervision.dataset_card import supervision_card
from recross_hf.supervision.results import format_supervision, plot_task_utilities
from recross_hf.supervision.utility import by_reversal
from recross_hf.training.results import format_task_results, logged_metrics, task_results


def rows_of(counts: dict[str, int]) -> Dataset:
    return Dataset.from_dict({"task": [task for task, count in counts.items() for _ in range(count)]})


RESULTS = {
    "task": "mine",
    "num_queries": 16,
    "num_retrieved": 4,
    "base": {"soft_em": 40.0, "exact_match": 30.0, "n": 10},
    "adapted": {"soft_em": 55.25, "exact_match": 20.0, "n": 10},
    "gate": None,
    "retrieved_tasks": {"a": 0.5, "b": 0.3, "c": 0.2},
    "retriever": "DenseRetriever",
    "reranker": None,
    "upsampling_ratio": None,
    "select_by": None,
    "seed": 42,
    "seconds": {"load": 1.234, "train": 20.0},
}


def test_shares_are_sorted_and_sum_to_one():
    shares = task_shares(rows_of({"b": 1, "c": 2, "a": 1}))
    assert list(shares.items()) == [("c", 0.5), ("a", 0.25), ("b", 0.25)]


def test_results_as_text():
    assert format_results(RESULTS, top=2).split("\n") == [
        "mine: 16 unlabelled inputs, 4 upstream examples (DenseRetriever)",
        "",
        "model    SoftEM  exact match   n",
        "--------------------------------",
        "base       40.0         30.0  10",
        "adapted    55.2         20.0  10",
        "change    +15.2        -10.0",
        "",
        "top retrieved tasks   share",
        "---------------------------",
        "a                    50.0 %",
        "b                    30.0 %",
        "",
        "stage  seconds",
        "--------------",
        "load       1.2",
        "train     20.0",
    ]


def test_results_without_scores_say_so():
    text = format_results(RESULTS | {"base": None, "adapted": None})
    assert "Not evaluated: no labelled examples were given." in text
    assert "SoftEM" not in text


@pytest.mark.parametrize(
    "reranker, select_by, text",
    [
        ("CrossEncoderReranker", "example", "best of 2 x by CrossEncoderReranker"),
        ("CrossEncoderReranker", "task", "main tasks of 2 x by CrossEncoderReranker"),
        (None, "task", "main tasks of 2 x"),
    ],
)
def test_results_say_how_examples_were_selected(reranker, select_by, text):
    results = RESULTS | {"reranker": reranker, "select_by": select_by, "upsampling_ratio": 2.0}
    start = f"mine: 16 unlabelled inputs, 4 upstream examples (DenseRetriever, {text})\n"
    assert format_results(results).startswith(start)


def test_a_table_is_as_wide_as_its_widest_cells():
    assert format_table(["a", "b"], [["long", "1"], ["x", "1000"]]) == (
        "a        b\n----------\nlong     1\nx     1000"
    )


def test_results_of_an_adapter_are_json(bart, tokenizer, examples, queries, tmp_path):
    adapter = RetrievalAugmentedAdapter(
        bart,
        AdaptationArguments(output_dir=str(tmp_path), use_cpu=True, num_retrieved=8, seed=3, max_target_length=4),
        retriever=RandomRetriever(examples),
        query_dataset=queries,
        eval_dataset=examples.select(range(5)),
        processing_class=tokenizer,
    )
    adapter.retrieve()
    adapter.evaluate(metric_key_prefix="base")
    results = json.loads(
        json.dumps(adaptation_results(adapter.adaptation, adapter.retrieved, task="mine", seconds={"load": 1.23456}))
    )
    assert results == {
        "task": "mine",
        "num_queries": 4,
        "num_retrieved": 8,
        "base": adapter.scores["base"],
        "adapted": None,
        "gate": None,
        "retrieved_tasks": task_shares(adapter.retrieved),
        "retriever": "RandomRetriever",
        "reranker": None,
        "upsampling_ratio": None,
        "select_by": None,
        "decoding": {},
        "seed": 3,
        "seconds": {"load": 1.235},
    }
    assert results["base"]["n"] == 5
    assert "Not evaluated" in format_results(results)


def test_the_verdict_of_the_safety_gate_is_told():
    gate = {"kept": True, "reason": "The answers to the inputs kept their form.", "level": "form"}
    lines = format_results(RESULTS | {"gate": gate}).split("\n")
    assert f"safety gate (form): kept. {gate['reason']}" in lines


def test_results_of_an_adapter_with_a_reranker_name_it(bart, tokenizer, examples, queries, tmp_path):
    class LongestFirst(Reranker):
        def rank(self, queries, candidates):
            return np.array([len(candidate) for candidate in candidates])

    adapter = RetrievalAugmentedAdapter(
        bart,
        AdaptationArguments(output_dir=str(tmp_path), use_cpu=True, num_retrieved=8, upsampling_ratio=1.5),
        retriever=RandomRetriever(examples),
        reranker=LongestFirst(),
        query_dataset=queries,
        processing_class=tokenizer,
    )
    adapter.retrieve()
    results = adaptation_results(adapter.adaptation, adapter.retrieved, task="mine", seconds=adapter.seconds)
    assert (results["reranker"], results["upsampling_ratio"]) == ("LongestFirst", 1.5)
    assert list(results["seconds"]) == ["retrieve", "rerank"]
    assert "(RandomRetriever, best of 1.5 x by LongestFirst)" in format_results(results)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_picture_shows_the_largest_tasks_and_the_rest_together(ending, tmp_path):
    path = tmp_path / f"shares.{ending}"
    plot_task_shares(rows_of({f"task{n:02d}": 30 - n for n in range(20)}), path, title="What it learned")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if ending == "png" else b"<?xml")
    assert len(content) > 5000
    if ending == "svg":  # texts are paths, with the text itself in a comment before each
        text = content.decode()
        assert all(f"<!-- {word} -->" in text for word in ("task00", "task14", "5 others", "What it learned"))
        assert "<!-- task15 -->" not in text


# ---- mined supervision and rerankers -----------------------------------------------------------------------------------

TASK_PAIRS = [
    {"query_task": query, "candidate_task": other, "num_candidates": number, "utility": utility}
    for query, other, number, utility in (
        ("sum", "colour", 9, 0.5),
        ("colour", "sum", 4, 0.25),  # too few to show
        ("opposite", "sum", 5, 0.125),
        ("sum", "opposite", 8, 0.0),
        ("colour", "opposite", 7, -1.5),
    )
]
SUMMARY = {
    "num_sets": 6,
    "num_mined": 3,
    "skipped": {"no candidates of other tasks": 2, "every group diverged": 1},
    "diverged_groups": 4,
    "num_query_tasks": 3,
    "num_candidates": 33,
    "base_loss": 2.3456,
    "utility_mean": -0.01234,
    "utility_std": 0.5,
    "share_helpful": 0.404,
    "reliability": 0.987,
    "task_pairs": TASK_PAIRS,
}


def test_mined_supervision_as_text():
    assert format_supervision(SUMMARY, top=1).split("\n") == [
        "3 query sets of 3 tasks mined, 3 skipped (2 no candidates of other tasks, 1 every group diverged), 4 groups diverged.",
        "33 candidates: utility -0.0123 on average (sd 0.5000), 40 % help, held-out loss 2.346; reliability 0.99 (0: a "
        "round says nothing of a candidate, 1: all).",
        "",
        "who helps whom, most and least  utility  candidates",
        "---------------------------------------------------",
        "colour -> sum                   +0.5000           9",
        "opposite -> colour              -1.5000           7",
    ]
    everything = format_supervision(SUMMARY, top=2)
    assert [line.split("  ")[0] for line in everything.split("\n")[5:]] == [
        *("colour -> sum", "sum -> opposite", "opposite -> sum", "opposite -> colour"),
    ]
    assert "sum -> colour" in format_supervision(SUMMARY | {"task_pairs": TASK_PAIRS[1:2], "reliability": None})
    assert "reliability unknown" in format_supervision(SUMMARY | {"reliability": None})


def test_a_mining_that_found_nothing_as_text():
    nothing = dict.fromkeys(("base_loss", "utility_mean", "utility_std", "share_helpful", "reliability"))
    summary = SUMMARY | nothing | {"num_sets": 2, "num_mined": 0, "num_query_tasks": 0, "task_pairs": []}
    assert format_supervision(summary | {"skipped": {"too few": 2}}) == (
        "0 query sets of 0 tasks mined, 2 skipped (2 too few), 4 groups diverged."
    )


def test_a_rerankers_figures_stand_beside_those_of_the_dense_order_and_of_chance():
    names = ("accuracy", "auc", "spearman")
    metrics = {name: 0.61 + place / 100 for place, name in enumerate(names)}
    metrics |= {f"dense_{name}": 0.51 + place / 100 for place, name in enumerate(names)} | {"num_sets": 7}
    text = format_reranker_metrics(metrics | {"dev_tasks": ["a", "b"]})
    assert text.split("\n") == [
        "7 query sets of a, b",
        "",
        "on held-out tasks              reranker  dense order  chance",
        "------------------------------------------------------------",
        "accuracy                          0.610        0.510   0.500",
        "AUC                               0.620        0.520   0.500",
        "rank correlation with utility     0.630        0.530   0.000",
    ]
    assert format_reranker_metrics(metrics).startswith("7 query sets\n\non held-out")


@pytest.mark.parametrize("ending", ["png", "svg"])
@pytest.mark.parametrize("task_pairs", [TASK_PAIRS, TASK_PAIRS[3:4]])  # of utility 0 alone: nothing to divide by
def test_the_picture_shows_which_task_helps_which(ending, task_pairs, tmp_path):
    path = tmp_path / f"utilities.{ending}"
    plot_task_utilities(task_pairs, path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if ending == "png" else b"<?xml")
    assert len(content) > 5000
    if ending == "svg":
        words = {pair[name] for pair in task_pairs for name in ("query_task", "candidate_task")}
        text = content.decode()
        assert all(f"<!-- {word} -->" in text for word in (*words, "learning from", "queries of"))


def test_the_card_of_mined_pairs_says_how_they_were_made_and_loads_on_the_hub(tmp_path):
    settings = {"num_rounds": 7, "trainable_parameters": "^decoder", "model": "ab" * 32, "exclude_tasks": []}
    card = supervision_card(
        settings=settings, utility_estimator=by_reversal, summary=SUMMARY | {"num_pairs": 99, "seconds": 12.5}
    )
    card.save(tmp_path / "README.md")
    loaded = DatasetCard.load(tmp_path / "README.md")
    assert loaded.data.tags == ["recross", "distant-supervision", "reranking"]
    assert loaded.data.task_categories == ["text-ranking"]
    assert loaded.data.to_dict()["configs"] == [{"config_name": "default", "data_files": "pairs.parquet"}]
    for line in (
        "| num pairs | 99 |",
        "| seconds | 12.5000 |",
        "| reliability | 0.9870 |",
        "| skipped: every group diverged | 1 |",
        "| sum | colour | 9 | +0.5000 |",
        "| `num_rounds` | 7 |",
        "| `trainable_parameters` | ^decoder |",
        "| `model` | abababababab... |",
        "| `exclude_tasks` | none |",
    ):
        assert f"{line}\n" in loaded.text
    assert "{{" not in loaded.text
    assert "None" not in loaded.text
    assert "Held-out examples are learned from; a utility is the fall of the candidate's own loss." in loaded.text
    without = supervision_card(
        settings=settings, utility_estimator=by_reversal, summary=SUMMARY | {"skipped": {}}
    ).text
    assert "skipped" not in without


def test_metrics_are_those_of_the_checkpoint_that_was_loaded(tmp_path):
    """The best of all evaluations, here of step 3, need not have one."""
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    names = ("eval_loss", "eval_soft_em", "eval_exact_match", "eval_a_loss", "eval_a_soft_em", "eval_a_exact_match")
    history = [dict.fromkeys(names, float(step)) | {"step": step} for step in (1, 2, 3, 4)]
    state = TrainerState(global_step=4, log_history=[{"step": 2, "loss": 0.5}, *history])
    state.best_global_step, state.best_model_checkpoint = 3, str(tmp_path / "checkpoint-2")
    assert logged_metrics(state, args, ["a"]) == dict.fromkeys(names, 4.0)
    args.load_best_model_at_end = True
    assert logged_metrics(state, args, ["a"]) == dict.fromkeys(names, 2.0)


def test_tasks_stand_in_a_table_with_their_mean():
    metrics = {"eval_soft_em": 45.0, "eval_exact_match": 40.0, "eval_loss": 1.5, "eval_a_runtime": 3.0, "epoch": 2.0}
    metrics |= {"eval_a_soft_em": 30.0, "eval_a_exact_match": 20.0, "eval_a_loss": 2.0}
    metrics |= {"eval_b_soft_em": 60.0, "eval_b_exact_match": 60.0, "eval_b_loss": 1.0}
    results = task_results(metrics, {"a": 5, "b": 12})
    assert results["tasks"]["b"] == {"soft_em": 60.0, "exact_match": 60.0, "loss": 1.0, "n": 12}
    assert {name for name in results if name != "tasks"} == {"eval_soft_em", "eval_exact_match", "eval_loss"}
    assert format_task_results(results).splitlines() == [
        "task           SoftEM  exact match   loss   n",
        "-" * 45,
        "a                30.0         20.0  2.000   5",
        "b                60.0         60.0  1.000  12",
        "mean of tasks    45.0         40.0  1.500  17",
    ]
