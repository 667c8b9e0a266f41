"""Retrieved examples as a prompt: what an upstream model answers to an input that stands below them, without any training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..core.batching import TEXTS_A_CALL, chunks
from ..data.conversations import Conversation, Message, conversation, texts_of
from ..models.architectures import DECODER_ONLY, SEPARATOR, architecture_of, chat_reading
from ..models.likelihood import LONGEST_CHOICE
from ..retrieval.retriever import Retriever
from ..retrieval.upstream_rows import UpstreamRows

PER = ("input", "task")
"""Whose examples stand above an input: its own, or those of the whole task."""
_BETWEEN_EXAMPLES = "\n\n"
_ANY_LENGTH = 1 << 30


class InContextPrompts(NamedTuple):
    """Inputs below their examples.

    `texts` are what the model reads, `rows` the upstream rows that each shows, the nearest last. `end` is what ends an answer there: the
    blank line of a decoder-only model, which goes on with an example of its own otherwise; None where the model's end token does.
    """

    texts: list[str]
    rows: list[list[int]]
    end: str | None

    def cut(self, prediction: str) -> str:
        """A prediction up to what ends it."""
        return prediction if self.end is None else prediction.partition(self.end)[0].strip()

    @property
    def mean_shown(self) -> float:
        """The mean number of examples that an input stands below."""
        return float(np.mean([len(rows) for rows in self.rows]))


def examples_to_show(
    retriever: Retriever, inputs: Sequence[str], num_examples: int, queries: Sequence[str] | None = None
) -> np.ndarray:
    """The upstream rows `[len(inputs), k]` to show above each input, nearest first; -1 where there are fewer.

    Args:
        retriever: Retriever of the examples.
        inputs: Inputs to answer.
        num_examples: Number of examples to show, k.
        queries: Inputs of the task, whose first k distinct examples are shown above all inputs alike; without them, each input has its
            own nearest (Liu et al. 2022, arXiv 2101.06804, section 2: KATE).

    Raises:
        RuntimeError: The retriever gives examples that it may not.
    """
    if queries is None:
        rows = retriever.nearest(inputs, num_examples).positions
    else:
        found = retriever.rank(queries, num_examples * len(queries)).positions
        distinct = found[np.sort(np.unique(found, return_index=True)[1])][:num_examples]
        rows = np.broadcast_to(distinct, (len(inputs), len(distinct)))
    if not retriever.rows.are_allowed(rows[rows >= 0]):
        raise RuntimeError(f"Expected examples that are not excluded, found others from {type(retriever).__name__}.")
    return rows


def in_context_prompts(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    inputs: Sequence[str],
    upstream: Dataset | UpstreamRows,
    rows: np.ndarray,
    *,
    max_input_length: int,
    max_answer_length: int,
) -> InContextPrompts:
    """Puts examples above inputs, as a model reads them: the farthest first, the nearest right above the input.

    An example is its input, a line break and its first reference, and a blank line stands below it. A model with a chat template reads
    examples as earlier turns. The farthest are left out where all of them are too long.

    Args:
        model: Model that reads the prompts.
        processing_class: Tokenizer of the model.
        inputs: Inputs to answer.
        upstream: Examples with references.
        rows: Rows `[len(inputs), k]` of `upstream` to show above each input, nearest first; -1 stands for none.
        max_input_length: Tokens that a prompt may have.
        max_answer_length: Tokens that an answer may have, which may share the model's positions with the prompt.
    """
    architecture, is_chat = architecture_of(model), bool(chat_reading(model, processing_class))
    limit = min(max_input_length, architecture.longest_prompt(model, processing_class, max_answer_length))
    needed = np.unique(rows[rows >= 0])
    shown = upstream.select(needed)
    examples = list(zip(texts_of(shown), [accepted[0] for accepted in shown["references"][:]], strict=True))
    known = dict(zip(needed.tolist(), examples, strict=True))
    chosen = [[int(row) for row in of_input if row >= 0] for of_input in rows]
    prompt = _chat_prompt if is_chat else _text_prompt
    texts = [
        prompt([known[row] for row in reversed(of_input)], text) for text, of_input in zip(inputs, chosen, strict=True)
    ]
    unchecked = [number for number in range(len(texts)) if chosen[number]]
    while unchecked:
        lengths = [
            len(ids)
            for some in chunks([texts[number] for number in unchecked], TEXTS_A_CALL)
            for ids in architecture.prompt_ids(processing_class, some, _ANY_LENGTH)
        ]
        long = [number for number, length in zip(unchecked, lengths, strict=True) if length > limit]
        for number in long:
            chosen[number].pop()
            texts[number] = prompt([known[row] for row in reversed(chosen[number])], inputs[number])
        unchecked = [number for number in long if chosen[number]]
    end = None if is_chat or architecture is not DECODER_ONLY else _BETWEEN_EXAMPLES
    return InContextPrompts(texts, [of_input[::-1] for of_input in chosen], end)


def longest_answer(
    model: PreTrainedModel, processing_class: PreTrainedTokenizerBase, answers: Sequence[Sequence[str]]
) -> int:
    """Tokens of the longest of some answers, with what ends it."""
    texts = sorted({text + _BETWEEN_EXAMPLES for of_input in answers for text in of_input})
    token_ids = architecture_of(model).answer_ids(processing_class, texts, LONGEST_CHOICE) if texts else []
    return max(map(len, token_ids), default=0)


def _text_prompt(examples: Sequence[tuple[str, str]], text: str) -> str:
    return _BETWEEN_EXAMPLES.join([*(f"{question}{SEPARATOR}{answer}" for question, answer in examples), str(text)])


def _chat_prompt(examples: Sequence[tuple[str, str]], text: str) -> str:
    """Examples as turns before those of the input, whose system prompt stays first; those of examples are left out."""
    own = _turns(text)
    system = [turn for turn in own[:1] if turn["role"] == "system"]
    earlier: list[Message] = []
    for question, answer in examples:
        earlier += [turn for turn in _turns(question) if turn["role"] != "system"]
        earlier.append({"role": "assistant", "content": answer})
    return conversation([*system, *earlier, *own[len(system) :]])


def _turns(text: str) -> list[Message]:
    return [*text.messages] if isinstance(text, Conversation) else [{"role": "user", "content": text}]
