"""`ExampleTrainer`: a `Seq2SeqTrainer` on examples of the schema, scored by SoftEM and exact match."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import TrainOutput, enable_full_determinism, set_seed

from ..core._compat import commit_of
from ..core.distributed import warn_where_bfloat16_is_slow
from ..core.files import write_json
from ..models.adapters import is_peft_model, merged_in_place
from ..models.architectures import DECODER_ONLY, SEQUENCE_TO_SEQUENCE
from ..models.base import check_finite_weights, keep_truncation_side
from ..models.gguf import forget_file, write_record
from ..models.tokenization import TokenizedExamples
from ._compat import (
    PreparesInContext,
    SavesWithoutPickles,
    StaysEnded,
    loader_of_this_process,
    name_base_when_saved,
    shared_weights_in_one_group,
    train_batch_size_in_use,
)
from .arguments import ExampleTrainingArguments
from .checkpoints import (
    ARGUMENTS_FILE,
    checkpoint_to_resume,
    described_arguments,
    refuse_other_batches,
    refuse_other_weights,
)
from .kept_configuration import SpecialTokens, check_can_be_saved
from .mixture_sampler import MixtureBatchSampler
from .safe_push import SafePushTrainer
from .scoring import ScoringTrainer
from .token_weights import TokenWeightedTrainer


class ExampleTrainer(
    SafePushTrainer, SavesWithoutPickles, PreparesInContext, TokenWeightedTrainer, StaysEnded, ScoringTrainer
):
    """Trains a text-to-text model on examples, and scores what it generates.

    ```python
    trainer = ExampleTrainer(model, args, train_dataset=load_examples("upstream/*.parquet"), processing_class=tokenizer)
    trainer.train()
    trainer.evaluate(load_examples("test.parquet"))  # {"eval_soft_em": ..., "eval_exact_match": ..., "eval_loss": ...}
    ```

    Args:
        model: Any `AutoModelForSeq2SeqLM` or `AutoModelForCausalLM`, with or without PEFT. The latter learns the answer after
            the input and a line break, see [`architectures.DecoderOnly`].
        args: An [`ExampleTrainingArguments`].
        train_dataset: Examples to train on ([`load_examples`]).
        eval_dataset: Examples to evaluate on, or a dictionary of them by task ([`examples_by_task`]); without `references` there is
            nothing to score, only to predict.
        processing_class: The model's tokenizer.
        kwargs: Arguments of [`Seq2SeqTrainer`]: `callbacks`, `optimizers`, `compute_metrics`, ...

    Answers are decoded greedily, or with beams (`generation_num_beams`, or the model's own), also where the model ships
    `do_sample`; `evaluate(..., do_sample=True)` samples. The model's generation configuration stays as it is.

    Raises:
        TypeError: `args` are of another class, or the model writes no text.
        ValueError: The tokenizer has tokens for which the model has no embeddings, or there is no tokenizer.
    """

    train_dataset: TokenizedExamples | None

    def __init__(
        self,
        model: PreTrainedModel,
        args: ExampleTrainingArguments,
        *,
        processing_class: PreTrainedTokenizerBase,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(args, ExampleTrainingArguments):
            raise TypeError(
                f"Expected `args` to be an ExampleTrainingArguments or a subclass, found {type(args).__name__}. It takes "
                "the fields of Seq2SeqTrainingArguments."
            )
        if processing_class is None:
            raise ValueError("Expected `processing_class`, the model's tokenizer, found None.")
        if not isinstance(processing_class, PreTrainedTokenizerBase):
            raise TypeError(
                f"Expected `processing_class` to be the model's tokenizer, found {type(processing_class).__name__}. Load it with "
                "`AutoTokenizer.from_pretrained(name)`."
            )
        if args.device.type == "cpu":
            args.dataloader_pin_memory = False  # there is nothing to pin for; torch would warn at each loader
        super().__init__(model, args, processing_class=processing_class, eval_dataset=eval_dataset, **kwargs)
        # Told now: what wraps a model for the training may hold its weights in another type.
        self._dtype = str(model.dtype).removeprefix("torch.")
        if args.bf16 or self._dtype == "bfloat16":
            warn_where_bfloat16_is_slow(args.device.type)
        self._special_tokens: SpecialTokens | None = None
        self.train_dataset = self.tokenize_for_training(train_dataset) if train_dataset is not None else None

    def tokenize_for_training(self, examples: Dataset) -> TokenizedExamples:
        """[`tokenize`], without the examples that `drop_long_targets` leaves out.

        Raises:
            ValueError: The examples have no answers.
        """
        if "references" not in examples.column_names:
            raise ValueError(
                f"Expected training examples with `references`, their answers, found the columns {examples.column_names}. Name "
                "the column that holds them: `load_examples(..., columns={'references': ...})`."
            )
        return self.tokenize(examples, drop_long_targets=self.args.drop_long_targets)

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Trains; the result depends on the seed and not on what was generated or evaluated before.

        Args:
            resume_from_checkpoint: A checkpoint to continue from, or True (also as text) for the last one in `output_dir`.
            trial: Trial of a hyperparameter search, see [`Seq2SeqTrainer.train`].
            ignore_keys_for_eval: Outputs of the model that evaluations in the training ignore.

        Raises:
            ValueError: There is no such checkpoint, its batches were made by other settings or data, it holds an adapter where the
                model is none (or the reverse), the model's generation configuration is one that could not be saved, or its weights are
                NaN, infinite or all frozen.
        """
        checkpoint = checkpoint_to_resume(resume_from_checkpoint, str(self.args.output_dir))
        if checkpoint is not None:
            refuse_other_weights(checkpoint, is_peft=hasattr(self.model, "peft_config"), dtype=self._dtype)
            refuse_other_batches(checkpoint, self._arguments())
        check_can_be_saved(self.model)
        check_finite_weights(self.model)
        self._check_there_is_work()
        if not is_peft_model(self.model):
            forget_file(self.model)
        enable_full_determinism(self.args.seed) if self.args.full_determinism else set_seed(self.args.seed)
        self._special_tokens = SpecialTokens(self.model)
        try:
            return super().train(checkpoint, trial, ignore_keys_for_eval)
        finally:
            self._special_tokens.put_back()
            self._special_tokens, self._tokens_a_batch = None, None

    def _check_there_is_work(self) -> None:
        """Says before the training what the base class says in other words in it, or not at all."""
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ValueError(
                "Expected a model with weights to train, found all of them frozen. Set `requires_grad_(True)` on some, or pass a "
                "`peft_config`."
            )
        rows, batch = len(self.train_dataset or ()), self.args.train_batch_size * self.args.world_size
        if self.args.dataloader_drop_last and rows and rows < batch:
            raise ValueError(
                f"Expected a whole batch of {batch} examples, found {rows}, which `dataloader_drop_last` leaves out. Lower "
                "`per_device_train_batch_size`, or leave `dataloader_drop_last` out."
            )

    def merge_adapter(self) -> None:
        """Puts what a PEFT adapter learned into the weights of its base: what is saved from then on is a whole model.

        Raises:
            TypeError: The model has no adapter.
        """
        model: Any = self.accelerator.unwrap_model(self.model)
        if not is_peft_model(model):
            raise TypeError(
                f"Expected a PEFT model, whose adapter can be merged, found {type(model).__name__}. It is whole as it is."
            )
        self.model = self.model_wrapped = merged_in_place(model, is_named=True)

    def _arguments(self) -> dict[str, Any]:
        described = described_arguments(self, self.train_dataset.digest if self.train_dataset is not None else None)
        has_whole_rows = self.args.token_budget is not None and self.architecture is DECODER_ONLY
        return described | {"dtype": self._dtype} | ({"token_budget_of": "whole rows"} if has_whole_rows else {})

    @contextmanager
    def saving_to(self, folder: Path) -> Iterator[None]:
        """Saves the model with its own special tokens, of an adapter the base's name and commit, and the arguments as JSON."""
        own = nullcontext() if self._special_tokens is None else self._special_tokens.in_force()
        for peft_config in getattr(self.model, "peft_config", {}).values():
            name_base_when_saved(peft_config, commit_of(self.model))
        keep_truncation_side(self.processing_class)
        with super().saving_to(folder), own:
            yield
        if is_peft_model(self.model):
            write_record(self.model, folder)
        write_json(folder / ARGUMENTS_FILE, self._arguments())

    def preparing(self) -> AbstractContextManager[None]:
        """Leaves weights that encoder and decoder share in one group of FSDP2."""
        if self.accelerator.is_fsdp2 and self.architecture is SEQUENCE_TO_SEQUENCE:
            return shared_weights_in_one_group(self.model)
        return super().preparing()

    # ---- mixtures of tasks ---------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """A loader over the training examples: as the base class makes it or, where the arguments mix tasks, batches of a mixture."""
        if self.train_dataset is None or not self.args.mixes:
            return super().get_train_dataloader()
        args, examples = self.args, self.train_dataset
        devices = max(1, args.n_gpu)  # of this process; `DataParallel` would share a batch among them
        lengths = examples.input_lengths, examples.target_lengths
        if self.architecture is DECODER_ONLY:  # input and answer are one row, padded as a whole
            lengths = lengths[0] + lengths[1], np.zeros_like(lengths[1])
        sampler = MixtureBatchSampler(
            *lengths,
            np.zeros(len(examples), dtype=np.int64) if examples.tasks is None else examples.tasks,
            token_budget=args.token_budget * devices if args.token_budget is not None else None,
            batch_size=train_batch_size_in_use(self),
            max_examples_per_task=args.max_examples_per_task,
            temperature=args.mixing_temperature,
            pad_to_multiple_of=args.pad_to_multiple_of or 1,
            seed=args.seed if args.data_seed is None else args.data_seed,
            num_processes=self.accelerator.num_processes,
            process_index=self.accelerator.process_index,
        )
        loader = torch.utils.data.DataLoader(
            examples,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            prefetch_factor=args.dataloader_prefetch_factor,
            in_order=args.dataloader_in_order,
        )
        loading: Any = args.accelerator_config  # a dictionary or a file before, an object once the arguments are made
        return loader_of_this_process(self.accelerator, loader, non_blocking=loading.non_blocking)

    def set_initial_training_values(
        self, args: Any, dataloader: torch.utils.data.DataLoader
    ) -> tuple[int, int, int, int, int, int | None, int]:
        """What the base class counts; of a mixture also the examples, which it would count by the batch size."""
        values = super().set_initial_training_values(args, dataloader)
        if not isinstance(dataloader.batch_sampler, MixtureBatchSampler):
            return values
        epochs, steps_an_epoch, _, _, _, batches, max_steps = values
        num_rows = dataloader.batch_sampler.num_rows
        a_step = num_rows / steps_an_epoch
        return epochs, steps_an_epoch, num_rows, round(max_steps * a_step), round(a_step), batches, max_steps
