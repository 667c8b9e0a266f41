"""Examples as TRL's trainers take them: `prompt` and `completion`."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..data.conversations import texts_of
from ..data.schema import ExampleError
from . import chat
from .architectures import SEPARATOR


def to_prompt_completion(examples: Dataset, processing_class: PreTrainedTokenizerBase) -> Dataset:
    """Labelled examples, such as `adapter.retrieved`, as TRL's `SFTTrainer` learns the same from them as this library does.

    With a chat template, prompts and completions are turns, beside the settings of the template (`chat_template_kwargs`); without one, a
    prompt is the input and a line break. The first reference is the completion. Other columns stay.

    Args:
        examples: Examples of the schema, with `references`.
        processing_class: Tokenizer of the decoder-only model.

    Raises:
        ExampleError: The examples have no references.
    """
    if "references" not in examples.column_names:
        raise ExampleError(
            f"Expected labelled examples, found the columns {', '.join(examples.column_names)} without 'references'. Pass retrieved or "
            "upstream examples."
        )
    answers = [accepted[0] for accepted in examples["references"][:]]
    texts = texts_of(examples)
    columns: dict[str, list[Any]]
    if chat.uses_chat_template(processing_class):
        columns = {
            "prompt": [chat.messages_of(processing_class, text) for text in texts],
            "completion": [[{"role": "assistant", "content": answer}] for answer in answers],
            "chat_template_kwargs": [dict(chat.TEMPLATE_SETTINGS)] * len(texts),
        }
    else:
        columns = {"prompt": [text + SEPARATOR for text in texts], "completion": answers}
    others = [name for name in examples.column_names if name not in {*columns, "messages"}]
    # TRL takes a column `messages` for whole conversations.
    return Dataset.from_dict(columns | {name: examples[name][:] for name in others})
