"""Conversations: texts that know the turns they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datasets import Dataset, Features, Value

from .schema import COLUMNS, MESSAGES, ExampleError

Message = dict[str, str]
"""One turn: `{"role": "system" | "user" | "assistant", "content": text}`."""

ROLES = ("system", "user", "assistant")
_BETWEEN_TURNS = "\n\n"


class Conversation(str):
    """The text of a conversation, its turns joined by blank lines, that keeps the turns in `messages`.

    Whatever reads texts (BM25, a sentence encoder, a model without a chat template) reads the text; a model with a chat template
    reads the turns. Two conversations are equal if their turns are, and none equals a plain text, which is one user turn.

    Args:
        messages: The turns before the answer; the last one is the user's.

    Raises:
        ExampleError: The turns are none that a chat template takes, or the last is not the user's.
    """

    messages: tuple[Message, ...]

    def __new__(cls, messages: Iterable[Mapping[str, Any]]) -> Conversation:
        turns = tuple(checked_turns(messages))
        if not turns or turns[-1]["role"] != "user":
            raise ExampleError(
                f"Expected a conversation that ends with the user's turn, found {turns[-1]['role'] if turns else 'no turn'}. Leave the "
                "answer out, or pass labelled conversations to `load_examples`."
            )
        text = super().__new__(cls, _BETWEEN_TURNS.join(turn["content"] for turn in turns))
        text.messages = turns
        return text

    def __getnewargs__(self) -> tuple[tuple[Message, ...]]:  # type: ignore[override]
        return (self.messages,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Conversation) and self.messages == other.messages

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def conversation(messages: Iterable[Mapping[str, Any]]) -> str:
    """The turns before an answer as an input: a plain text, if they are one user turn, or a [`Conversation`]."""
    found = Conversation(messages)
    return str(found) if len(found.messages) == 1 else found


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of turns, each with a role."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and bool(value)
        and all(isinstance(turn, Mapping) and "role" in turn for turn in value)
    )


def checked_turns(messages: Iterable[Mapping[str, Any]]) -> list[Message]:
    """Turns with their roles and texts alone.

    Raises:
        ExampleError: A turn has another role, such as that of a tool, or holds something else than text, such as an image.
    """
    turns = []
    for place, turn in enumerate(messages):
        if not isinstance(turn, Mapping) or "role" not in turn or "content" not in turn:
            raise ExampleError(
                f'Expected turns such as {{"role": "user", "content": "..."}}, found {str(turn)[:60]} in turn {place}.'
            )
        if turn["role"] not in ROLES:
            raise ExampleError(
                f"Expected the roles {', '.join(ROLES)}, found {turn['role']!r} in turn {place}. Turns of tools cannot be learned from "
                "here: leave such conversations out."
            )
        if turn.get("tool_calls"):
            raise ExampleError(
                f"Expected turns of text alone, found calls of tools in turn {place}. Leave such conversations out."
            )
        if not isinstance(turn["content"], str):
            raise ExampleError(
                f"Expected text in every turn, found {type(turn['content']).__name__} in turn {place}. Images and other parts of a turn "
                "cannot be read: join its texts, or leave such conversations out."
            )
        turns.append({"role": turn["role"], "content": turn["content"]})
    return turns


def texts_of(examples: Dataset | Mapping[str, Any]) -> list[str]:
    """The inputs of examples, or of a batch of their columns: plain texts, and a [`Conversation`] where there are turns."""
    columns: Mapping[str, Any] = (
        {name: examples[name][:] for name in ("input", MESSAGES) if name in examples.column_names}
        if isinstance(examples, Dataset)
        else examples
    )
    texts = list(columns["input"])
    if MESSAGES not in columns:
        return texts
    return [Conversation(turns) if turns else text for text, turns in zip(texts, columns[MESSAGES], strict=True)]


def as_json(texts: Iterable[str]) -> list[Any]:
    """Inputs as JSON values, which are the same where the inputs are: a text, or the turns of a [`Conversation`]."""
    return [list(text.messages) if isinstance(text, Conversation) else text for text in texts]


def columns_of(texts: Sequence[str]) -> tuple[dict[str, list[Any]], Features]:
    """Inputs as columns, the reverse of [`texts_of`], and their types."""
    columns: dict[str, list[Any]] = {"input": [str(text) for text in texts]}
    features = {"input": Value("string")}
    if any(isinstance(text, Conversation) for text in texts):
        columns[MESSAGES] = [list(text.messages) if isinstance(text, Conversation) else None for text in texts]
        features[MESSAGES] = COLUMNS[MESSAGES]
    return columns, Features(features)
