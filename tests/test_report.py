import json

import pytest
from datasets import Dataset

from recross_hf import AdaptationArguments, RandomRetriever, RetrievalAugmentedAdapter
from recross_hf.report import adaptation_results, format_results, format_table, plot_task_shares, task_shares


def rows_of(counts: dict[str, int]) -> Dataset:
    return Dataset.from_dict({"task": [task for task, count in counts.items() for _ in range(count)]})


RESULTS = {
    "task": "mine",
    "num_queries": 16,
    "num_retrieved": 4,
    "base": {"soft_em": 40.0, "exact_match": 30.0, "n": 10},
    "adapted": {"soft_em": 55.25, "exact_match": 20.0, "n": 10},
    "retrieved_tasks": {"a": 0.5, "b": 0.3, "c": 0.2},
    "retriever": "DenseRetriever",
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
    results = json.loads(json.dumps(adaptation_results(adapter, task="mine", seconds={"load": 1.23456})))
    assert results == {
        "task": "mine",
        "num_queries": 4,
        "num_retrieved": 8,
        "base": adapter.scores["base"],
        "adapted": None,
        "retrieved_tasks": task_shares(adapter.retrieved),
        "retriever": "RandomRetriever",
        "seed": 3,
        "seconds": {"load": 1.235},
    }
    assert results["base"]["n"] == 5
    assert "Not evaluated" in format_results(results)


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
