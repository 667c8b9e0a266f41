"""Examples in context: prompts, whose examples they show, and the cells of such methods."""

import json

import numpy as np
import pytest
import tiny
from chat_templates import CHATML, chat_tokenizer
from evaluation_cases import ADAPTATION, task

from recross_hf import (
    BM25Retriever,
    Conversation,
    DenseRetriever,
    Method,
    RandomRetriever,
    ReCrossPipeline,
    evaluate_methods,
    rank_choices,
)
from recross_hf.evaluation import computation
from recross_hf.evaluation.in_context import examples_to_show, in_context_prompts
from recross_hf.retrieval.aggregation import Hits, round_robin

ANY = {"max_input_length": 1 << 20, "max_answer_length": 4}


@pytest.fixture(scope="module")
def causal():
    tokenizer = tiny.causal_tokenizer("<s> $A")
    return tiny.llama(tokenizer), tokenizer


def example(index, row):
    return index.dataset["input"][int(row)], index.dataset["references"][int(row)][0]


def test_the_nearest_example_stands_right_above_the_input(causal, index):
    rows = np.array([[3, 30], [5, -1], [-1, -1]])
    found = in_context_prompts(*causal, ["one?", "two?", "three?"], index.dataset, rows, **ANY)
    (q3, a3), (q30, a30), (q5, a5) = (example(index, row) for row in (3, 30, 5))
    assert found.texts == [f"{q30}\n{a30}\n\n{q3}\n{a3}\n\none?", f"{q5}\n{a5}\n\ntwo?", "three?"]
    assert found.rows == [[30, 3], [5], []]
    assert found.mean_shown == 1.0
    assert found.cut("yes, it is\nindeed \n\nfour?\nno\n\n") == "yes, it is\nindeed"


def test_the_farthest_examples_that_do_not_fit_are_left_out(causal, index):
    _, tokenizer = causal
    rows = np.array([[3, 30, 7, 9]] * 2)
    inputs = ["one?", "one? " * 60]
    whole = in_context_prompts(*causal, inputs, index.dataset, rows, max_input_length=60, max_answer_length=4)
    assert 0 < len(whole.rows[0]) < 4
    assert whole.rows[0] == rows[0][: len(whole.rows[0])][::-1].tolist()
    assert (whole.texts[1], whole.rows[1]) == (inputs[1], [])
    one_more = rows[:1, : len(whole.rows[0]) + 1]
    longer = in_context_prompts(*causal, inputs[:1], index.dataset, one_more, **ANY).texts[0]
    lengths = [len(tokenizer(text + "\n")["input_ids"]) for text in (whole.texts[0], longer)]
    assert lengths[0] <= 60 < lengths[1]
    # The answer shares the model's 128 positions with the prompt.
    shared = in_context_prompts(*causal, inputs, index.dataset, rows, max_input_length=999, max_answer_length=68)
    assert shared.rows == whole.rows


def test_a_chat_model_reads_examples_as_earlier_turns(index):
    tokenizer, rows = chat_tokenizer(CHATML), np.array([[3, 30]] * 2)
    model = tiny.llama(tokenizer)
    model.config.max_position_embeddings = 4096
    (q3, a3), (q30, a30) = (example(index, row) for row in (3, 30))
    shown = [
        {"role": "user", "content": q30},
        {"role": "assistant", "content": a30},
        {"role": "user", "content": q3},
        {"role": "assistant", "content": a3},
    ]
    own = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "one?"}]
    found = in_context_prompts(model, tokenizer, [Conversation(own), "one?"], index.dataset, rows, **ANY)
    assert found.texts == [Conversation([own[0], *shown, own[1]]), Conversation([*shown, own[1]])]
    assert found.end is None and found.cut("a\n\nb") == "a\n\nb"
    limits = {"max_input_length": 100, "max_answer_length": 4}
    assert in_context_prompts(model, tokenizer, ["one?"], index.dataset, rows[:1], **limits).rows == [[3]]


@pytest.mark.parametrize("kind", [DenseRetriever, BM25Retriever])
def test_each_input_is_shown_its_own_nearest(kind, index, queries):
    retriever = kind(index if kind is DenseRetriever else index.dataset, exclude_tasks=["sum"])
    rows = examples_to_show(retriever, queries, 3)
    for own, text in zip(rows, queries, strict=True):
        assert own[own >= 0].tolist() == retriever.rank([text], 3).positions.tolist()
    assert retriever.allowed[rows[rows >= 0]].all()


def test_all_inputs_of_a_task_are_shown_the_first_distinct_ones(index, queries):
    rows = examples_to_show(DenseRetriever(index), ["a", "b"], 5, queries)
    ranked = DenseRetriever(index).rank(queries, 5 * len(queries)).positions
    assert rows.tolist() == [list(dict.fromkeys(ranked.tolist()))[:5]] * 2


def test_more_examples_than_there_are_to_find(index):
    only = DenseRetriever(index, exclude_tasks=["sum", "colour", "opposite"])
    rows = examples_to_show(only, ["a"], 20)
    assert rows.shape == (1, 20) and (rows >= 0).sum() == 12


def test_examples_that_a_retriever_may_not_give_are_refused(index):
    class Broken(DenseRetriever):
        def nearest(self, inputs, k):
            return Hits(np.zeros((len(inputs), k), dtype=int), np.zeros((len(inputs), k)))

    with pytest.raises(RuntimeError, match="examples that are not excluded, found others from Broken"):
        examples_to_show(Broken(index, exclude_tasks=["sentiment"]), ["a"], 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_context": 0}, "at least one example in context, found in_context=0"),
        ({"in_context": 2, "retriever": None}, "expected a retriever and at least one example"),
        ({"in_context": 2, "in_context_per": "query"}, "`in_context_per` must be input or task, found 'query'"),
        ({"in_context": 2, "settings": {"learning_rate": 1.0}}, r"found learning_rate\. Leave them out"),
    ],
)
def test_a_method_in_context_that_makes_no_sense_is_refused(settings, message, index):
    with pytest.raises(ValueError, match=message):
        Method("x", **{"retriever": DenseRetriever(index), **settings})


@pytest.fixture(scope="module")
def evaluated(causal, examples, tmp_path_factory):
    """A comparison on a decoder-only model: the pipeline, the task, methods, the folder, the results and what each ranking was asked."""
    folder = tmp_path_factory.mktemp("in_context")
    model, tokenizer = causal
    pipeline = ReCrossPipeline.build(model, tokenizer, examples, folder / "built")
    dense = DenseRetriever(pipeline.index)
    methods = [
        Method("none"),
        Method("own", dense, in_context=2, settings={"max_input_length": 100}),
        Method("task", dense, in_context=2, in_context_per="task", num_queries=3),
        Method("drawn", lambda seed: RandomRetriever(examples, seed=seed), in_context=2, in_context_per="task"),
        Method("robin", DenseRetriever(pipeline.index, aggregation=round_robin), in_context=1, in_context_per="task"),
    ]
    of, asked = task("film", "film"), []

    def ranked(*args, **kwargs):
        asked.append((args[2], kwargs["max_input_length"], kwargs["end"]))
        return rank_choices(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(computation, "rank_choices", ranked)
        results = evaluate_methods(pipeline, [of], methods, folder / "cells", settings=ADAPTATION, show_progress=False)
    return pipeline, of, methods, folder / "cells", results, asked


def test_own_examples_are_one_cell_and_those_of_a_task_one_a_query_set(evaluated):
    *_, results, _ = evaluated
    assert not [cell.error for cell in results.cells if cell.error]
    found = [(cell.method, cell.query_set, cell.kind) for cell in results.cells if cell.kind != "floor"]
    assert found == [
        ("none", -1, "base"),
        ("own", -1, "method"),
        *((name, number, "method") for name in ("task", "drawn", "robin") for number in (0, 1)),
    ]
    own = results.cells[1]
    assert own.details["in_context"]["num_examples"] == 2 and own.details["in_context"]["per"] == "input"
    assert 0 < own.details["in_context"]["mean_shown"] <= 2
    assert sum(own.retrieved_tasks.values()) == pytest.approx(1)
    assert set(own.seconds) == {"retrieve", "predict", "rank"}
    assert [cell.num_queries for cell in results.cells[:4]] == [None, None, 3, 3]


def test_predictions_and_rank_classification_see_the_same_prompts(evaluated):
    pipeline, of, _, folder, results, asked = evaluated
    cell = json.loads((folder / results.cells[1].details["file"]).read_text())
    shown, by_id = cell["retrieved"], dict(zip(pipeline.index.dataset["id"][:], range(48), strict=True))
    prompts = []
    for place, text in enumerate(of.test["input"][:]):
        rows = [by_id[name] for name, row in zip(shown["id"], shown["test_row"], strict=True) if row == place]
        prompts.append("".join("{}\n{}\n\n".format(*example(pipeline.index, row)) for row in rows) + text)
    assert any("\n\n" in text for text in prompts)
    answers = pipeline(prompts, max_new_tokens=4, max_input_length=100)
    assert cell["predictions"] == [answer.partition("\n\n")[0].strip() for answer in answers]
    assert cell["predictions"] != json.loads((folder / results.cells[0].details["file"]).read_text())["predictions"]
    assert [asked[0][2], asked[1]] == [None, (prompts, 100, "\n\n")]


def test_a_drawn_prompt_differs_by_query_set(evaluated):
    *_, folder, results, _ = evaluated
    files = [cell.details["file"] for cell in results.cells if cell.method == "drawn"]
    drawn = [json.loads((folder / file).read_text())["retrieved"]["id"][:2] for file in files]
    assert drawn[0] != drawn[1]


def test_cells_of_another_number_of_examples_are_refused(evaluated):
    pipeline, of, methods, folder, *_ = evaluated
    # What nothing is trained with is no other setting.
    other = ADAPTATION | {"learning_rate": 1.0, "num_retrieved": 3}
    evaluate_methods(pipeline, [of], methods, folder, settings=other, show_progress=False)
    more = Method("own", methods[1].retriever, in_context=3, settings=methods[1].settings)
    with pytest.raises(ValueError, match=r"in_context\.num_examples: 2 there, 3 here"):
        evaluate_methods(pipeline, [of], [more], folder, settings=ADAPTATION, show_progress=False)


def test_the_targets_own_task_is_not_shown(pipeline, tmp_path):
    of = task("colour", "colour", 1)
    by = [Method("own", DenseRetriever(pipeline.index), in_context=2)]
    results = evaluate_methods(pipeline, [of], by, tmp_path, settings=ADAPTATION, show_progress=False)
    assert results.cells[0].error is None
    assert results.cells[0].retrieved_tasks and "colour" not in results.cells[0].retrieved_tasks
