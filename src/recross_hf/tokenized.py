"""Examples as token ids, and batches of them."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase


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
        longest_first: bool = False,
    ) -> None:
        input_ids = processing_class(examples["input"][:], truncation=True, max_length=max_input_length)["input_ids"]
        references = examples["references"][:] if "references" in examples.column_names else None
        labels = None
        if references is not None:
            targets = [accepted[0] for accepted in references]
            labels = processing_class(text_target=targets, truncation=True, max_length=max_target_length)["input_ids"]
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


class ExampleCollator(DataCollatorForSeq2Seq):
    """Pads inputs and labels; unlabelled batches have no `labels` key (the base class leaves a `None` there)."""

    def __call__(self, features: list[dict[str, Any]], return_tensors: str | None = None) -> dict[str, torch.Tensor]:
        batch = super().__call__(features, return_tensors=return_tensors)
        if batch.get("labels") is None:
            batch.pop("labels", None)
        return batch
