"""Conversations, and prompts with completions, as examples."""

import copy
import pickle

import pytest
from datasets import Dataset

from recross_hf import load_examples, load_queries
from recross_hf.data.conversations import Conversation, texts_of
from recross_hf.data.inputs import input_texts
from recross_hf.data.schema import ExampleError, check_plain

USER, ANSWER = {"role": "user", "content": "Is the sky blue?"}, {"role": "assistant", "content": "yes"}
SYSTEM, LAST = {"role": "system", "content": "Be short."}, {"role": "user", "content": "And the grass?"}


def test_the_last_answer_of_a_conversation_is_the_target():
    rows = [[USER, ANSWER], [SYSTEM, USER, ANSWER], [USER, ANSWER, LAST, {"role": "assistant", "content": "no"}]]
    examples = load_examples({"messages": rows}, task="chat")
    assert examples["references"][:] == [["yes"], ["yes"], ["no"]]
    assert examples["messages"][:] == [None, [SYSTEM, USER], [USER, ANSWER, LAST]]
    assert examples["input"][:] == [
        "Is the sky blue?",
        "Be short.\n\nIs the sky blue?",
        "Is the sky blue?\n\nyes\n\nAnd the grass?",
    ]
    texts = texts_of(examples)
    assert [isinstance(text, Conversation) for text in texts] == [False, True, True]
    assert texts[2].messages == (USER, ANSWER, LAST)


def test_conversations_of_one_user_turn_are_plain_inputs():
    examples = load_examples({"messages": [[USER, ANSWER]] * 2, "task": ["a", "b"]})
    assert "messages" not in examples.column_names
    assert examples["task"][:] == ["a", "b"]


@pytest.mark.parametrize("completion", ["yes", [ANSWER]])
@pytest.mark.parametrize("prompt", ["Is the sky blue?", [USER], [SYSTEM, USER]])
def test_prompts_and_completions_are_read(prompt, completion):
    examples = load_examples({"prompt": [prompt], "completion": [completion]})
    assert examples["references"][:] == [["yes"]]
    assert examples["input"][0].endswith("Is the sky blue?")
    assert ("messages" in examples.column_names) == (prompt == [SYSTEM, USER])


def test_queries_lose_their_answers_with_a_warning(caplog):
    queries = load_queries(Dataset.from_dict({"messages": [[USER, ANSWER], [USER]]}))
    assert queries["input"][:] == ["Is the sky blue?"] * 2
    assert "references" not in queries.column_names
    assert "They are dropped" in caplog.text
    assert load_queries(Dataset.from_dict({"prompt": ["x"], "completion": ["y"]}))["input"][:] == ["x"]


def test_a_list_of_conversations_is_a_query_set():
    queries = load_queries([[SYSTEM, USER], [USER], "a text"])
    assert queries["messages"][:] == [[SYSTEM, USER], None, None]
    assert queries["input"][1:] == ["Is the sky blue?", "a text"]
    with pytest.raises(ExampleError, match="Pass a list of conversations"):
        load_queries([USER])


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_files_of_conversations_are_read_and_survive_a_round_trip(suffix, tmp_path):
    rows = Dataset.from_dict({"messages": [[SYSTEM, USER, ANSWER], [USER, ANSWER]]})
    path = tmp_path / f"chats.{suffix}"
    (rows.to_parquet if suffix == "parquet" else lambda where: rows.to_json(where, lines=suffix == "jsonl"))(path)
    examples = load_examples(path, task="chat")
    assert texts_of(examples)[0].messages == (SYSTEM, USER)
    again = tmp_path / f"again.{suffix}"
    (examples.to_parquet if suffix == "parquet" else lambda where: examples.to_json(where, lines=suffix == "jsonl"))(
        again
    )
    assert load_examples(again).to_dict() == examples.to_dict()
    check_plain(examples, path)


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([USER], "Expected a conversation that ends with the assistant's answer, found that of the user"),
        ([ANSWER], "ends with the user's turn, found no turn"),
        ([USER, {"role": "tool", "content": "4"}, ANSWER], "found 'tool' in turn 1. Turns of tools"),
        ([], "Expected turns such as"),
    ],
)
def test_what_is_no_conversation_is_named_with_its_row_or_left_out(messages, told, caplog):
    source = Dataset.from_dict({"messages": [[USER, ANSWER], messages]})
    with pytest.raises(ExampleError, match=f"1 of 2 rows are no conversations.*row 1: .*{told}"):
        load_examples(source)
    assert len(load_examples(source, drop_invalid=True)) == 1
    assert "1 of 2 rows" in caplog.text


def test_turns_of_images_are_refused():
    images = [{"role": role, "content": [{"type": "image"}]} for role in ("user", "assistant")]
    with pytest.raises(ExampleError, match=r"row 0: .* found list in turn 0. Images and other parts"):
        load_examples(Dataset.from_dict({"messages": [images]}))


def test_tools_are_refused():
    rows = {"messages": [[USER, ANSWER]] * 2, "tools": [None, [{"name": "search"}]]}
    with pytest.raises(ExampleError, match="row 1: Expected conversations without tools"):
        load_examples(Dataset.from_dict(rows))
    calls = [USER, {"role": "assistant", "content": "", "tool_calls": [{"name": "search"}]}, ANSWER]
    with pytest.raises(ExampleError, match="found calls of tools in turn 1"):
        load_examples(Dataset.from_list([{"messages": calls}]))


def test_turns_beside_an_input_are_those_before_the_answer():
    rows = {"input": ["Is the sky blue?"], "references": [["yes"]], "messages": [[USER, ANSWER]]}
    with pytest.raises(ExampleError, match=r"beside 'input', found in row 0: .* ends with the user's turn"):
        load_examples(Dataset.from_dict(rows))


def test_turns_beside_an_input_of_other_text_are_refused_with_their_row():
    rows = {"id": ["a", "b"], "input": ["Is the sky blue?"] * 2, "references": [["yes"]] * 2}
    same = load_examples(Dataset.from_dict(rows | {"messages": [[USER], None]}))
    assert same["input"][:] == rows["input"]
    green = {"role": "user", "content": "Is the sky green?"}
    for turns, told in (
        ([SYSTEM, USER], r"'Be short\.\\n\\nIs the sky blue\?' after 0 characters, found 'Is the sky blue\?' there"),
        ([green], r"'green\?' after 11 characters, found 'blue\?' there"),
    ):
        with pytest.raises(ExampleError, match=f"beside 'input', found in row 1: .*{told}"):
            load_examples(Dataset.from_dict(rows | {"messages": [[USER], turns]}))


def test_columns_say_where_conversations_are():
    examples = load_examples(Dataset.from_dict({"chat": [[SYSTEM, USER, ANSWER]]}), columns={"messages": "chat"})
    assert examples["messages"][:] == [[SYSTEM, USER]]


def test_a_conversation_keeps_its_turns_wherever_it_goes():
    text = Conversation([SYSTEM, USER])
    assert text == copy.deepcopy(text) == pickle.loads(pickle.dumps(text))
    assert text != str(text)
    assert text != Conversation([USER, ANSWER, LAST])
    assert {text: 1, str(text): 2}[text] == 1
    assert input_texts([text])[0].messages == (SYSTEM, USER)
