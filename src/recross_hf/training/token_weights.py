"""Steps of a training: the losses of batches and of their parts are weighed by their tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import DistributedType

from ..models.architectures import SEQUENCE_TO_SEQUENCE
from ..models.heads import has_loss_of_its_own
from .answer_loss import TakesAnswersAlone
from .arguments import ExampleTrainingArguments
from .length_split import split_by_length


class TokenWeightedTrainer(TakesAnswersAlone):
    """A `Seq2SeqTrainer` whose step is as one of a single batch, however many it computes."""

    args: ExampleTrainingArguments
    _tokens_a_batch: torch.Tensor | None = None

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """The batches of a step; of several, in all processes, [`compute_loss`] has to know how many tokens they have."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._tokens_a_batch = None
        if batches and (len(batches) > 1 or self.args.world_size > 1):
            tokens = torch.stack([(batch["labels"] != -100).sum() for batch in batches])
            total = torch.stack([tokens.sum(), tokens.new_tensor(len(batches))])
            total = self.accelerator.reduce(total, reduction="sum") if self.args.world_size > 1 else total
            self._tokens_a_batch = total[0] / total[1]
        return batches, num_items

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """The gradient of a batch; on a processor in parts of rows of like length ([`split_by_length`]), which have little padding."""
        parts = self._parts_of(inputs)
        if len(parts) == 1:
            return super().training_step(model, inputs, num_items_in_batch)
        own = self._tokens_a_batch
        if own is None:
            self._tokens_a_batch = (inputs["labels"] != -100).sum()
        try:
            losses = [
                super(TokenWeightedTrainer, self).training_step(model, part, num_items_in_batch) for part in parts
            ]
            return torch.stack(losses).sum()
        finally:
            self._tokens_a_batch = own

    def _parts_of(self, inputs: dict[str, Any]) -> list[dict[str, Any]]:
        if not self._may_divide:
            return [inputs]
        apart = self.architecture is SEQUENCE_TO_SEQUENCE
        return split_by_length(inputs, has_targets_apart=apart, multiple_of=self.args.pad_to_multiple_of or 1)

    @property
    def _may_divide(self) -> bool:
        """Whether the losses of a batch's parts add up to its own, and one backward pass after another to its gradient."""
        args = self.args
        # A loss of somebody else's need not be a mean over tokens, nor that of a router, and NEFTune's noise is by the width of a batch.
        is_mean = self.compute_loss_func is None and type(self).compute_loss is TokenWeightedTrainer.compute_loss
        is_mean &= not has_loss_of_its_own(self.model) and args.neftune_noise_alpha is None
        # These optimisers step in the backward pass.
        steps_after = "lomo" not in args.optim and "layerwise" not in args.optim
        # Processes that wait for one another need as many parts; a compiled model would be compiled for each length.
        is_alone = self.accelerator.distributed_type is DistributedType.NO and not args.torch_compile
        return args.device.type == "cpu" and is_alone and is_mean and steps_after

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Mean of the token losses of a batch, or their sum with `sum_token_loss`.

        Where a step has several batches, accumulated or in several processes, their means are weighed by their tokens, so that the step
        is as one of a larger batch; the sums are averaged over the batches, as in the authors' code.
        """
        labels = inputs["labels"]
        # A loss of the caller's own divides by the tokens of the step itself.
        is_own = self.compute_loss_func is not None
        loss, outputs = super().compute_loss(
            model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch if is_own else None
        )
        if self.args.sum_token_loss and model.training:
            loss = loss * (labels != -100).sum()
        elif self._tokens_a_batch is not None and model.training and not is_own:
            loss = loss * ((labels != -100).sum() / self._tokens_a_batch)
        return (loss, outputs) if return_outputs else loss
