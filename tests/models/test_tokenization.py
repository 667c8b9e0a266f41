import copy
import tracemalloc

import numpy as np
import pytest
from datasets import Dataset

from recross_hf import load_examples
from recross_hf.data.schema import ExampleError
from recross_hf.models.architectures import DECODER_ONLY, SEQUENCE_TO_SEQUENCE
from recross_hf.models.tokenization import TEXTS_A_CALL, TokenizedExamples


def made_up(rows: int, answer=lambda row: "yes") -> Dataset:
    columns = {
        "input": [f"Is {row} odd?" + "?" * (row % 7) for row in range(rows)],
        "references": [[answer(row), "maybe"] for row in range(rows)],
        "task": [f"task {row % 3}" for row in range(rows)],
    }
    return load_examples(Dataset.from_dict(columns))


def test_items_are_those_of_the_tokenizer_over_several_calls(tokenizer):
    examples = made_up(2 * TEXTS_A_CALL + 3)
    items = TokenizedExamples(examples, tokenizer, 12, 3)
    expected = tokenizer(examples["input"][:], truncation=True, max_length=12)["input_ids"]
    assert [item["input_ids"] for item in items] == expected
    assert all(item["labels"] == [0, item["labels"][1], 2] for item in items)
    assert items.input_lengths.tolist() == [len(ids) for ids in expected]
    assert set(items.target_lengths) == {3}
    assert items.order.tolist() == list(range(len(examples)))
    assert items.task_names == ["task 0", "task 1", "task 2"]
    assert items.tasks.tolist() == [row % 3 for row in range(len(examples))]
    with pytest.raises(IndexError):
        items[len(examples)]


def test_what_belongs_to_an_item_follows_it_when_the_longest_come_first(tokenizer):
    examples = made_up(50, lambda row: str(row))
    plain = TokenizedExamples(examples, tokenizer, 100, 100)
    sorted_ = TokenizedExamples(examples, tokenizer, 100, 100, longest_first=True)
    assert (np.diff(sorted_.input_lengths) <= 0).all()
    assert len(set(sorted_.input_lengths)) > 3
    for item, row in enumerate(sorted_.order):
        assert sorted_[item] == plain[row]
        assert sorted_.references[item] == examples[int(row)]["references"]
        assert sorted_.tasks[item] == plain.tasks[row]
        assert sorted_.target_lengths[item] == len(sorted_[item]["labels"])


def test_examples_with_long_answers_can_be_left_out_rather_than_cut(tokenizer, caplog):
    examples = made_up(TEXTS_A_CALL + 8, lambda row: "x" if row % 4 or row < 20 else "x y z x y z")
    longest = len(tokenizer("x")["input_ids"])
    kept = [row for row in range(len(examples)) if row % 4 or row < 20]
    items = TokenizedExamples(examples, tokenizer, 100, longest, drop_long_targets=True)
    assert items.order.tolist() == kept
    assert [item["input_ids"] for item in items] == tokenizer([examples[row]["input"] for row in kept])["input_ids"]
    assert items.references == [["x", "maybe"]] * len(kept)
    assert items.tasks.tolist() == [row % 3 for row in kept]
    dropped = len(examples) - len(kept)
    assert (
        f"Left out {dropped} of {len(examples)} examples, whose answer has more than {longest} tokens" in caplog.text
    )
    with pytest.raises(
        ValueError, match=r"Nothing is left to train on without 1008 of 1008 .*Raise `max_target_length`"
    ):
        TokenizedExamples(examples, tokenizer, 100, longest - 1, drop_long_targets=True)


def test_inputs_alone_have_no_labels_and_no_task(tokenizer):
    items = TokenizedExamples(Dataset.from_dict({"input": ["a", "b c"]}), tokenizer, 100, 100)
    assert [set(item) for item in items] == [{"input_ids"}] * 2
    assert items.references is items.tasks is None
    assert items.target_lengths.tolist() == [0, 0]


def test_a_token_takes_about_four_bytes(tokenizer):
    # Parents first: what a first call loads or caches is no part of it.
    TokenizedExamples(made_up(10), tokenizer, 128, 12)
    texts = ["Which colour has the sky, and which the grass? " * 2 + str(row) for row in range(4000)]
    examples = Dataset.from_dict({"input": texts, "references": [["blue"]] * 4000})
    tracemalloc.start()
    items = TokenizedExamples(examples, tokenizer, 128, 12)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tokens = int(items.input_lengths.sum() + items.target_lengths.sum())
    assert tokens > 100 * 1000
    assert held < 8 * tokens  # four a token and 40 an item; lists would take more than 30 a token


@pytest.mark.parametrize("architecture", [SEQUENCE_TO_SEQUENCE, DECODER_ONLY])
def test_answers_keep_their_beginning_where_inputs_keep_their_end(architecture, tokenizer):
    cut = copy.deepcopy(tokenizer)
    cut.truncation_side = "left"
    text = "What is the opposite of hot? " * 3
    whole, short = (architecture.answer_ids(one, [text], limit)[0] for one, limit in ((tokenizer, 50), (cut, 6)))
    assert len(short) == 6 < len(whole)
    assert short[:5] == whole[:5]
    assert cut.truncation_side == "left"
    prompt, longer = (architecture.prompt_ids(cut, [text], limit)[0] for limit in (8, 50))
    assert len(prompt) <= 8 < len(longer)
    assert prompt[-4:] == longer[-4:]


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"input": ["a"], "references": ["yes"]}, ExampleError, "lists of texts in the column 'references'"),
        ({"input": [1], "references": [["yes"]]}, ExampleError, "texts in the column 'input'"),
        ({"question": ["a"], "references": [["yes"]]}, ExampleError, "the column 'input', found question, references"),
        (
            {"input": ["a", None], "references": [["b"], ["c"]]},
            ExampleError,
            "an input in every row, found none in row 1",
        ),
        (
            {"input": ["a", "b"], "references": [["b"], []]},
            ExampleError,
            "a reference in every row, found none in row 1",
        ),
        ({"input": ["a", "b"], "references": [["b"], None]}, ExampleError, "a reference in every row.* row 1"),
        ({"input": ["a", "b"], "references": [["b"], [None]]}, ExampleError, "a reference in every row.* row 1"),
        (None, TypeError, "examples as a `Dataset`, found list"),
    ],
)
def test_what_is_no_example_is_never_learned_from(columns, error, message, tokenizer):
    examples = [{"input": "a"}] if columns is None else Dataset.from_dict(columns)
    with pytest.raises(error, match=message):
        TokenizedExamples(examples, tokenizer, 32, 8)
