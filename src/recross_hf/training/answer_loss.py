"""The loss of a training step: of a decoder-only model, logits are computed where answers are alone."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel, Seq2SeqTrainer

from ..models.architectures import DECODER_ONLY
from ..models.base import Architecture
from ..models.heads import answer_logits, has_loss_of_its_own


class TakesAnswersAlone(Seq2SeqTrainer):
    """A `Seq2SeqTrainer` that computes no logits that nobody reads.

    Attributes:
        architecture: The kind of model that is trained.
    """

    architecture: Architecture
    model: PreTrainedModel

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """What the base class computes; of a decoder-only model logits are computed where answers are alone.

        The outputs then hold these logits `[tokens of the answers, vocabulary]`. A `compute_loss_func` is given the outputs of the model.
        """
        if not self._takes_answers_alone or "labels" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        logits, labels = answer_logits(model, inputs, head_of=self.model)
        if self.label_smoother is None:
            loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        else:
            loss = self.label_smoother({"logits": logits}, labels)
        return (loss, {"loss": loss, "logits": logits}) if return_outputs else loss

    @property
    def _takes_answers_alone(self) -> bool:
        # What is compiled sees no hook that comes later; a batch that is dealt out over devices has other rows in each.
        is_whole = self.args.n_gpu <= 1 and not self.args.torch_compile and self.accelerator.parallelism_config is None
        is_mean = self.compute_loss_func is None and not has_loss_of_its_own(self.model)
        return self.architecture is DECODER_ONLY and is_whole and is_mean
