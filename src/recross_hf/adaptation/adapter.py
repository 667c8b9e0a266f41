"""`RetrievalAugmentedAdapter`: retrieve upstream examples for unlabelled inputs and continue training on them."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import TrainOutput

from ..core._compat import commit_of
from ..core.files import write_atomically, write_parquet
from ..core.hashing import digest_of
from ..data.conversations import as_json, texts_of
from ..data.readers import load_queries
from ..models.adapters import adapter_settings
from ..models.gguf import gguf_file_of
from ..reranking.reranker import Reranker
from ..retrieval.retriever import Retriever
from ..training.checkpoints import checkpoint_to_resume, refuse_other_weights
from ..training.kept_configuration import check_can_be_saved
from ..training.trainer import ExampleTrainer
from .answer_form import gate_inputs
from .arguments import AdaptationArguments
from .model_card import adapted_model_card, as_list, first_of
from .model_copy import adaptable_copy
from .record import RETRIEVED_FILE, Adaptation, Evaluation, read_retrieved, recorded_settings
from .retrieval import check_parts, retrieve_examples, selects, timed
from .safety_gate import GateVerdict, SafetyGate, level_in_force, split

if TYPE_CHECKING:
    from peft import PeftConfig

logger = logging.getLogger(__name__)


class RetrievalAugmentedAdapter(ExampleTrainer):
    """Adapts a copy of a multi-task model to an unseen task (paper, section 3 and figure 2).

    ```python
    adapter = RetrievalAugmentedAdapter(
        model,
        AdaptationArguments(output_dir="adapted"),
        retriever=DenseRetriever(index),
        query_dataset=inputs,  # about sixteen, unlabelled
        eval_dataset=test,  # optional
        processing_class=tokenizer,
    )
    adapter.evaluate()  # the model as it is
    adapter.train()  # retrieves, then continues training on what it found
    adapter.evaluate()
    adapter.save_model()
    ```

    Args:
        model: Any `AutoModelForSeq2SeqLM` or `AutoModelForCausalLM`, or a PEFT model of one, see `args.upstream_adapter`. It is
            copied and not changed. Below plain LoRA the copy shares its frozen weights: who writes into them changes both.
        args: An [`AdaptationArguments`]; the paper's by default.
        retriever: Retriever of the examples to learn from.
        reranker: Reranker of more examples than are trained on (`upsampling_ratio`), for `args.select_by` to choose from; none
            by default.
        query_dataset: The unlabelled inputs: a list of strings, or whatever [`load_queries`] takes.
        eval_dataset: Labelled examples to `evaluate` on ([`load_examples`]); the method does not see them.
        processing_class: The model's tokenizer.
        peft_config: Configuration of an adapter to train in place of all weights, e.g. `LoraConfig(task_type="SEQ_2_SEQ_LM")`; for a
            decoder-only model `task_type="CAUSAL_LM"`.
        kwargs: Arguments of [`Seq2SeqTrainer`]: `callbacks`, `optimizers`, ...

    Attributes:
        retrieved: The retrieved examples with `rank`, `query`, `distance` and, reranked, `score`; None before `retrieve` or `train`.
        gate: Verdict of the safety gate (`args.gate`); None before `train` and without it. Where it is not `kept`, the weights are
            those from before the training.
        gate_answers: Answers of the base, and of what `train` left, by the inputs that the gate had answered.
        seconds: Wall time of `retrieve`, of `rerank` if there is a reranker, and of `gate` if there is one.

    Raises:
        TypeError: `model` is of a kind that writes no text, or `args` are of another class.
        ValueError: `peft_config` is for another kind of model, or beside a model whose own adapter is trained further; or a weight is NaN
            or infinite.
    """

    args: AdaptationArguments

    def __init__(
        self,
        model: PreTrainedModel,
        args: AdaptationArguments | None = None,
        *,
        retriever: Retriever,
        reranker: Reranker | None = None,
        query_dataset: Dataset | Iterable[str],
        eval_dataset: Dataset | None = None,
        processing_class: PreTrainedTokenizerBase,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        args = AdaptationArguments() if args is None else args
        if not isinstance(args, AdaptationArguments):
            raise TypeError(
                f"Expected `args` to be an AdaptationArguments, found {type(args).__name__}. It takes the fields of "
                "Seq2SeqTrainingArguments."
            )
        if not isinstance(model, torch.nn.Module):
            raise TypeError(
                f"Expected `model` to be a loaded model, found {type(model).__name__}. Load it, e.g. with "
                "`AutoModelForSeq2SeqLM.from_pretrained(name)`; of a pipeline, pass `pipeline.upstream_model`."
            )
        if retriever is None:
            raise TypeError(
                "Expected `retriever` to be a Retriever, found NoneType. For an index, pass `DenseRetriever(index)`."
            )
        check_parts(retriever, reranker, peft_config)
        if "train_dataset" in kwargs:
            raise TypeError("There is no `train_dataset` to pass: the examples to train on come from the retriever.")
        super().__init__(
            adaptable_copy(model, peft_config, args.seed, upstream_adapter=args.upstream_adapter),
            args,
            processing_class=processing_class,
            eval_dataset=eval_dataset,
            **kwargs,
        )
        if args.num_retrieved > retriever.num_allowed:
            logger.warning(
                "Expected `num_retrieved` to be at most the %s upstream examples that may be retrieved, found %s: examples will repeat, "
                "or be fewer. Lower it.",
                f"{retriever.num_allowed:,}",
                f"{args.num_retrieved:,}",
            )
        self.retriever = retriever
        self.reranker = reranker
        self.query_dataset = load_queries(query_dataset)
        self.retrieved: Dataset | None = None
        self._evaluations: dict[str, Evaluation] = {}
        self.gate: GateVerdict | None = None
        self.gate_answers: dict[str, tuple[str, str]] = {}
        # While somebody else holds the model that was copied, the gate need not keep a copy of its weights.
        self._copied_from = weakref.ref(model)
        self.seconds: dict[str, float] = {}

    def retrieve(self) -> Dataset:
        """Retrieves |R| upstream examples for the query set and keeps them in `self.retrieved`."""
        self.seconds.clear()
        self.retrieved = retrieve_examples(
            texts_of(self.query_dataset), self.retriever, self.reranker, self.args, self.seconds
        )
        return self.retrieved

    @property
    def selects(self) -> bool:
        """Whether more candidates are retrieved than are learned from."""
        return selects(self.retriever, self.reranker, self.args)

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Retrieves (unless [`retrieve`] was called), then trains on what was found.

        A checkpoint holds the retrieved examples, on which a resumed run trains. `self.gate` says whether the weights were put back.

        Args:
            resume_from_checkpoint: Folder of a checkpoint; True stands for the last one in `args.output_dir`.
            trial: Trial of a search for hyperparameters.
            ignore_keys_for_eval: Outputs of the model that evaluations leave out.

        Raises:
            ValueError: The strict gate is asked for and the weights are spread over devices (FSDP, DeepSpeed), or too few
                examples were retrieved to hold one out.
            RuntimeError: The gate refuses the adaptation, and the model that was passed was changed during the training.
        """
        check_can_be_saved(self.model)
        checkpoint = checkpoint_to_resume(resume_from_checkpoint, str(self.args.output_dir))
        if checkpoint is not None:
            refuse_other_weights(checkpoint, is_peft=hasattr(self.model, "peft_config"), dtype=self._dtype)
            self.retrieved = read_retrieved(checkpoint)
        retrieved = self.retrieve() if self.retrieved is None else self.retrieved
        level = level_in_force(self)
        learned, held_out = split(level, retrieved, self.args)
        self.train_dataset = self.tokenize_for_training(learned)
        if level == "off":
            return super().train(checkpoint, trial, ignore_keys_for_eval)
        self.seconds.pop("gate", None)
        with timed(self.seconds, "gate"):
            gate = SafetyGate(self, self.query_dataset, held_out, self._copied_from())
        output = super().train(checkpoint, trial, ignore_keys_for_eval)
        with timed(self.seconds, "gate"):
            self.gate, self.gate_answers = gate.decide(), gate.answers
        return output

    def answered_by_gate(self) -> list[str]:
        """The inputs that `train` will have answered before and after the training, and put into `gate_answers`."""
        return gate_inputs(texts_of(self.query_dataset)) if level_in_force(self) != "off" else []

    def _arguments(self) -> dict[str, Any]:
        # Of others, the checkpoint's retrieved examples would be learned from, and said to be theirs.
        return super()._arguments() | {"queries": digest_of(as_json(texts_of(self.query_dataset)))}

    def evaluate(
        self,
        eval_dataset: Dataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
        **gen_kwargs: Any,
    ) -> dict[str, float]:
        """Generates answers to the evaluation set and scores them: `{prefix}_soft_em`, `{prefix}_exact_match`, ..."""
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix, **gen_kwargs)
        if f"{metric_key_prefix}_soft_em" in metrics:
            evaluated: Any = self.eval_dataset if eval_dataset is None else eval_dataset
            if isinstance(evaluated, str):  # one of the trainer's own evaluation sets
                own: Any = self.eval_dataset
                evaluated = own[evaluated]
            self._evaluations[metric_key_prefix] = Evaluation.of(
                metrics, metric_key_prefix, evaluated, is_adapted=self.state.global_step > 0
            )
        return metrics

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Scores of `evaluate` by its `metric_key_prefix`: `soft_em`, `exact_match` in percent and `n`."""
        return {prefix: evaluation.scores for prefix, evaluation in self._evaluations.items()}

    @property
    def adaptation(self) -> Adaptation:
        """How the model was adapted and how it does, for its card and its results."""
        settings = recorded_settings(self.args, has_choice=self.selects) | adapter_settings(self.model)
        parts = {"retriever": self.retriever, "reranker": self.reranker}
        settings |= {name: type(part).__name__ for name, part in parts.items() if part is not None}
        return Adaptation(len(self.query_dataset), settings, dict(self._evaluations), self.gate, self.decoding)

    @contextmanager
    def saving_to(self, folder: Path) -> Iterator[None]:
        """Saves the retrieved examples beside the model."""
        if self.retrieved is not None:  # first: it tells what the folder holds, also where a save is killed
            write_parquet(self.retrieved, folder / RETRIEVED_FILE)
        with super().saving_to(folder):
            yield

    def create_model_card(
        self,
        language: str | list[str] | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Writes `README.md`: how the model was adapted, what it learned from and, once evaluated, how it does.

        Args:
            language: Language of the task.
            license: License of the model, such as apache-2.0.
            tags: Tags beside those that every adapted model has.
            model_name: Title of the card; the name on the Hub, or the folder's, by default.
            finetuned_from: Name of the upstream model on the Hub; where it was loaded from by default.
            tasks: Type of task of the results; text-generation by default.
            dataset_tags: Names on the Hub of data sets that belong to the model; the first is that of the results.
            dataset: Name, for the results, of the data set that was evaluated on; its tasks by default.
            dataset_args: Configuration of that data set.
        """
        if not self.is_world_process_zero():
            return
        if self.retrieved is None:
            languages: Any = language  # the base class takes several, too
            super().create_model_card(
                languages, license, tags, model_name, finetuned_from, tasks, dataset_tags, dataset, dataset_args
            )
            return
        path, own_base = Path(str(self.args.output_dir)) / "README.md", self.model.config.name_or_path or ""
        card = adapted_model_card(
            self.hub_model_id or self.args.hub_model_id or path.parent.resolve().name,
            title=model_name,
            base_model=finetuned_from or own_base,
            base_revision=commit_of(self.model) if finetuned_from in (None, own_base) else None,
            gguf_file=gguf_file_of(self.model) if finetuned_from in (None, own_base) else None,
            adaptation=self.adaptation,
            retrieved=self.retrieved,
            architecture=self.architecture,
            processing_class=self.processing_class,
            is_peft=hasattr(self.model, "peft_config"),
            license=license,
            language=language,
            tags=as_list(tags),
            datasets=as_list(dataset_tags),
            eval_task=first_of(tasks) or "text-generation",
            eval_dataset=first_of(dataset),
            eval_dataset_type=first_of(dataset_tags),
            eval_dataset_config=first_of(dataset_args),
        )
        write_atomically(path, lambda partial: partial.write_text(str(card), encoding="utf-8"))
