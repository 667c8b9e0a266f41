"""Examples as token ids."""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..data.conversations import texts_of
from ..data.schema import MESSAGES, check_rows, check_types
from .architectures import SEQUENCE_TO_SEQUENCE
from .base import Architecture

logger = logging.getLogger(__name__)

TEXTS_A_CALL = 1000


class TokenizedExamples(torch.utils.data.Dataset):
    """Examples as token ids, tokenised once and kept in flat arrays, four bytes a token.

    Training uses the first reference as the target.

    Args:
        examples: Examples of the schema; without `references` the items have no labels.
        processing_class: The model's tokenizer.
        max_input_length: Tokens that an input is cut to.
        max_target_length: Tokens that an answer is cut to.
        architecture: How the model's kind reads inputs and writes answers.
        longest_first: Order items by falling length of the input.
        drop_long_targets: Leave examples out, with a warning, whose answer would be cut.

    Attributes:
        order: The row of each item in `examples`: int64 `[n]`.
        input_lengths, target_lengths: Tokens of each item, after cutting: int64 `[n]`.
        tasks: Number of each item's task: int32 `[n]`, its name being at that place of `task_names`; None without tasks.

    Raises:
        ExampleError: The examples have another schema, or lack an input or an answer.
        ValueError: No example has an answer short enough (`drop_long_targets`).
    """

    def __init__(
        self,
        examples: Dataset,
        processing_class: PreTrainedTokenizerBase,
        max_input_length: int,
        max_target_length: int,
        *,
        architecture: Architecture = SEQUENCE_TO_SEQUENCE,
        longest_first: bool = False,
        drop_long_targets: bool = False,
    ) -> None:
        check_types(examples)
        check_rows(examples)
        labelled = "references" in examples.column_names
        inputs, targets = FlatLists(), FlatLists()
        rows, tasks = array("q"), array("i")
        number_of: dict[str, int] = {}
        wanted = [name for name in ("input", MESSAGES, "references", "task") if name in examples.column_names]
        columns = examples.select_columns(wanted)
        for start in range(0, len(columns), TEXTS_A_CALL):
            texts = columns[start : start + TEXTS_A_CALL]
            kept: Sequence[int] = range(len(texts["input"]))
            if labelled:
                answers = [accepted[0] for accepted in texts["references"]]
                # One token more than is kept shows which answers would be cut.
                labels = architecture.answer_ids(processing_class, answers, max_target_length + drop_long_targets)
                if drop_long_targets:
                    kept = [place for place in kept if len(labels[place]) <= max_target_length]
                targets.extend(labels[place] for place in kept)
            if kept:
                asked = texts_of(texts)
                inputs.extend(
                    architecture.prompt_ids(processing_class, [asked[place] for place in kept], max_input_length)
                )
            rows.extend(start + place for place in kept)
            if "task" in texts:
                tasks.extend(number_of.setdefault(texts["task"][place], len(number_of)) for place in kept)
        if dropped := len(examples) - len(rows):
            what = f"{dropped} of {len(examples)} examples, whose answer has more than {max_target_length} tokens"
            if not rows:
                raise ValueError(f"Nothing is left to train on without {what}. Raise `max_target_length`.")
            logger.warning("Left out %s.", what)
        lengths = inputs.lengths()
        # Batches of like lengths waste no padding, and the longest come first: what does not fit fails at once.
        self._places = np.argsort(-lengths, kind="stable") if longest_first else np.arange(len(lengths))
        self._inputs, self._targets = inputs, targets if labelled else None
        self._references = examples.select_columns("references") if labelled else None
        self.order = np.array(rows, dtype=np.int64)[self._places]
        self.input_lengths = lengths[self._places]
        self.target_lengths = targets.lengths()[self._places] if labelled else np.zeros_like(self.input_lengths)
        self.tasks = np.array(tasks, dtype=np.int32)[self._places] if number_of else None
        self.task_names = list(number_of)

    @property
    def references(self) -> list[list[str]] | None:
        """All accepted answers of each item; None where there are none."""
        if self._references is None:
            return None
        references = self._references["references"][:]
        return [references[row] for row in self.order]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that is learned from, in its order: token ids of inputs and answers, and which are of one task."""
        digest = hashlib.sha256()
        for held in (self._inputs, self._targets):
            for part in () if held is None else held.arrays:
                digest.update(part)
        for values in (self._places, self.tasks):
            digest.update(b"" if values is None else values.tobytes())
        return digest.hexdigest()

    @property
    def num_bytes(self) -> int:
        """Bytes that all examples together take."""
        arrays = (self._places, self.order, self.input_lengths, self.target_lengths, self.tasks)
        lists = (self._inputs, self._targets)
        return sum(array.nbytes for array in arrays if array is not None) + sum(
            held.num_bytes for held in lists if held is not None
        )

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, item: int) -> dict[str, list[int]]:
        place = self._places[item]
        labels = {"labels": self._targets[place]} if self._targets is not None else {}
        return {"input_ids": self._inputs[place]} | labels


class FlatLists:
    """Lists of token ids, one after another in one array, four bytes a token."""

    def __init__(self) -> None:
        self._flat, self._starts = array("i"), array("q", [0])

    def extend(self, lists: Iterable[Sequence[int]]) -> None:
        """Appends lists of token ids."""
        for ids in lists:
            self._flat.extend(ids)
            self._starts.append(len(self._flat))

    def lengths(self) -> np.ndarray:
        """Length of each list: int64 `[n]`."""
        return np.diff(np.array(self._starts, dtype=np.int64))

    @property
    def arrays(self) -> tuple[array, array]:
        """The ids, and where each list starts."""
        return self._flat, self._starts

    @property
    def num_bytes(self) -> int:
        """Bytes of the ids and of where each list starts."""
        return sum(array.itemsize * len(array) for array in (self._flat, self._starts))

    def __getitem__(self, place: int) -> list[int]:
        return self._flat[self._starts[place] : self._starts[place + 1]].tolist()
