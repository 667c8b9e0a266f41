"""Group training: a model is fine-tuned on a few examples, its loss on held-out examples is taken, and its weights are put back."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from ..core.batching import chunks, on_device, token_budget_batches
from ..core.distributed import warn_where_bfloat16_is_slow
from ..models.architectures import DECODER_ONLY, SEQUENCE_TO_SEQUENCE, architecture_of
from ..models.base import check_vocabulary, vocabulary_size
from ..models.heads import answer_logits
from ..models.tokenization import TokenizedExamples
from .arguments import SupervisionArguments

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

Batch = dict[str, Any]


class GroupTrainer:
    """Fine-tunes a model on one group of examples after another, each time from the same weights.

    ```python
    with GroupTrainer(model, tokenizer, SupervisionArguments()) as trainer:
        held_out = trainer.batches(trainer.tokenize(examples))
        base_loss = trainer.losses(held_out).mean()
        candidates = trainer.tokenize(retrieved)
        group_loss = trainer.loss_after([candidates[3], candidates[14]], held_out)
    ```

    No model, optimizer or trainer is built for a group: weights go back in place, the optimizer's state to zero; texts are
    tokenised once, and the held-out batches padded once. Memory holds what training itself holds (weights, gradients, two moments) and
    one copy of the trainable weights. Dropout is off: a loss then differs between groups because of the groups. Where all of the
    encoder is frozen, its output of each text is computed once.

    On leaving the `with` block the model is as it was.

    Args:
        model: Any `AutoModelForSeq2SeqLM` or `AutoModelForCausalLM`; it is fine-tuned in place.
        processing_class: Tokenizer of the model.
        args: Settings of the mining; see [`SupervisionArguments`].
        peft_config: Configuration of a small adapter that is fine-tuned in place of all weights.

    Raises:
        ValueError: `args.trainable_parameters` matches no parameter, or there is none in float32 to train.
        TypeError: `model` is a PEFT model already, or of a kind that writes no text.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processing_class: PreTrainedTokenizerBase,
        args: SupervisionArguments,
        *,
        peft_config: PeftConfig | None = None,
    ) -> None:
        if hasattr(model, "peft_config"):
            raise TypeError(
                "Expected a model without adapters, found a PEFT model. Pass its base model and `peft_config`."
            )
        self.architecture = architecture_of(model)
        if peft_config is not None and args.trainable_parameters is not None:
            raise ValueError("Expected `peft_config` or `trainable_parameters`, found both. Leave one of them out.")
        check_vocabulary(model, processing_class)
        self.model = model
        self.args = args
        self.peft_config = peft_config
        self.processing_class = processing_class
        self.collator = self.architecture.collator(processing_class, model)
        self.device = model.device
        if args.bf16:
            warn_where_bfloat16_is_slow(self.device.type)
        self.token_budget = 16_384 if self.device.type == "cuda" else 2_048
        if args.trainable_parameters is not None and not any(
            re.search(args.trainable_parameters, name) for name, _ in model.named_parameters()
        ):
            names = ", ".join(dict.fromkeys(name.split(".layer")[0] for name, _ in model.named_parameters()))
            raise ValueError(
                f"Expected `trainable_parameters` to match names of parameters, found {args.trainable_parameters!r}, which "
                f"matches none. Names begin with: {names[:400]}."
            )

    # ---- the model: as it was, before and after ----------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._before = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]
        self._modes = [(module, module.training) for module in self.model.modules()]
        self._peft_model: PeftModel | None = None
        self._initial: list[torch.Tensor] = []
        try:
            self._choose_parameters()
        except BaseException:
            self._put_back()
            raise
        self.model.eval()
        self._initial = [parameter.detach().clone() for parameter in self.parameters]
        self._optimizer = torch.optim.AdamW(self.parameters, lr=self.args.learning_rate, weight_decay=0.0, fused=True)
        self.encoder_is_frozen = self.architecture is SEQUENCE_TO_SEQUENCE and not any(
            parameter.requires_grad for parameter in self.model.get_encoder().parameters()
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()
        self._put_back()
        del self._initial, self._optimizer, self.parameters

    def _choose_parameters(self) -> None:
        if self.peft_config is not None:
            from peft import get_peft_model

            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                torch.manual_seed(self.args.seed)  # decides the adapter's first weights
                # PEFT writes into the configuration it is given.
                self._peft_model = get_peft_model(self.model, copy.deepcopy(self.peft_config))
        elif self.args.trainable_parameters is not None:
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(re.search(self.args.trainable_parameters, name) is not None)
        # Tensors by their type, for torch types the functions below for lists of these.
        self.parameters: list[torch.Tensor] = [
            parameter for parameter in self.model.parameters() if parameter.requires_grad
        ]
        if not self.parameters:
            raise ValueError(
                "Expected a model with parameters to fine-tune, found all frozen. Set `trainable_parameters` or "
                "`parameter.requires_grad_(True)`."
            )
        # Steps of 3e-5 round to nothing in half precision, and utilities to noise.
        if any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in self.parameters):
            raise ValueError(
                f"Expected weights in float32, found {self.model.dtype}. Load the model with `dtype=torch.float32`; "
                "`bf16=True` computes in half precision and keeps the weights."
            )

    def _put_back(self) -> None:
        if self._peft_model is not None:
            self._peft_model.unload()
        for parameter, required in self._before:
            parameter.requires_grad_(required)
            parameter.grad = None
        for module, training in self._modes:
            module.training = training
        del self._before, self._modes, self._peft_model

    @torch.no_grad()
    def _restore(self) -> None:
        torch._foreach_copy_(self.parameters, self._initial)
        self._optimizer.zero_grad()  # a step may have been interrupted
        for state in self._optimizer.state.values():
            for moment in state.values():
                moment.zero_()

    # ---- texts, prepared once ------------------------------------------------------------------------------------------

    def tokenize(self, examples: Dataset) -> list[Batch]:
        """Tokenises examples to choose groups from; with a frozen encoder each has the encoder's outputs `[length, d]`, too."""
        longest = self.architecture.longest_prompt(self.model, self.processing_class, self.args.max_target_length)
        items = TokenizedExamples(
            examples,
            self.processing_class,
            min(self.args.max_input_length, longest),
            self.args.max_target_length,
            architecture=self.architecture,
        )
        tokenized: list[Batch] = [items[row] for row in range(len(items))]
        if self.encoder_is_frozen:
            for rows in token_budget_batches([len(item["input_ids"]) for item in tokenized], self.token_budget):
                hidden = self._encode(self._padded([tokenized[row] for row in rows]))
                for row, states in zip(rows, hidden, strict=True):
                    tokenized[row] = tokenized[row] | {"states": states[: len(tokenized[row]["input_ids"])]}
        return tokenized

    def batches(self, items: Sequence[Batch]) -> list[Batch]:
        """Joins tokenised examples to batches on the device, sorted by length, for [`losses`]."""
        lengths = [len(item["input_ids"]) + len(item["labels"]) for item in items]
        logits = [vocabulary_size(self.model) * len(item["labels"]) for item in items]
        return [
            self._batch([items[row] for row in rows]) | {"rows": rows}
            for rows in token_budget_batches(lengths, self.token_budget, logits=logits)
        ]

    def _batch(self, items: Sequence[Batch]) -> Batch:
        states = [item["states"] for item in items if "states" in item]
        batch = self._padded([{name: item[name] for name in ("input_ids", "labels")} for item in items])
        if states:
            del batch["input_ids"]
            padded = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
            batch["encoder_outputs"] = BaseModelOutput(last_hidden_state=padded)
        return batch

    def _padded(self, items: Sequence[Batch]) -> Batch:
        return on_device(self.collator(list(items)), self.device)

    @torch.no_grad()
    def _encode(self, batch: Batch) -> torch.Tensor:
        with self._autocast():
            hidden = self.model.get_encoder()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return hidden.last_hidden_state

    # ---- training and measuring ----------------------------------------------------------------------------------------

    @contextmanager
    def learned(self, items: Sequence[Batch]) -> Iterator[None]:
        """Context in which the model is fine-tuned on these examples; afterwards its weights are as they were."""
        size = self.args.per_device_train_batch_size
        batches = [self._batch(chunk) for chunk in chunks(items, size)]
        try:
            for _ in range(self.args.num_train_epochs):
                for batch in batches:
                    self._step(batch)
            yield
        finally:
            self._restore()

    @torch.no_grad()
    def mirror(self) -> None:
        """Moves the weights as far to the other side of where they were; to call within [`learned`]."""
        torch._foreach_mul_(self.parameters, -1.0)
        torch._foreach_add_(self.parameters, self._initial, alpha=2.0)

    def loss_after(self, group: Sequence[Batch], held_out: Sequence[Batch]) -> float:
        """Mean of the held-out [`losses`] of the model fine-tuned on a group; NaN or infinite where training diverged."""
        with self.learned(group):
            return float(self.losses(held_out).mean())

    def _step(self, batch: Batch) -> None:
        losses, mask = self._token_losses(batch)
        ((losses * mask).sum() / mask.sum()).backward()
        if self.args.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.args.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()

    @torch.no_grad()
    def losses(self, batches: Sequence[Batch]) -> np.ndarray:
        """Mean loss of each example over its tokens (its sum, with `sum_token_loss`): float64 `[n]`, in the order of the examples."""
        of_batches = []
        for batch in batches:
            losses, mask = self._token_losses(batch)
            of_example = (losses * mask).sum(dim=1)
            of_batches.append(of_example if self.args.sum_token_loss else of_example / mask.sum(dim=1))
        rows = [row for batch in batches for row in batch["rows"]]
        losses_of = np.empty(len(rows))
        # The host waits for the device only here, once a group.
        losses_of[rows] = torch.cat(of_batches).cpu().double().numpy()
        return losses_of

    def _token_losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses `[n, length]` and the mask of the tokens that count."""
        labels, inputs = batch["labels"], {name: values for name, values in batch.items() if name != "rows"}
        if self.architecture is DECODER_ONLY:
            with self._autocast():
                logits, of_answers = answer_logits(self.model, inputs)
            counted = labels != -100
            found = torch.nn.functional.cross_entropy(logits.float(), of_answers, reduction="none")
            return torch.zeros_like(counted, dtype=found.dtype).masked_scatter(counted, found), counted.float()
        del inputs["labels"]
        with self._autocast():
            logits = self.model(**inputs, use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none"
        )
        return losses.view_as(labels), (labels != -100).float()

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.args.bf16):
            yield
