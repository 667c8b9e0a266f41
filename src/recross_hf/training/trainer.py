"""`ExampleTrainer`: a `Seq2SeqTrainer` on examples of the schema, scored by SoftEM and exact match."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Seq2SeqTrainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction, TrainOutput, enable_full_determinism, set_seed

from ..core.distributed import warn_where_bfloat16_is_slow
from ..core.files import write_json
from ..models.architectures import SEQUENCE_TO_SEQUENCE, architecture_of
from ..models.base import check_vocabulary, unwrapped
from ..models.collators import pad_token_id
from ..models.generation import decoding_in_force, kept, one_answer
from ..models.tokenization import TokenizedExamples
from ..soft_em import score
from .arguments import ExampleTrainingArguments
from .checkpoints import (
    ARGUMENTS_FILE,
    checkpoint_to_resume,
    described_arguments,
    refuse_other_batches,
    refuse_other_weights,
)
from .fsdp import shared_weights_in_one_group
from .mixture_sampler import MixtureBatchSampler
from .safe_push import SafePushTrainer

SPECIAL_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


class ExampleTrainer(SafePushTrainer, Seq2SeqTrainer):
    """Trains a text-to-text model on examples, and scores what it generates.

    ```python
    trainer = ExampleTrainer(model, args, train_dataset=load_examples("upstream/*.parquet"), processing_class=tokenizer)
    trainer.train()
    trainer.evaluate(load_examples("test.parquet"))  # {"eval_soft_em": ..., "eval_exact_match": ..., "eval_loss": ...}
    ```

    Args:
        model: any `AutoModelForSeq2SeqLM` or `AutoModelForCausalLM`, with or without PEFT. The latter learns the answer after
            the input and a line break, see [`architectures.DecoderOnly`].
        args: an [`ExampleTrainingArguments`].
        train_dataset: examples to train on ([`load_examples`]).
        eval_dataset: examples to evaluate on, or a dictionary of them by task ([`examples_by_task`]); without `references` there is
            nothing to score, only to predict.
        processing_class: the model's tokenizer.
        kwargs: what [`Seq2SeqTrainer`] takes: `callbacks`, `optimizers`, `compute_metrics`, ...

    Answers are decoded greedily, or with beams (`generation_num_beams`, or the model's own), also where the model ships
    `do_sample`; `evaluate(..., do_sample=True)` samples. The model's generation configuration stays as it is.

    Raises:
        TypeError: `args` are of another class, or the model writes no text.
        ValueError: the tokenizer has tokens for which the model has no embeddings, or there is no tokenizer.
    """

    # Seq2SeqTrainer sets `accelerator.gather` before each evaluation, which keeps the rows that pad the last batch of
    # several processes; scores must not count them twice.
    gather_function = property(lambda self: self.accelerator.gather_for_metrics, lambda self, value: None)

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
        if args.device.type == "cpu":
            args.dataloader_pin_memory = False  # there is nothing to pin for; torch would warn at each loader
        if args.bf16:
            warn_where_bfloat16_is_slow(args.device.type)
        # The forward of BART, T5 and EncoderDecoder takes **kwargs but does not divide by `num_items_in_batch`, which
        # the base class infers from it: with gradient accumulation the loss would be multiplied.
        self.architecture = architecture_of(model)
        check_vocabulary(model, processing_class)
        own_generation_config = model.generation_config
        unwrapped(model).accepts_loss_kwargs = False
        super().__init__(
            model=model,
            args=args,
            data_collator=self.architecture.collator(
                processing_class, unwrapped(model), pad_to_multiple_of=args.pad_to_multiple_of
            ),
            processing_class=processing_class,
            eval_dataset=eval_dataset,
            **kwargs,
        )
        # The base class puts that of the arguments in place of the model's, and so into what is saved.
        self._generation_config = None
        if args.generation_config is not None:
            self._generation_config, model.generation_config = model.generation_config, own_generation_config
        self._own_special_tokens: list[tuple[Any, dict[str, Any]]] | None = None
        self._tokens_a_batch: torch.Tensor | None = None
        self._tokenized_for_evaluation: dict[str | None, tuple[Dataset, TokenizedExamples]] = {}
        self.train_dataset = self.tokenize_for_training(train_dataset) if train_dataset is not None else None

    def tokenize(self, examples: Dataset, **kwargs: Any) -> TokenizedExamples:
        """Turns examples into token ids, cut to `max_input_length` (or what the model takes) and `max_target_length`.

        Args:
            kwargs: of [`TokenizedExamples`].
        """
        longest = self.architecture.longest_prompt(
            self.model,
            self.processing_class,
            self.args.max_target_length,
            pad_to_multiple_of=self.args.pad_to_multiple_of,
        )
        return TokenizedExamples(
            examples,
            self.processing_class,
            min(self.args.max_input_length, longest),
            self.args.max_target_length,
            architecture=self.architecture,
            **kwargs,
        )

    def tokenize_for_training(self, examples: Dataset) -> TokenizedExamples:
        """[`tokenize`], without the examples that `drop_long_targets` leaves out.

        Raises:
            ValueError: the examples have no answers.
        """
        if "references" not in examples.column_names:
            raise ValueError(
                f"Expected training examples with `references`, their answers, found the columns {examples.column_names}. Name "
                "the column that holds them: `load_examples(..., columns={'references': ...})`."
            )
        return self.tokenize(examples, drop_long_targets=self.args.drop_long_targets)

    def _decoding(self) -> dict[str, Any]:
        """What `generate` is told for answers that are scored."""
        settings = one_answer(self.model, self.processing_class)
        if self._generation_config is not None:
            given = {name: value for name, value in vars(self._generation_config).items() if not name.startswith("_")}
            settings |= {name: value for name, value in given.items() if value is not None}
        # BART stops at 20 tokens unless told otherwise.
        settings |= {"max_length": None, "max_new_tokens": self.args.max_target_length}
        if self.args.generation_num_beams is not None:
            settings["num_beams"] = self.args.generation_num_beams
        return settings

    @property
    def decoding(self) -> dict[str, Any]:
        """Settings that change what is answered, beside those of the arguments: beams, penalties, lengths ([`decoding_in_force`])."""
        return decoding_in_force(self.model, self._decoding())

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Trains; the result depends on the seed and not on what was generated or evaluated before.

        Args:
            resume_from_checkpoint: a checkpoint to continue from, or True (also as text) for the last one in `output_dir`.
            kwargs: what [`Seq2SeqTrainer.train`] takes.

        Raises:
            ValueError: there is no such checkpoint, its batches were made by other settings or data, it holds an adapter where the
                model is none (or the reverse), or the model's generation configuration is one that could not be saved.
        """
        checkpoint = checkpoint_to_resume(resume_from_checkpoint, self.args.output_dir)
        if checkpoint is not None:
            refuse_other_weights(checkpoint, is_peft=hasattr(self.model, "peft_config"))
            refuse_other_batches(checkpoint, self._arguments())
        self._check_can_be_saved()
        enable_full_determinism(self.args.seed) if self.args.full_determinism else set_seed(self.args.seed)
        with self._special_tokens_kept():
            return super().train(resume_from_checkpoint=checkpoint, **kwargs)

    def _check_can_be_saved(self) -> None:
        """Configurations that were changed since they were loaded are refused when they are saved: too late, after the training."""
        if hasattr(self.model, "peft_config"):
            return  # an adapter is saved without it
        with tempfile.TemporaryDirectory() as folder:
            try:
                self.model.generation_config.save_pretrained(folder)
            except ValueError as error:
                raise ValueError(
                    "Expected a model whose generation configuration can be saved with it, found one that transformers refuses: "
                    f"{error} Change `model.generation_config` before the training; how answers are decoded here is said by "
                    "`generation_num_beams` and by what is passed to `evaluate`."
                ) from error

    @contextmanager
    def _special_tokens_kept(self) -> Iterator[None]:
        """The base class puts the tokenizer's special tokens into the model's configurations, for the training and for good."""
        configs = (self.model.config.get_text_config(), self.model.generation_config)
        self._own_special_tokens = [(config, _special_token_ids(config)) for config in configs]
        try:
            yield
        finally:
            _set_all(self._own_special_tokens)
            self._own_special_tokens, self._tokens_a_batch = None, None

    def _arguments(self) -> dict[str, Any]:
        return described_arguments(self, self.train_dataset.digest if self.train_dataset is not None else None)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """The batches of a step; of several, [`compute_loss`] has to know how many tokens they have."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._tokens_a_batch = None
        if len(batches) > 1:
            self._tokens_a_batch = sum((batch["labels"] != -100).sum() for batch in batches) / len(batches)
        return batches, num_items

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Mean of the token losses of a batch, or their sum with `sum_token_loss`.

        In gradient accumulation the means of the batches are weighed by their tokens, so that a step is as one of a larger batch; the
        sums are averaged over the batches, as in the authors' code.
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

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: Any,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Generates for a batch with the lengths and beams of the arguments; the loss is that of training."""
        loss, labels = None, None
        if "labels" in inputs:
            loss, _, _ = super().prediction_step(model, inputs, True, ignore_keys)
            labels = self.architecture.answers_of(inputs)
        if prediction_loss_only:
            return loss, None, None
        prompts = self.architecture.prompts_of(inputs, pad_token_id(self.processing_class))
        # Generation calls the encoder by itself, and not by the forward pass that computes in half precision. The base class reads
        # lengths of the configuration, and writes its defaults there.
        with self.accelerator.autocast(), kept(self.model.generation_config) as configuration:
            vars(configuration).update(self._decoding())
            _, generated, _ = super().prediction_step(model, prompts, False, ignore_keys, **gen_kwargs)
        return loss, self.architecture.continuations(generated, prompts["input_ids"]), labels

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """A loader over the training examples: as the base class makes it or, where the arguments mix tasks, batches of a mixture."""
        if self.train_dataset is None or not self.args.mixes:
            return super().get_train_dataloader()
        args, examples = self.args, self.train_dataset
        devices = max(1, args.n_gpu)  # of this process; `DataParallel` would share a batch among them
        sampler = MixtureBatchSampler(
            examples.input_lengths,
            examples.target_lengths,
            np.zeros(len(examples), dtype=np.int64) if examples.tasks is None else examples.tasks,
            token_budget=args.token_budget * devices if args.token_budget is not None else None,
            batch_size=self._train_batch_size,  # what `auto_find_batch_size` lowers
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
        # The sampler knows its process already; to accelerate there is but one.
        return prepare_data_loader(
            loader,
            self.accelerator.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            non_blocking=args.accelerator_config.non_blocking,
        )

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> tuple[torch.nn.Module, torch.utils.data.DataLoader]:
        if self.accelerator.is_fsdp2 and self.architecture is SEQUENCE_TO_SEQUENCE:
            with shared_weights_in_one_group(self.model):
                return super()._prepare_for_training(*args, **kwargs)
        return super()._prepare_for_training(*args, **kwargs)

    def set_initial_training_values(
        self, args: ExampleTrainingArguments, dataloader: torch.utils.data.DataLoader
    ) -> tuple[int, int, int, int, int, int | None, int]:
        """What the base class counts; of a mixture also the examples, which it would count by the batch size."""
        values = super().set_initial_training_values(args, dataloader)
        if not isinstance(dataloader.batch_sampler, MixtureBatchSampler):
            return values
        epochs, steps_an_epoch, _, _, _, batches, max_steps = values
        a_step = dataloader.batch_sampler.num_rows / steps_an_epoch
        return (
            epochs,
            steps_an_epoch,
            dataloader.batch_sampler.num_rows,
            round(max_steps * a_step),
            round(a_step),
            batches,
            max_steps,
        )

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> torch.utils.data.DataLoader:
        """A loader over tokenised examples, longest first; the trainer's own evaluation sets are tokenised once."""
        if eval_dataset is not None and not isinstance(eval_dataset, str):
            return self.get_test_dataloader(eval_dataset)
        examples = self.eval_dataset if eval_dataset is None else self.eval_dataset[eval_dataset]
        if examples is None:
            raise ValueError("Expected an evaluation set, found none. Pass `eval_dataset` here or to the constructor.")
        of, tokenized = self._tokenized_for_evaluation.get(eval_dataset, (None, None))
        if of is not examples:
            tokenized = self.tokenize(examples, longest_first=True)
            self._tokenized_for_evaluation[eval_dataset] = examples, tokenized
        return self._evaluation_loader(tokenized)

    def get_test_dataloader(self, test_dataset: Dataset) -> torch.utils.data.DataLoader:
        """A loader over tokenised examples, longest first."""
        return self._evaluation_loader(self.tokenize(test_dataset, longest_first=True))

    def _evaluation_loader(self, examples: TokenizedExamples) -> torch.utils.data.DataLoader:
        # Not that of `get_eval_dataloader`: with persistent workers it would give all sets the loader of the first.
        loader = super().get_test_dataloader(examples)
        # Evaluated task by task, many times in a run, loaders and their workers would pile up there.
        self.accelerator._dataloaders.remove(loader)
        return loader

    def evaluate(
        self,
        eval_dataset: str | Dataset | dict[str, Dataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
        **gen_kwargs: Any,
    ) -> dict[str, float]:
        """Generates answers and scores them: `{prefix}_soft_em`, `{prefix}_exact_match` in percent, `{prefix}_loss`.

        The loss is that of training, over the tokens of a batch, and its mean weighs batches by their examples; several processes
        fill the last batch with repetitions, which count in it. So it depends on the batch size, and on the number of processes
        where a set is small; the scores do not.

        Of a dictionary of tasks, each task's metrics are `{prefix}_{task}_...`, and those of the tasks' unweighted mean `{prefix}_...`.
        """
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix, **gen_kwargs)
        tasks = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(tasks, dict):
            return metrics
        mean = {}
        for name in ("loss", "soft_em", "exact_match"):
            found = [metrics.get(f"{metric_key_prefix}_{task}_{name}") for task in tasks]
            if found and None not in found:
                mean[f"{metric_key_prefix}_{name}"] = float(np.mean(found))
        self.log(dict(mean))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, mean)
        return metrics | mean

    def evaluation_loop(
        self,
        dataloader: torch.utils.data.DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Generates, scores the texts against all references, and returns them in the order of the data set.

        Raises:
            RuntimeError: FSDP2 is to evaluate a model that was not trained.
        """
        if self.accelerator.is_fsdp2 and not any(isinstance(module, FSDPModule) for module in self.model.modules()):
            raise RuntimeError(
                "Expected a model that this trainer has trained: FSDP2 spreads a model over the devices together with its optimizer, "
                "found one that was not. Evaluate after `train`, or without FSDP."
            )
        # The batches come longest first, so that `compute_metrics` has to wait until the order is restored. Without it
        # the base class would ask for the loss alone; the scores below need texts.
        compute_metrics, self.compute_metrics = self.compute_metrics, None
        try:
            output = super().evaluation_loop(
                dataloader, description, self.args.prediction_loss_only, ignore_keys, metric_key_prefix
            )
        finally:
            self.compute_metrics = compute_metrics
        examples: TokenizedExamples = dataloader.dataset
        if output.predictions is None:
            return output
        if examples.references is not None:
            texts = self.decode(output.predictions)
            output.metrics.update(
                {f"{metric_key_prefix}_{name}": value for name, value in score(texts, examples.references).items()}
            )
        restored = np.argsort(examples.order)
        output = output._replace(
            predictions=output.predictions[restored],
            label_ids=None if output.label_ids is None else output.label_ids[restored],
        )
        if compute_metrics is not None and output.label_ids is not None:
            found = compute_metrics(EvalPrediction(predictions=output.predictions, label_ids=output.label_ids))
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in found.items()})
        return output

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        own = self._own_special_tokens or []
        trained_with = [(config, _special_token_ids(config)) for config, _ in own]
        _set_all(own)
        try:
            super()._save(output_dir, state_dict)
        finally:
            _set_all(trained_with)
        # The base class pickles the arguments, which nobody should have to load; JSON says the same.
        folder = Path(output_dir or self.args.output_dir)
        (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
        write_json(folder / ARGUMENTS_FILE, self._arguments())

    def decode(self, predictions: np.ndarray) -> list[str]:
        """Token ids `[n, length]`, padded with -100, to texts."""
        token_ids = np.where(predictions < 0, pad_token_id(self.processing_class), predictions)
        return [text.strip() for text in self.processing_class.batch_decode(token_ids, skip_special_tokens=True)]


def _special_token_ids(config: Any) -> dict[str, Any]:
    return {name: copy.copy(getattr(config, name)) for name in SPECIAL_TOKEN_IDS if hasattr(config, name)}


def _set_all(values_of: list[tuple[Any, dict[str, Any]]]) -> None:
    for config, values in values_of:
        for name, value in values.items():
            setattr(config, name, value)
