"""Examples as token ids."""

from __future__ import annotations

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from .architectures import SEQUENCE_TO_SEQUENCE, Architecture


class TokenizedExamples(torch.utils.data.Dataset):
    """Examples as token ids, tokenised once; `references` and `order` (row of each item) stay beside them.

    Training uses the first reference as the target.
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
    ) -> None:
        input_ids = architecture.prompt_ids(processing_class, examples["input"][:], max_input_length)
        references = examples["references"][:] if "references" in examples.column_names else None
        labels = None
        if references is not None:
            targets = [accepted[0] for accepted in references]
            labels = architecture.answer_ids(processing_class, targets, max_target_length)
        rows = range(len(examples))
        # Batches of like lengths waste no padding, and the longest come first: what does not fit fails at once.
        self.order = sorted(rows, key=lambda row: -len(input_ids[row])) if longest_first else list(rows)
        self.items = [
            {"input_ids": input_ids[row]} | ({"labels": labels[row]} if labels is not None else {})
            for row in self.order
        ]
        self.references = [references[row] for row in self.order] if references is not None else None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> dict[str, list[int]]:
        return self.items[item]
