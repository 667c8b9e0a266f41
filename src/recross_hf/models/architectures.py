"""The two kinds of text-to-text model, sequence-to-sequence and decoder-only, and everything in which they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from . import chat
from .base import Architecture, TokenIds, less_padding, longest_input, say_inputs_are_cut, unwrapped
from .collators import Batch, CausalCollator, ExampleCollator, end_token_id

SEPARATOR = "\n"
"""The text between the input and the answer of a decoder-only model, in training and in generation."""


class SequenceToSequence(Architecture):
    """An encoder reads the input, a decoder writes the answer: BART, T5, `EncoderDecoderModel`."""

    auto_class = AutoModelForSeq2SeqLM
    peft_task_type = "SEQ_2_SEQ_LM"

    def reader(self, model: PreTrainedModel) -> PreTrainedModel:
        return unwrapped(model).get_encoder()

    def read(self, reader: PreTrainedModel, **inputs: torch.Tensor) -> torch.Tensor:
        return reader(**inputs).last_hidden_state

    def reading(self, processing_class: PreTrainedTokenizerBase) -> dict[str, str]:
        return {}

    def end_id(self, processing_class: PreTrainedTokenizerBase) -> int | None:
        return processing_class.eos_token_id

    def usage(self, processing_class: PreTrainedTokenizerBase, settings: str) -> str:
        return f"""\
ids = tokenizer("an input of the task", return_tensors="pt").input_ids
tokenizer.decode(model.generate(input_ids=ids, do_sample=False{settings})[0], skip_special_tokens=True)"""

    def longest_prompt(
        self,
        model: PreTrainedModel,
        processing_class: PreTrainedTokenizerBase,
        max_answer_length: int,
        *,
        pad_to_multiple_of: int | None = None,
    ) -> int:
        fitting = less_padding(longest_input(self.reader(model), processing_class), pad_to_multiple_of)
        if pad_to_multiple_of is not None:
            # A decoder with relative positions, such as T5's, takes any length.
            decoder = unwrapped(model).get_decoder().config.get_text_config()
            positions = getattr(decoder, "max_position_embeddings", None)
            longest = max_answer_length + -max_answer_length % pad_to_multiple_of
            if positions is not None and max_answer_length <= positions < longest:
                raise ValueError(
                    f"Expected answers of at most the {positions} positions of the decoder, found {longest} tokens: "
                    f"`max_target_length` is {max_answer_length}, padded to a multiple of {pad_to_multiple_of}. Set "
                    "`max_target_length` or `pad_to_multiple_of` lower."
                )
        return fitting

    def prompt_ids(self, processing_class: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> TokenIds:
        settings = {"truncation": True, "max_length": max_length, "return_attention_mask": False}
        found = processing_class(list(texts), **settings)
        # Where a text was cut, a fast tokenizer keeps what is left over beside it.
        if any(encoding.overflowing for encoding in found.encodings or ()):
            say_inputs_are_cut(max_length)
        return found["input_ids"]

    def answer_ids(self, processing_class: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> TokenIds:
        with _cut_at_their_end(processing_class):
            return processing_class(text_target=list(texts), truncation=True, max_length=max_length)["input_ids"]

    def collator(
        self,
        processing_class: PreTrainedTokenizerBase,
        model: PreTrainedModel,
        *,
        pad_to_multiple_of: int | None = None,
    ) -> ExampleCollator:
        return ExampleCollator(processing_class, model=model, pad_to_multiple_of=pad_to_multiple_of)

    def padding_side(self, processing_class: PreTrainedTokenizerBase) -> str:
        return "right"  # whatever the tokenizer's: BART's positions count from the left, padding included

    def prompts_of(self, batch: Batch, pad: int) -> Batch:
        return {name: batch[name] for name in ("input_ids", "attention_mask")}

    def answers_of(self, batch: Batch) -> torch.Tensor:
        return batch["labels"]

    def continuations(self, generated: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        return generated


class DecoderOnly(Architecture):
    """One decoder reads the input and goes on with the answer: GPT-2, Llama, Qwen.

    With a tokenizer that has a chat template, input and answer are turns of a conversation, see [`chat`]. Without one, the tokens of a training item are those of input + `SEPARATOR`, then those of the answer, then the end token. Both are
    tokenised on their own, so that generation goes on from what training had before the answer. An input that is too long is
    cut before its separator, and the answer has its room always.
    """

    auto_class = AutoModelForCausalLM
    peft_task_type = "CAUSAL_LM"

    def reader(self, model: PreTrainedModel) -> PreTrainedModel:
        return cast(PreTrainedModel, unwrapped(model).base_model)

    def read(self, reader: PreTrainedModel, **inputs: torch.Tensor) -> torch.Tensor:
        return reader(**inputs, use_cache=False).last_hidden_state

    def reading(self, processing_class: PreTrainedTokenizerBase) -> dict[str, str]:
        return (
            chat.chat_identity(processing_class)
            if chat.uses_chat_template(processing_class)
            else {"separator": SEPARATOR}
        )

    def end_id(self, processing_class: PreTrainedTokenizerBase) -> int | None:
        if chat.uses_chat_template(processing_class):
            return chat.answer_end_id(processing_class)
        return processing_class.eos_token_id

    def usage(self, processing_class: PreTrainedTokenizerBase, settings: str) -> str:
        if chat.uses_chat_template(processing_class):
            return chat.usage(processing_class, settings)
        return f"""\
ids = tokenizer("an input of the task\\n", return_tensors="pt").input_ids
settings = {{"do_sample": False, "eos_token_id": tokenizer.eos_token_id}}
tokenizer.decode(model.generate(input_ids=ids, **settings{settings})[0, ids.shape[1] :], skip_special_tokens=True)"""

    def longest_prompt(
        self,
        model: PreTrainedModel,
        processing_class: PreTrainedTokenizerBase,
        max_answer_length: int,
        *,
        pad_to_multiple_of: int | None = None,
    ) -> int:
        positions = less_padding(longest_input(self.reader(model), processing_class), pad_to_multiple_of)
        if max_answer_length >= positions:
            raise ValueError(
                f"Expected answers shorter than the {positions} positions of the model, which input and answer share, "
                f"found a longest answer of {max_answer_length} tokens. Set `max_target_length` (in generation: "
                "`max_new_tokens`) lower."
            )
        return positions - max_answer_length

    def prompt_ids(self, processing_class: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> TokenIds:
        if chat.uses_chat_template(processing_class):
            return chat.prompt_ids(processing_class, texts, max_length)
        separator = processing_class(SEPARATOR, add_special_tokens=False)["input_ids"]
        least = len(separator) + processing_class.num_special_tokens_to_add() + 1
        if max_length < least:
            raise ValueError(
                f"Expected room for an input of at least {least} tokens, its separator among them, found {max_length}. Set "
                "the longest input higher, or the longest answer lower: they share the positions of the model."
            )
        # The tokenizer may add an end token, which has no place before the answer; two tokens more tell what is too long.
        joined = [text + SEPARATOR for text in texts]
        whole = self._tokenized(processing_class, joined, max_length + 2)
        long = [row for row, ids in enumerate(whole) if len(ids) > max_length]
        if long:
            say_inputs_are_cut(max_length)
            cut = self._tokenized(processing_class, [texts[row] for row in long], max_length - len(separator))
            for row, ids in zip(long, cut, strict=True):
                whole[row] = ids + separator
        return whole

    def answer_ids(self, processing_class: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> TokenIds:
        if chat.uses_chat_template(processing_class):
            return chat.answer_ids(processing_class, texts, max_length)
        end = end_token_id(processing_class)
        settings = {"add_special_tokens": False, "truncation": True, "max_length": max_length}
        with _cut_at_their_end(processing_class):
            token_ids = processing_class(text_target=list(texts), **settings)["input_ids"]
        return [[*ids[: max_length - 1], end] for ids in token_ids]

    @staticmethod
    def _tokenized(processing_class: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> TokenIds:
        settings = {"truncation": True, "max_length": max_length, "return_attention_mask": False}
        end = processing_class.eos_token_id
        token_ids = processing_class(texts, **settings)["input_ids"]
        return [ids[:-1] if ids and ids[-1] == end else ids for ids in token_ids]

    def collator(
        self,
        processing_class: PreTrainedTokenizerBase,
        model: PreTrainedModel,
        *,
        pad_to_multiple_of: int | None = None,
    ) -> CausalCollator:
        return CausalCollator(processing_class, pad_to_multiple_of=pad_to_multiple_of)

    def padding_side(self, processing_class: PreTrainedTokenizerBase) -> str:
        return "left"  # so that all answers begin right after their prompts

    def prompts_of(self, batch: Batch, pad: int) -> Batch:
        keep = batch["attention_mask"].bool()
        if "labels" in batch:
            keep = keep & (batch["labels"] == -100)
        input_ids, attention_mask = _moved(batch["input_ids"], keep, fill=pad, to_left=False)
        return {"input_ids": input_ids, "attention_mask": attention_mask.long()}

    def answers_of(self, batch: Batch) -> torch.Tensor:
        labels = batch["labels"]
        return _moved(labels, labels != -100, fill=-100, to_left=True)[0]

    def continuations(self, generated: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        return generated[:, prompts.shape[1] :]


SEQUENCE_TO_SEQUENCE, DECODER_ONLY = SequenceToSequence(), DecoderOnly()


def architecture_of(model: PreTrainedModel) -> Architecture:
    """The kind of a model, which may be a PEFT model.

    Raises:
        TypeError: The model is neither sequence-to-sequence nor decoder-only, such as a plain BERT.
    """
    return architecture_of_config(model.config, type(unwrapped(model)).__name__)


def chat_reading(model: PreTrainedModel, processing_class: PreTrainedTokenizerBase) -> dict[str, str]:
    """The chat template and the system prompt that a model reads inputs in, as JSON values; none where it reads texts."""
    reads_turns = architecture_of(model) is DECODER_ONLY and chat.uses_chat_template(processing_class)
    return chat.chat_identity(processing_class) if reads_turns else {}


@contextmanager
def _cut_at_their_end(processing_class: PreTrainedTokenizerBase) -> Iterator[None]:
    """Answers keep their beginning, whichever end of an input the tokenizer cuts."""
    side, processing_class.truncation_side = processing_class.truncation_side, "right"
    try:
        yield
    finally:
        processing_class.truncation_side = side


def architecture_of_config(config: PreTrainedConfig, found: str) -> Architecture:
    """The kind of a model by its configuration; `found` names it where it is of neither."""
    if config.is_encoder_decoder and type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
        return SEQUENCE_TO_SEQUENCE
    # BERT-like encoders can be loaded as decoders, and have not learned to be any.
    is_encoder = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if not config.is_encoder_decoder and not is_encoder and type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return DECODER_ONLY
    raise TypeError(
        "Expected a sequence-to-sequence model (`AutoModelForSeq2SeqLM`, such as BART) or a decoder-only one "
        f"(`AutoModelForCausalLM`, such as Llama), found {found}. A BERT-like encoder grows into the former with "
        "`warm_start_seq2seq`. To index alone, any object with `encode(texts)` will do, such as a SentenceTransformer."
    )


def _moved(values: torch.Tensor, keep: torch.Tensor, *, fill: int, to_left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The kept values of each row, moved to one side in their order, and where they stand; the rest is filled."""
    order = torch.argsort(keep.int(), dim=1, descending=to_left, stable=True)
    longest = int(keep.sum(dim=1).max())
    order = order[:, :longest] if to_left else order[:, keep.shape[1] - longest :]
    kept = keep.gather(1, order)
    return values.gather(1, order).masked_fill(~kept, fill), kept
