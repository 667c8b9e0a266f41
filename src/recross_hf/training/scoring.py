"""The half of a trainer that generates answers to examples and scores them; how it trains is another's to say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction, PredictionOutput

from ..models.architectures import architecture_of
from ..models.base import check_vocabulary, longest_answer, unwrapped
from ..models.collators import pad_token_id
from ..models.decoding import decoding_in_force, kept, one_answer
from ..models.generation import Answer, generate_answers
from ..models.heads import contiguous_head
from ..models.tokenization import TokenizedExamples
from ..soft_em import score
from ._compat import ScoresEachRowOnce, forget_loader, take_losses_as_means
from .answer_loss import TakesAnswersAlone
from .arguments import ExampleTrainingArguments

METRICS_OF_TASKS = ("loss", "soft_em", "exact_match")


class ScoringTrainer(ScoresEachRowOnce, TakesAnswersAlone):
    """A `Seq2SeqTrainer` that takes examples of the schema and scores what a model generates by SoftEM and exact match.

    Args:
        model: Text-to-text model of either kind, with or without PEFT.
        args: Arguments, which say how texts become tokens and answers are decoded.
        processing_class: The model's tokenizer.
        eval_dataset: Examples to evaluate on, or a dictionary of them by task.
        kwargs: Other arguments of `Seq2SeqTrainer`, such as `train_dataset`, `callbacks` or `compute_metrics`.
    """

    args: ExampleTrainingArguments
    model: PreTrainedModel
    processing_class: PreTrainedTokenizerBase
    eval_dataset: Dataset | dict[str, Dataset] | None

    def __init__(
        self,
        model: PreTrainedModel,
        args: ExampleTrainingArguments,
        *,
        processing_class: PreTrainedTokenizerBase,
        eval_dataset: Dataset | dict[str, Dataset] | None,
        **kwargs: Any,
    ) -> None:
        self.architecture = architecture_of(model)
        check_vocabulary(model, processing_class)
        own_generation_config = model.generation_config
        # With gradient accumulation the loss would be multiplied.
        take_losses_as_means(unwrapped(model))
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
        self._generation_config: Any = None
        if args.generation_config is not None:
            self._generation_config, model.generation_config = model.generation_config, own_generation_config
        self._tokenized_for_evaluation: dict[str | None, tuple[Dataset, TokenizedExamples]] = {}

    def tokenize(self, examples: Dataset, **kwargs: Any) -> TokenizedExamples:
        """Turns examples into token ids, cut to `max_input_length` (or what the model takes) and `max_target_length`.

        Args:
            examples: Examples of the schema; without `references` the items have no labels.
            kwargs: Order and choice of the items: `longest_first` and `drop_long_targets`, which are False by default.
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
            min(self.args.max_target_length, longest_answer(self.model)),
            architecture=self.architecture,
            **kwargs,
        )

    def decode(self, predictions: np.ndarray) -> list[str]:
        """Turns token ids `[n, length]`, padded with -100, into texts."""
        token_ids = np.where(predictions < 0, pad_token_id(self.processing_class), predictions)
        texts: list[str] = self.processing_class.batch_decode(token_ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def generate_settings(self) -> dict[str, Any]:
        """What `generate` is told for answers that are scored."""
        settings = one_answer(self.model, self.processing_class)
        if self._generation_config is not None:
            given = {name: value for name, value in vars(self._generation_config).items() if not name.startswith("_")}
            settings |= {name: value for name, value in given.items() if value is not None}
        # BART stops at 20 tokens unless told otherwise.
        settings |= {
            "max_length": None,
            "max_new_tokens": min(self.args.max_target_length, longest_answer(self.model)),
        }
        if self.args.generation_num_beams is not None:
            settings["num_beams"] = self.args.generation_num_beams
        return settings

    def answer(self, inputs: Sequence[str]) -> list[str]:
        """Answers inputs as evaluations do, in each process all of them; the weights must not be spread over devices."""
        return [answer.text for answer in self.answers_with_ends(inputs)]

    def answers_with_ends(self, inputs: Sequence[str]) -> list[Answer]:
        """[`answer`], with whether each answer ended."""
        with self.accelerator.autocast():
            return generate_answers(
                self.model,
                self.processing_class,
                inputs,
                max_input_length=self.args.max_input_length,
                **self.generate_settings(),
            )

    @property
    def decoding(self) -> dict[str, Any]:
        """Settings that change what is answered, beside those of the arguments: beams, penalties, lengths ([`decoding_in_force`])."""
        return decoding_in_force(self.model, self.generate_settings())

    # ---- loaders -------------------------------------------------------------------------------------------------------

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> torch.utils.data.DataLoader:
        """A loader over tokenised examples, longest first; the trainer's own evaluation sets are tokenised once."""
        if eval_dataset is not None and not isinstance(eval_dataset, str):
            return self.get_test_dataloader(eval_dataset)
        examples: Any = self.eval_dataset
        if eval_dataset is not None:
            examples = examples[eval_dataset]
        if examples is None:
            raise ValueError("Expected an evaluation set, found none. Pass `eval_dataset` here or to the constructor.")
        if eval_dataset in self._tokenized_for_evaluation:
            tokenized_before, tokenized = self._tokenized_for_evaluation[eval_dataset]
            if tokenized_before is examples:
                return self._evaluation_loader(tokenized)
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
        forget_loader(self.accelerator, loader)
        return loader

    # ---- evaluation ----------------------------------------------------------------------------------------------------

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
        Tasks do not share batches: a batch takes as many steps as its longest answer, and answers of a task are of like length. Counted over
        the references of the authors' 34 upstream tasks, batches of all tasks together take twice as many steps.
        """
        tasks = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(tasks, dict):
            # The base class takes names, too, and says so in words alone.
            evaluated: Any = eval_dataset
            return super().evaluate(evaluated, ignore_keys, metric_key_prefix, **self._with_tokenizer(gen_kwargs))
        metrics: dict[str, float] = {}
        # The base class would evaluate each task without what is asked of `generate`. It tokenises its own sets once, by their names.
        for task, examples in tasks.items():
            of_task = task if eval_dataset is None else examples
            metrics |= self.evaluate(of_task, ignore_keys, f"{metric_key_prefix}_{task}", **gen_kwargs)
        mean = mean_of_tasks(metrics, tasks, metric_key_prefix)
        self.log(dict(mean))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, mean)
        return metrics | mean

    def predict(
        self,
        test_dataset: Dataset,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "test",
        **gen_kwargs: Any,
    ) -> PredictionOutput:
        """Generates answers and, where there are references, scores them; predictions come in the order of the data set."""
        return super().predict(test_dataset, ignore_keys, metric_key_prefix, **self._with_tokenizer(gen_kwargs))

    def _with_tokenizer(self, gen_kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of `generate` with the tokenizer, which finds the strings that a model stops at."""
        return {"tokenizer": self.processing_class, **gen_kwargs}

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
        examples: Any = dataloader.dataset
        predictions: Any = output.predictions
        if predictions is None:
            return output
        scores = {} if examples.references is None else score(self.decode(predictions), examples.references)
        order = np.argsort(examples.order)
        labels: Any = None if output.label_ids is None else np.asarray(output.label_ids)[order]
        if compute_metrics is not None and labels is not None:
            scores |= compute_metrics(EvalPrediction(predictions=predictions[order], label_ids=labels))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        return output._replace(
            predictions=predictions[order], label_ids=labels, metrics=(output.metrics or {}) | metrics
        )

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: Any,
    ) -> tuple[Any, torch.Tensor | None, torch.Tensor | None]:
        """Generates for a batch with the lengths and beams of the arguments; the loss is that of training."""
        loss, labels = None, None
        if "labels" in inputs:
            loss, _, _ = super().prediction_step(model, inputs, True, ignore_keys)
            labels = self.architecture.answers_of(inputs)
        if prediction_loss_only:
            return loss, None, None
        prompts = self.architecture.prompts_of(inputs, pad_token_id(self.processing_class))
        own: Any = self.model.generation_config
        # Generation calls the encoder by itself, and not by the forward pass that computes in half precision. The base class reads
        # lengths of the configuration, and writes its defaults there.
        with self.accelerator.autocast(), contiguous_head(self.model), kept(own) as configuration:
            vars(configuration).update(self.generate_settings())
            _, generated, _ = super().prediction_step(model, prompts, False, ignore_keys, **gen_kwargs)
        answers: Any = generated
        return loss, self.architecture.continuations(answers, prompts["input_ids"]), labels


def mean_of_tasks(metrics: Mapping[str, float], tasks: Iterable[str], prefix: str) -> dict[str, float]:
    """The unweighted mean over the tasks of each metric that all of them have, by the names `{prefix}_...`."""
    mean = {}
    for name in METRICS_OF_TASKS:
        of_tasks = [metrics.get(f"{prefix}_{task}_{name}") for task in tasks]
        values = [value for value in of_tasks if value is not None]
        if values and len(values) == len(of_tasks):
            mean[f"{prefix}_{name}"] = float(np.mean(values))
    return mean
