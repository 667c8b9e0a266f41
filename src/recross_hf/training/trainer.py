"""`ExampleTrainer`: a `Seq2SeqTrainer` on examples of the schema, scored by SoftEM and exact match."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Seq2SeqTrainer
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import (
    PREFIX_CHECKPOINT_DIR,
    EvalLoopOutput,
    EvalPrediction,
    TrainOutput,
    enable_full_determinism,
    set_seed,
)

from ..core.distributed import warn_where_bfloat16_is_slow
from ..core.files import write_json
from ..models.architectures import SEQUENCE_TO_SEQUENCE, architecture_of, unwrapped
from ..models.collators import pad_token_id
from ..models.tokenization import TokenizedExamples
from ..soft_em import score
from .arguments import ExampleTrainingArguments
from .fsdp import shared_weights_in_one_group
from .mixture_sampler import MixtureBatchSampler
from .safe_push import SafePushTrainer

ARGUMENTS_FILE = "training_args.json"
# What decides which examples a step has; `data_seed` is `seed` unless it is set.
BATCH_SETTINGS = (
    "token_budget",
    "mixing_temperature",
    "max_examples_per_task",
    "data_seed",
    "num_processes",
    "safety_gate",
    "gate_fraction",
)


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
        self._set_generation_config()
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

    def _set_generation_config(self) -> None:
        # BART stops at 20 tokens unless told otherwise, and each `generate` writes its default of 20 back.
        generation_config = self.model.generation_config
        generation_config.max_length = None
        generation_config.max_new_tokens = self.args.max_target_length
        generation_config.pad_token_id = pad_token_id(self.processing_class)
        if self.args.generation_num_beams is not None:
            generation_config.num_beams = self.args.generation_num_beams

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Trains; the result depends on the seed and not on what was generated or evaluated before.

        Args:
            resume_from_checkpoint: a checkpoint to continue from, or True (also as text) for the last one in `output_dir`.
            kwargs: what [`Seq2SeqTrainer.train`] takes.

        Raises:
            ValueError: there is no such checkpoint, or its batches were made by other settings.
        """
        checkpoint = checkpoint_to_resume(resume_from_checkpoint, self.args.output_dir)
        if checkpoint is not None:
            self._refuse_other_batches(checkpoint)
        enable_full_determinism(self.args.seed) if self.args.full_determinism else set_seed(self.args.seed)
        return super().train(resume_from_checkpoint=checkpoint, **kwargs)

    def _arguments(self) -> dict[str, Any]:
        return json.loads(self.args.to_json_string()) | {"num_processes": self.accelerator.num_processes}

    def _refuse_other_batches(self, checkpoint: str) -> None:
        """What was seen of an epoch is passed over by counting batches, which must then be the same ones."""
        path = Path(checkpoint) / ARGUMENTS_FILE
        if not path.is_file():
            return  # of another trainer
        before, now = json.loads(path.read_text(encoding="utf-8")), self._arguments()
        for arguments in (before, now):
            if arguments.get("data_seed") is None:
                arguments["data_seed"] = arguments.get("seed")
        if changed := [name for name in BATCH_SETTINGS if name in before and before[name] != now.get(name)]:
            raise ValueError(
                f"Expected the settings that made the batches of {checkpoint}, found "
                f"{', '.join(f'`{name}` {now.get(name)} in place of {before[name]}' for name in changed)}. Resume with the same "
                "ones, or begin anew from the checkpoint's model."
            )

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Mean of the token losses of a batch, or their sum with `sum_token_loss`."""
        labels = inputs["labels"]
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        if self.args.sum_token_loss and model.training:
            loss = loss * (labels != -100).sum()
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
        self._set_generation_config()
        # Generation calls the encoder by itself, and not by the forward pass that computes in half precision.
        with self.accelerator.autocast():
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
        super()._save(output_dir, state_dict)
        # The base class pickles the arguments, which nobody should have to load; JSON says the same.
        folder = Path(output_dir or self.args.output_dir)
        (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
        write_json(folder / ARGUMENTS_FILE, self._arguments())

    def decode(self, predictions: np.ndarray) -> list[str]:
        """Token ids `[n, length]`, padded with -100, to texts."""
        token_ids = np.where(predictions < 0, pad_token_id(self.processing_class), predictions)
        return [text.strip() for text in self.processing_class.batch_decode(token_ids, skip_special_tokens=True)]


def checkpoint_to_resume(wanted: str | bool | None, output_dir: str | Path) -> str | None:
    """The checkpoint folder that `resume_from_checkpoint` means: a folder, or for True and "true" the last whole one in `output_dir`.

    Raises:
        ValueError: there is none.
    """
    if isinstance(wanted, str) and wanted.lower() in ("true", "false"):
        wanted = wanted.lower() == "true"
    if not wanted:
        return None
    remedy = "Leave `resume_from_checkpoint` out to begin anew."
    if wanted is True:
        # The state is written last: a run that was killed while it saved leaves a folder without it.
        states = Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}")
        steps = {
            int(number): state.parent for state in states if (number := state.parent.name.split("-")[1]).isdigit()
        }
        if not steps:
            raise ValueError(
                f"No checkpoint to resume from in {output_dir}: expected a {PREFIX_CHECKPOINT_DIR}-* folder with "
                f"{TRAINER_STATE_NAME}. {remedy}"
            )
        return str(steps[max(steps)])
    if not (Path(wanted) / TRAINER_STATE_NAME).is_file():
        raise ValueError(
            f"No checkpoint to resume from in {wanted}: expected a folder with {TRAINER_STATE_NAME}, or 'true' for "
            f"the last one in {output_dir}. {remedy}"
        )
    return wanted
