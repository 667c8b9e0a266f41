"""Examples that come as conversations (`messages`), or as `prompt` and `completion`, brought to inputs and references."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from .conversations import Conversation, checked_turns, conversation, is_conversation
from .schema import COLUMNS, MESSAGES, ExampleError

logger = logging.getLogger(__name__)

PROMPT, COMPLETION = "prompt", "completion"
_TURNS = COLUMNS.arrow_schema.field(MESSAGES).type
_ROWS_AT_A_TIME = 1000


def from_turns(table: pa.Table, columns: Mapping[str, str], *, labelled: bool, drop_invalid: bool) -> pa.Table:
    """A table with `input`, `messages` where an input has several turns, and `references`; a table with inputs stays as it is.

    Of a conversation, the last assistant's turn is the answer, and the turns before it are the input.

    Args:
        table: Columns of the source.
        columns: Names of the source's columns, by those of the schema.
        labelled: Whether conversations have to end with an answer; one that is there is dropped otherwise, with a warning.
        drop_invalid: Leave rows out, with a warning, that would raise.

    Raises:
        ExampleError: A conversation holds no text, or tools, images or other roles, or ends otherwise.
    """
    turns = columns.get(MESSAGES, MESSAGES)
    if columns.get("input", "input") in table.column_names or not {turns, PROMPT} & {*table.column_names}:
        return _checked(table, turns, columns.get("input", "input")) if turns in table.column_names else table
    used = [turns] if turns in table.column_names else [PROMPT, *({COMPLETION} & {*table.column_names})]
    inputs: list[str] = []
    messages: list[Any] = []
    answers: list[str | None] = []
    kept, faults = [], []
    for row, values in enumerate(_rows(table, used)):
        try:
            text, answer = _split(values, labelled) if used == [turns] else _prompted(values, labelled)
        except ExampleError as error:
            faults.append(f"row {row}: {error}")
            continue
        kept.append(row)
        inputs.append(str(text))
        messages.append([*text.messages] if isinstance(text, Conversation) else None)
        answers.append(answer)
    if faults:
        _say(faults, table.num_rows, drop_invalid)
        table = table.take(kept)
    if not labelled and any(answer is not None for answer in answers):
        logger.warning("The query set has answers. They are dropped: the method learns from inputs alone.")
    found = {"input": pa.array(inputs, pa.string()), MESSAGES: pa.array(messages, _TURNS)}
    if labelled:
        found["references"] = pa.array([[answer] for answer in answers], pa.list_(pa.string()))
    table = table.drop_columns([name for name in {*used, *found} if name in table.column_names])
    for name, column in found.items():
        table = table.append_column(name, column)
    return table


def _rows(table: pa.Table, names: list[str]) -> Iterator[dict[str, Any]]:
    tools = [name for name in ("tools",) if name in table.column_names]
    for batch in table.select(names + tools).to_batches(_ROWS_AT_A_TIME):
        yield from batch.to_pylist()


def _split(values: Mapping[str, Any], labelled: bool) -> tuple[str, str | None]:
    """The input of a conversation, and its answer."""
    *_, found = (value for name, value in values.items() if name != "tools")
    _refuse_tools(values)
    if not is_conversation(found):
        raise ExampleError(
            f'Expected turns such as [{{"role": "user", "content": "..."}}, ...], found {str(found)[:60]!r}. Mend them.'
        )
    turns = checked_turns(found)
    answer = turns.pop()["content"] if turns[-1]["role"] == "assistant" else None
    if labelled and answer is None:
        raise ExampleError(
            f"Expected a conversation that ends with the assistant's answer, found that of the {turns[-1]['role']}. Add the answer."
        )
    return conversation(turns), answer


def _prompted(values: Mapping[str, Any], labelled: bool) -> tuple[str, str | None]:
    """The input of a prompt, and the answer of a completion; each is a text or a list of turns."""
    _refuse_tools(values)
    prompt, completion = values[PROMPT], values.get(COMPLETION)
    if completion is not None and is_conversation(completion):
        turns = checked_turns(completion)
        if [turn["role"] for turn in turns] != ["assistant"]:
            raise ExampleError(
                f"Expected a completion of one turn, the assistant's, found {', '.join(turn['role'] for turn in turns)}. Put the other "
                "turns into the prompt."
            )
        completion = turns[0]["content"]
    if labelled and not isinstance(completion, str):
        raise ExampleError(
            f"Expected a completion, a text or the assistant's turn, found {str(completion)[:60]}. Add it."
        )
    if isinstance(prompt, str):
        return prompt, completion
    if not is_conversation(prompt):
        raise ExampleError(f"Expected a prompt, a text or turns, found {str(prompt)[:60]}. Mend it.")
    return conversation(checked_turns(prompt)), completion


def _refuse_tools(values: Mapping[str, Any]) -> None:
    if values.get("tools"):
        raise ExampleError("Expected conversations without tools, found some. Leave such rows out.")


def _checked(table: pa.Table, name: str, input_name: str) -> pa.Table:
    """A table with inputs and their turns, which have to be those of a conversation and say what the input says."""
    for row, values in enumerate(_rows(table, [name, input_name])):
        if values[name]:
            try:
                _refuse_other_text(Conversation(values[name]), values[input_name])
            except ExampleError as error:
                raise ExampleError(
                    f"Expected turns before an answer in the column {name!r}, beside {input_name!r}, found in row {row}: {error} Or drop "
                    "one of the two columns."
                ) from error
    return table


def _refuse_other_text(turns: Conversation, text: str | None) -> None:
    """Models with a chat template read the turns, and retrieval and other models the text: both have to be of one example."""
    said = str(turns)
    if text is not None and text != said:
        alike = (one == other for one, other in zip(said, text, strict=False))
        place = next((place for place, same in enumerate(alike) if not same), min(len(said), len(text)))
        raise ExampleError(
            f"Expected the text of the turns, joined by blank lines, which has {said[place : place + 60]!r} after {place} characters, "
            f"found {text[place : place + 60]!r} there. Mend the row."
        )


def _say(faults: list[str], num_rows: int, drop_invalid: bool) -> None:
    message = f"{len(faults)} of {num_rows} rows are no conversations to learn from ({faults[0]})"
    if not drop_invalid:
        raise ExampleError(f"{message} Or leave them out with `drop_invalid=True`.")
    if len(faults) == num_rows:
        raise ExampleError(f"Expected at least one valid example, found none: {message}")
    logger.warning("%s: left out.", message)
