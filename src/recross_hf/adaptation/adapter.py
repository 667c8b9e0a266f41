"""`RetrievalAugmentedAdapter`: retrieve upstream examples for unlabelled inputs and continue training on them."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, extract_model_from_parallel
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.pytorch_utils import Conv1D
from transformers.trainer_utils import TrainOutput

from ..core.files import read_parquet, write_atomically, write_parquet
from ..core.hashing import digest_of
from ..data.readers import load_queries
from ..models.architectures import architecture_of
from ..models.generation import generate_texts
from ..reranking.reranker import Reranker
from ..reranking.selection import SELECTIONS
from ..retrieval.retriever import Retriever
from ..training.checkpoints import checkpoint_to_resume, refuse_other_weights
from ..training.trainer import ExampleTrainer
from .arguments import AdaptationArguments
from .model_card import adapted_model_card
from .record import RETRIEVED_FILE, Adaptation, Evaluation
from .safety_gate import AnswerSigns, GateSigns, GateVerdict, hold_out, token_loss

if TYPE_CHECKING:
    from peft import PeftConfig

logger = logging.getLogger(__name__)

_SETTINGS = (
    "num_retrieved",
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "label_smoothing_factor",
    "max_input_length",
    "max_target_length",
    "generation_num_beams",
    "seed",
)


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
        model: any `AutoModelForSeq2SeqLM` or `AutoModelForCausalLM`. It is copied and not changed.
        args: an [`AdaptationArguments`]; the paper's by default.
        retriever: where the examples to learn from come from.
        reranker: scores more examples than are trained on (`upsampling_ratio`), for `args.select_by` to choose from; none
            by default.
        query_dataset: the unlabelled inputs: a list of strings, or whatever [`load_queries`] takes.
        eval_dataset: labelled examples to `evaluate` on ([`load_examples`]); the method does not see them.
        processing_class: the model's tokenizer.
        peft_config: trains an adapter in place of all weights, e.g. `LoraConfig(task_type="SEQ_2_SEQ_LM")`; for a
            decoder-only model `task_type="CAUSAL_LM"`.
        kwargs: what [`Seq2SeqTrainer`] takes: `callbacks`, `optimizers`, ...

    Attributes:
        retrieved: the retrieved examples with `rank`, `query`, `distance` and, reranked, `score`; None before `retrieve` or `train`.
        gate: what the safety gate found (`args.safety_gate`); None before `train` and without it. Where it is not `kept`, the
            weights are those from before the training.
        seconds: wall time of `retrieve`, of `rerank` if there is a reranker, and of `gate` if there is one.
        scores: what `evaluate` found, by its `metric_key_prefix`: `soft_em`, `exact_match` in percent and `n`.

    Raises:
        TypeError: `model` is a PEFT model already or of a kind that writes no text, or `args` are of another class.
        ValueError: `peft_config.task_type` is that of another kind of model.
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
        if not isinstance(retriever, Retriever):
            raise TypeError(
                f"Expected `retriever` to be a Retriever, found {type(retriever).__name__}. For an index, pass "
                "`DenseRetriever(index)`."
            )
        if reranker is not None and not isinstance(reranker, Reranker):
            raise TypeError(
                f"Expected `reranker` to be a Reranker, found {type(reranker).__name__}. Subclass `Reranker` and write "
                "`rank`, or load one with `CrossEncoderReranker.from_pretrained`."
            )
        if "train_dataset" in kwargs:
            raise TypeError("There is no `train_dataset` to pass: the examples to train on come from the retriever.")
        super().__init__(
            _adaptable_copy(model, peft_config, args.seed),
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
        self.scores: dict[str, dict[str, float]] = {}
        self._evaluations: dict[str, Evaluation] = {}
        self.gate: GateVerdict | None = None
        self.seconds: dict[str, float] = {}

    def retrieve(self) -> Dataset:
        """Retrieves |R| upstream examples for the query set and keeps them in `self.retrieved`."""
        inputs, num_retrieved = self.query_dataset["input"][:], self.args.num_retrieved
        self.seconds.clear()
        select = SELECTIONS[self.args.select_by]
        num_candidates = math.ceil(self.args.upsampling_ratio * num_retrieved) if self.selects else num_retrieved
        with self._timed("retrieve"):
            retrieved = self._agreed(lambda: self.retriever.retrieve(inputs, num_candidates))
        if self.reranker is not None:
            with self._timed("rerank"):
                reranked = self.reranker.rerank_in_processes(inputs, retrieved, num_retrieved, select=select)
                retrieved = self._agreed(lambda: reranked)
        elif self.selects:
            retrieved = select(retrieved, np.zeros(len(retrieved)), num_retrieved).remove_columns("score")
        self.retrieved = retrieved
        return retrieved

    @property
    def selects(self) -> bool:
        """Whether more candidates are retrieved than are learned from."""
        by_task = self.args.select_by == "task" and self.retriever.uses_inputs
        return self.reranker is not None or (by_task and self.args.upsampling_ratio > 1)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def _agreed(self, examples: Callable[[], Dataset]) -> Dataset:
        """What the main process finds: rounding must not make two processes train on different examples."""
        found = None
        if self.accelerator.is_main_process:
            dataset = examples()
            found = dataset.to_dict(), dataset.features
        columns, features = self._of_main_process(found)
        return Dataset.from_dict(columns, features=features)

    def _of_main_process(self, found: Any) -> Any:
        shared = [found]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(shared)
        return shared[0]

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Retrieves (unless [`retrieve`] was called), then trains on what was found.

        A checkpoint holds the retrieved examples, and a resumed run trains on those. With `args.safety_gate` the weights are
        afterwards the trained ones or those from before, as `self.gate` says.

        Raises:
            ValueError: the safety gate is asked for and the weights are spread over devices (FSDP, DeepSpeed), or too few
                examples were retrieved to hold one out.
        """
        checkpoint = checkpoint_to_resume(resume_from_checkpoint, self.args.output_dir)
        if checkpoint is not None:
            refuse_other_weights(checkpoint, is_peft=hasattr(self.model, "peft_config"))
            self.retrieved = self._retrieved_of(checkpoint)
        elif self.retrieved is None:
            self.retrieve()
        if not self.args.safety_gate:
            self.train_dataset = self.tokenize_for_training(self.retrieved)
            return super().train(resume_from_checkpoint=checkpoint, **kwargs)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        learned, held_out = hold_out(self.retrieved, self.args.gate_fraction, seed)
        self.train_dataset = self.tokenize_for_training(learned)
        with self._gated(held_out):
            return super().train(resume_from_checkpoint=checkpoint, **kwargs)

    def _arguments(self) -> dict[str, Any]:
        # Of others, the checkpoint's retrieved examples would be learned from, and said to be theirs.
        return super()._arguments() | {"queries": digest_of(self.query_dataset["input"][:])}

    @contextmanager
    def _gated(self, held_out: Dataset) -> Iterator[None]:
        """Compares the model before and after, and puts the weights back that it had before unless it is fit to stay."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                "Expected whole weights in each process for `safety_gate`, which puts them back, found them spread over devices by "
                "FSDP or DeepSpeed. Adapt with `peft_config` under plain data parallelism, or leave `safety_gate` out."
            )
        self.seconds.pop("gate", None)
        with self._timed("gate"):
            trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            before = [parameter.detach().to("cpu", copy=True) for parameter in trained]
            base = self._signs(held_out)
        yield
        with self._timed("gate"), torch.no_grad():
            self.gate = self._of_main_process(GateVerdict.on(base, self._signs(held_out), len(held_out)))
            if not self.gate.kept:
                for parameter, value in zip(trained, before, strict=True):
                    parameter.copy_(value)
                logger.warning("The base model's weights were put back. %s", self.gate.reason)

    def _signs(self, held_out: Dataset) -> GateSigns:
        inputs = list(dict.fromkeys(self.query_dataset["input"][:]))
        longest = self.args.max_target_length
        with self.accelerator.autocast():
            loss = token_loss(self.model, self.tokenize(held_out), self.data_collator)
            answers = generate_texts(
                self.model,
                self.processing_class,
                inputs,
                max_input_length=self.args.max_input_length,
                **self._decoding(),
            )
        # With an end token that it did not have, an answer that was cut is too long.
        ids = self.architecture.answer_ids(self.processing_class, answers, longest + 1)
        return GateSigns(loss, AnswerSigns.of(answers, [len(of_answer) for of_answer in ids], longest))

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
            if isinstance(eval_dataset, str):
                eval_dataset = self.eval_dataset[eval_dataset]
            evaluated = self.eval_dataset if eval_dataset is None else eval_dataset
            sets = list(evaluated.values()) if isinstance(evaluated, dict) else [evaluated]
            found = {name: metrics[f"{metric_key_prefix}_{name}"] for name in ("soft_em", "exact_match")}
            found["n"] = sum(map(len, sets))
            self.scores[metric_key_prefix] = found
            tasks = sorted(
                {task for examples in sets if "task" in examples.column_names for task in examples["task"][:]}
            )
            self._evaluations[metric_key_prefix] = Evaluation(
                **found, tasks=tasks, is_adapted=self.state.global_step > 0, is_mean=isinstance(evaluated, dict)
            )
        return metrics

    @property
    def adaptation(self) -> Adaptation:
        """How the model was adapted and how it does, for its card."""
        names = (*_SETTINGS, *(("upsampling_ratio", "select_by") if self.selects else ()))
        settings = {name: value for name in names if (value := getattr(self.args, name)) is not None}
        parts = {"retriever": self.retriever, "reranker": self.reranker}
        settings |= {name: type(part).__name__ for name, part in parts.items() if part is not None}
        settings |= {f"decoding: {name}": value for name, value in self.decoding.items()}
        return Adaptation(len(self.query_dataset), settings, dict(self._evaluations), self.gate)

    @property
    def _base_revision(self) -> str | None:
        """The commit of the Hub that the model was loaded at; transformers has no other name for it."""
        return getattr(self.model.config, "_commit_hash", None)

    def _retrieved_of(self, folder: str) -> Dataset:
        path = Path(folder) / RETRIEVED_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"Expected {RETRIEVED_FILE} in {folder}, found none: this is no checkpoint of an adaptation."
            )
        return read_parquet(path)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        for peft_config in getattr(self.model, "peft_config", {}).values():
            # PEFT names the base as it saves; of one that is named already it asks the Hub whether its vocabulary was resized.
            peft_config.base_model_name_or_path = None
            peft_config.revision = peft_config.revision or self._base_revision
        if self.retrieved is not None:  # first: it tells what the folder holds, also where a save is killed
            write_parquet(self.retrieved, Path(output_dir or self.args.output_dir) / RETRIEVED_FILE)
        super()._save(output_dir, state_dict)

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
            language: of the task.
            license: such as apache-2.0.
            tags: more of them.
            model_name: the title; the name on the Hub, or the folder's, by default.
            finetuned_from: the upstream model's name on the Hub; where it was loaded from by default.
            tasks: the type of task of the results; text-generation by default.
            dataset_tags: names on the Hub of data sets that belong to it; the first is that of the results.
            dataset: the name, for the results, of what was evaluated on; its tasks by default.
            dataset_args: the configuration of that.
        """
        if not self.is_world_process_zero():
            return
        if self.retrieved is None:
            super().create_model_card(
                language, license, tags, model_name, finetuned_from, tasks, dataset_tags, dataset, dataset_args
            )
            return
        path = Path(self.args.output_dir) / "README.md"
        card = adapted_model_card(
            self.hub_model_id or self.args.hub_model_id or path.parent.resolve().name,
            title=model_name,
            base_model=finetuned_from or self.model.config._name_or_path,
            base_revision=self._base_revision if finetuned_from in (None, self.model.config._name_or_path) else None,
            adaptation=self.adaptation,
            retrieved=self.retrieved,
            architecture=self.architecture,
            is_peft=hasattr(self.model, "peft_config"),
            license=license,
            language=language,
            tags=_as_list(tags),
            datasets=_as_list(dataset_tags),
            eval_task=_first(tasks) or "text-generation",
            eval_dataset=_first(dataset),
            eval_dataset_type=_first(dataset_tags),
            eval_dataset_config=_first(dataset_args),
        )
        write_atomically(path, lambda partial: partial.write_text(str(card), encoding="utf-8"))


def _as_list(values: str | list[str] | None) -> list[str]:
    return [values] if isinstance(values, str) else list(values or [])


def _first(values: str | list[str] | None) -> str | None:
    return next(iter(_as_list(values)), None)


def _adaptable_copy(model: PreTrainedModel, peft_config: PeftConfig | None, seed: int) -> PreTrainedModel:
    if hasattr(model, "peft_config"):
        raise TypeError(
            "Expected a model without adapters, found a PEFT model. Merge it (`model.merge_and_unload()`), or pass its "
            "base model and a `peft_config`."
        )
    task_type = architecture_of(model).peft_task_type
    if peft_config is not None and peft_config.task_type not in (None, task_type):
        raise ValueError(
            f"Expected a `peft_config` with task_type={task_type!r}, which suits {type(model).__name__}, found "
            f"{str(peft_config.task_type)!r}. Set `peft_config.task_type`."
        )
    if peft_config is not None:
        _check_target_modules(model, peft_config)
    # A whole copy, also for PEFT: sharing frozen weights with it would let a later merge change the caller's model.
    # What another trainer's precision put around its forward pass stays behind, and so does the mark that says so.
    adaptable = extract_model_from_parallel(copy.deepcopy(model), keep_fp32_wrapper=False)
    adaptable.__dict__.pop("_is_accelerate_prepared", None)
    if peft_config is None:
        # Steps of 1e-6 round to nothing in half precision; `bf16=True` computes in it and keeps these weights.
        return adaptable.float()
    from peft import get_peft_model

    set_seed(seed)  # of the adapter's first weights
    return get_peft_model(adaptable, copy.deepcopy(peft_config))  # PEFT writes into the one it is given


def _check_target_modules(model: PreTrainedModel, peft_config: PeftConfig) -> None:
    """PEFT passes over names that the model does not have, if it has another of them."""
    wanted = getattr(peft_config, "target_modules", None)
    if wanted is None or isinstance(wanted, str):  # PEFT's choice, or a regular expression, which it checks
        return
    names = [name for name, _ in model.named_modules()]
    missing = sorted(one for one in wanted if not any(name == one or name.endswith(f".{one}") for name in names))
    if missing:
        linear = {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D)
        }
        raise ValueError(
            f"Expected `target_modules` that {type(model).__name__} has, such as {', '.join(sorted(linear))}, found "
            f"{', '.join(map(repr, missing))}. Name some of those, or leave them out for PEFT's choice."
        )
