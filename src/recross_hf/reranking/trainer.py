"""Training of a reranker: a cross-encoder learns from mined pairs which upstream examples help.

`CrossEncoderTrainer` of sentence-transformers trains the same reranker in the same time (`benchmarks/reranker_training.py`: ours is 1.01 to
1.03 times as fast). This trainer stays for its surroundings, which the other lacks: losses that are plain functions of the utilities, a
resumed run that compares settings and data with those of its checkpoint, an evaluation by query set that the processes share, and no pickles
beside the model or on the Hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import TrainOutput

from ..core.deprecation import renamed_argument
from ..core.distributed import warn_where_bfloat16_is_slow
from ..core.files import write_json
from ..models.base import check_finite_weights
from ..training._compat import ChoosesItsSampler, StaysEnded, WritesItsOwnModel, take_losses_as_means
from ..training.checkpoints import ARGUMENTS_FILE, checkpoint_to_resume, described_arguments, refuse_other_batches
from ..training.safe_push import SafePushTrainer
from .arguments import RerankerTrainingArguments
from .batches import QuerySampler, TokenizedPairs
from .cross_encoder import CrossEncoderReranker
from .evaluation import evaluate_reranker
from .losses import Loss, binary, pairwise
from .pair_tokenizer import longest_pair


def train_reranker(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    pairs: Dataset,
    args: RerankerTrainingArguments | None = None,
    *,
    eval_pairs: Dataset | None = None,
    loss: Loss = binary,
    objective: Loss | None = None,
) -> CrossEncoderReranker:
    """Trains a reranker on mined pairs (paper, section 3.3) and returns it.

    ```python
    model = AutoModelForSequenceClassification.from_pretrained("FacebookAI/roberta-base", num_labels=1, dtype="float32")
    train, dev = split_by_task(pairs, num_dev_tasks=4)
    reranker = train_reranker(model, AutoTokenizer.from_pretrained("FacebookAI/roberta-base"), train, eval_pairs=dev)
    evaluate_reranker(reranker, dev)  # {"auc": 0.64, "dense_auc": 0.55, ...}
    reranker.save_pretrained("reranker")
    ```

    For callbacks, logging or resuming, use [`RerankerTrainer`] as any `Trainer`.

    Args:
        model: Any `AutoModelForSequenceClassification` with `num_labels=1`; it is trained in place.
        processing_class: Fast tokenizer of the model that takes pairs.
        pairs: Pairs to train on, see [`mine_supervision`].
        args: Settings of the training; by default those of the authors' code.
        eval_pairs: Pairs of held-out tasks, see [`split_by_task`]; `args.eval_strategy` says when they are evaluated.
        loss: Loss of a batch, a function of `recross_hf.reranking.losses` or one like them.
        objective: Former name of `loss`.

    Returns:
        The trained reranker.
    """
    if objective is not None:
        loss = renamed_argument("objective", "loss", objective)
    trainer = RerankerTrainer(
        model,
        args or RerankerTrainingArguments(report_to="none"),
        train_dataset=pairs,
        eval_dataset=eval_pairs,
        processing_class=processing_class,
        loss=loss,
    )
    trainer.train()
    return trainer.reranker()


class RerankerTrainer(SafePushTrainer, WritesItsOwnModel, ChoosesItsSampler, StaysEnded):
    """Trains a cross-encoder on mined pairs.

    Args:
        model: Any `AutoModelForSequenceClassification` with `num_labels=1`; it is trained in place.
        args: Settings of the training, a [`RerankerTrainingArguments`].
        train_dataset: Pairs to train on, see [`mine_supervision`].
        eval_dataset: Pairs of held-out tasks; `evaluate` computes the metrics of [`evaluate_reranker`] on them.
        processing_class: Fast tokenizer of the model that takes pairs.
        loss: Loss of a batch, a function of `recross_hf.reranking.losses` or one like them.
        objective: Former name of `loss`.
        kwargs: Other arguments of `Trainer`, such as `callbacks` and `optimizers`.

    Raises:
        TypeError: `args` are of another class, or an argument of `Trainer` would be ignored.
        ValueError: The model, its tokenizer or its precision cannot be trained so, or a setting would be ignored.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: RerankerTrainingArguments,
        *,
        processing_class: PreTrainedTokenizerBase,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        loss: Loss = binary,
        objective: Loss | None = None,
        **kwargs: Any,
    ) -> None:
        if objective is not None:
            loss = renamed_argument("objective", "loss", objective)
        _check(model, args, loss, kwargs)
        if args.device.type == "cpu":
            args.dataloader_pin_memory = False
        if args.bf16:
            warn_where_bfloat16_is_slow(args.device.type)
        args.remove_unused_columns = False
        if train_dataset is not None:
            model.config.query_tasks = sorted(set(train_dataset["query_task"][:]))  # saved with it, for its card
        max_length = min(args.max_length, longest_pair(model, processing_class))
        self._settings: dict[str, Any] = {"max_length": max_length, "include_answers": args.include_answers}
        # Made once before, so that a model of which none can be made is refused now and not after the training.
        self.pair_tokenizer = CrossEncoderReranker(model, processing_class, **self._settings).pair_tokenizer
        self.loss = loss
        # The loss below is a mean over the batch and does not divide by what the base class infers from **kwargs.
        take_losses_as_means(model)
        super().__init__(
            model=model,
            args=args,
            data_collator=self._collate,
            train_dataset=TokenizedPairs(train_dataset, self.pair_tokenizer, args.include_answers)
            if train_dataset is not None
            else None,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )

    def reranker(self) -> CrossEncoderReranker:
        """The reranker with the weights as they are now."""
        model = self.accelerator.unwrap_model(self.model)
        return CrossEncoderReranker(model, cast(PreTrainedTokenizerBase, self.processing_class), **self._settings)

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Trains the model.

        Args:
            resume_from_checkpoint: Checkpoint to continue from, or True (also as text) for the last one in `output_dir`.
            trial: Trial of a hyperparameter search, as `Trainer.train` takes it.
            ignore_keys_for_eval: Outputs of the model that evaluations in the training ignore, as `Trainer.train` takes them.

        Raises:
            ValueError: There is no such checkpoint, other settings or data made its batches, or weights are NaN or infinite.
        """
        check_finite_weights(cast(torch.nn.Module, self.model))
        checkpoint = checkpoint_to_resume(resume_from_checkpoint, str(self.args.output_dir))
        if checkpoint is not None:
            refuse_other_batches(checkpoint, self._arguments())
        return super().train(checkpoint, trial, ignore_keys_for_eval)

    def _arguments(self) -> dict[str, Any]:
        pairs = cast(TokenizedPairs | None, self.train_dataset)
        return described_arguments(self, pairs.digest if pairs is not None else None)

    def evaluate(
        self,
        eval_dataset: Dataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Computes and logs the metrics of [`evaluate_reranker`], their names behind a prefix.

        Args:
            eval_dataset: Pairs to evaluate on; by default those of the constructor.
            ignore_keys: Accepted as `Trainer.evaluate` takes it; the metrics need no output of the model but the scores.
            metric_key_prefix: Prefix of the names.

        Raises:
            ValueError: There are no pairs.
        """
        pairs = self.eval_dataset if eval_dataset is None else eval_dataset
        if pairs is None:
            raise ValueError(
                "Expected pairs to evaluate on, found none. Pass `eval_dataset` here or to the constructor."
            )
        metrics = {
            f"{metric_key_prefix}_{name}": value for name, value in evaluate_reranker(self.reranker(), pairs).items()
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The loss of the scores of a batch."""
        targets = [inputs.pop(name) for name in ("label", "utility", "query")]
        outputs = model(**inputs)
        loss = self.loss(outputs.logits[:, 0].float(), *targets)
        return (loss, outputs) if return_outputs else loss

    def _collate(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pairs = [{name: item[name] for name in item if name in ("input_ids", "token_type_ids")} for item in items]
        batch = self.pair_tokenizer.pad(pairs)
        batch["label"] = torch.tensor([item["label"] for item in items], dtype=torch.float32)
        batch["utility"] = torch.tensor([item["utility"] for item in items], dtype=torch.float32)
        batch["query"] = torch.tensor([item["query"] for item in items])
        return batch

    def training_sampler(self, rows: TokenizedPairs) -> torch.utils.data.Sampler | None:
        """The sampler that keeps the pairs of a query together, where the arguments ask for that."""
        if not cast(RerankerTrainingArguments, self.args).group_by_query:
            return None
        return QuerySampler(rows.query_of, self.args.seed if self.args.data_seed is None else self.args.data_seed)

    def write_model(self, folder: Path) -> None:
        """Writes the reranker, and the arguments as JSON."""
        self.reranker().save_pretrained(folder)
        write_json(folder / ARGUMENTS_FILE, self._arguments())


def _check(model: PreTrainedModel, args: Any, loss: Loss, kwargs: dict[str, Any]) -> None:
    """Refuses what could not be trained, or would be ignored."""
    if not isinstance(args, RerankerTrainingArguments):
        raise TypeError(f"Expected `args` to be a RerankerTrainingArguments, found {type(args).__name__}.")
    if loss is pairwise and not args.group_by_query:
        raise ValueError(
            "Expected `group_by_query=True` with the pairwise loss: at random, hardly two candidates of one query meet in a "
            "batch. Set it, or choose another loss."
        )
    for name in ("compute_metrics", "data_collator", "compute_loss_func"):
        if name in kwargs:
            raise TypeError(f"There is no `{name}` to pass: `evaluate_reranker` scores pairs, and `loss` is the loss.")
    if args.label_smoothing_factor:
        raise ValueError("`label_smoothing_factor` is not used: pass a `loss` that smooths.")
    # transformers loads a checkpoint in the dtype that it was saved in; steps of 1e-5 round to nothing in half precision.
    if model.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"Expected weights in float32, found {model.dtype}. Load the model with `dtype=torch.float32`; `bf16=True` computes "
            "in half precision and keeps the weights."
        )
