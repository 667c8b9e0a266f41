"""`train_reranker`: a cross-encoder learns from mined pairs which upstream examples help."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..core.distributed import process_state, warn_where_bfloat16_is_slow
from ..core.files import write_json
from ..training.arguments import RerankerTrainingArguments
from ..training.safe_push import SafePushTrainer
from .cross_encoder import CrossEncoderReranker, longest_pair
from .losses import Objective, binary, pairwise
from .metrics import roc_auc, spearman
from .pair_tokenizer import PairTokenizer
from .reranker import with_answer


def train_reranker(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    pairs: Dataset,
    args: RerankerTrainingArguments | None = None,
    *,
    eval_pairs: Dataset | None = None,
    objective: Objective = binary,
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
        model: any `AutoModelForSequenceClassification` with `num_labels=1`; trained where it is.
        processing_class: its tokenizer, a fast one that takes pairs.
        pairs: of [`mine_supervision`].
        args: settings; those of the authors' code by default.
        eval_pairs: pairs of other tasks ([`split_by_task`]), evaluated as `args.eval_strategy` says.
        objective: what to learn; see `objectives`.
    """
    trainer = RerankerTrainer(
        model,
        args or RerankerTrainingArguments(report_to="none"),
        train_dataset=pairs,
        eval_dataset=eval_pairs,
        processing_class=processing_class,
        objective=objective,
    )
    trainer.train()
    return trainer.reranker()


def split_by_task(
    pairs: Dataset, *, dev_tasks: Collection[str] | None = None, num_dev_tasks: int | None = None, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """Pairs to train on and pairs of held-out tasks to judge the reranker by: `(train, dev)`.

    In the training part no text of a held-out task is left, neither query nor candidate; held-out queries keep their
    candidates of other tasks, as those of an unseen task would.

    Args:
        dev_tasks: the tasks to hold out.
        num_dev_tasks: or how many, drawn at random.

    Raises:
        ValueError: a task is unknown, or one part would be empty.
    """
    if (dev_tasks is None) == (num_dev_tasks is None):
        raise TypeError("Expected `dev_tasks` or `num_dev_tasks`, one of them.")
    tasks = sorted(set(pairs["query_task"][:]))
    if dev_tasks is None:
        if not 0 < num_dev_tasks < len(tasks):
            raise ValueError(
                f"Expected `num_dev_tasks` to be between 1 and {len(tasks) - 1}, for there are {len(tasks)} query tasks, "
                f"found {num_dev_tasks}."
            )
        dev_tasks = np.random.default_rng(seed).choice(tasks, num_dev_tasks, replace=False).tolist()
    unknown = sorted(set(dev_tasks) - set(tasks))
    if unknown:
        raise ValueError(
            f"Expected to hold out query tasks, found {', '.join(unknown)}, which are none. Query tasks: {', '.join(tasks)}."
        )
    held_out = set(dev_tasks)
    tasks_of = list(zip(pairs["query_task"][:], pairs["candidate_task"][:], strict=True))
    train = [row for row, (query, candidate) in enumerate(tasks_of) if not {query, candidate} & held_out]
    dev = [row for row, (query, _) in enumerate(tasks_of) if query in held_out]
    if not train or not dev:
        raise ValueError(f"Expected pairs on both sides, found {len(train)} to train on and {len(dev)} held out.")
    return pairs.select(train), pairs.select(dev)


def evaluate_reranker(reranker: CrossEncoderReranker, pairs: Dataset) -> dict[str, float]:
    """How well a reranker finds what helps, beside the retriever's own order; means over query sets.

    Under `accelerate launch` the sets are spread over the processes; each must call it.

    Returns:
        `auc` (chance: 0.5), `accuracy` of calling a set's upper half positive (chance: 0.5) and `spearman` with the utility
            (chance: 0), all of each candidate's score for the whole set and over the labelled candidates alone; `dense_auc`,
            `dense_accuracy` and `dense_spearman` of the order in which candidates were chosen, the dense retriever's unless an
            earlier reranker chose them; `num_sets`.
    """
    state = process_state()
    sets = _rows_by_set(pairs)  # by number and task: two runs of mining both count from 0
    mine = [
        (number, _metrics_of_set(reranker, pairs.select(rows)))
        for place, (number, rows) in enumerate(sets.items())
        if place % state.num_processes == state.process_index
    ]
    found = mine if state.num_processes == 1 else gather_object(mine)
    metrics = [values for _, values in sorted(found, key=lambda item: item[0])]
    means = {name: float(np.nanmean([values[name] for values in metrics])) for name in metrics[0]}
    return means | {"num_sets": len(metrics)}


def _rows_by_set(pairs: Dataset) -> dict[tuple[int, str], list[int]]:
    rows: dict[tuple[int, str], list[int]] = {}
    for row, key in enumerate(zip(pairs["set"][:], pairs["query_task"][:], strict=True)):
        rows.setdefault(key, []).append(row)
    if not rows:
        raise ValueError("Expected at least one pair, found none.")
    return rows


def _metrics_of_set(reranker: CrossEncoderReranker, pairs: Dataset) -> dict[str, float]:
    columns = pairs.to_dict()
    queries = list(dict.fromkeys(columns["query"]))
    first = {id_: row for row, id_ in reversed(list(enumerate(columns["candidate_id"])))}
    rows = list(first.values())
    labels, utilities, ranks = (
        np.array([columns[name][row] for row in rows]) for name in ("label", "utility", "rank")
    )
    texts = [
        _candidate_text(columns["candidate"][row], columns["answer"][row], reranker.include_answers) for row in rows
    ]
    joined = reranker.rank(queries, texts)
    return {
        "accuracy": _accuracy(joined, labels),
        "auc": roc_auc(joined, labels),
        "spearman": spearman(joined, utilities),
        "dense_accuracy": _accuracy(-ranks, labels),
        "dense_auc": roc_auc(-ranks, labels),
        "dense_spearman": spearman(-ranks, utilities),
    }


def _accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(((scores > np.median(scores)) == (labels == 1)).mean())


def _candidate_text(text: str, answer: str, include_answers: bool) -> str:
    return with_answer(text, answer) if include_answers else text


class RerankerTrainer(SafePushTrainer):
    """Trains a cross-encoder on mined pairs.

    Args:
        model: any `AutoModelForSequenceClassification` with `num_labels=1`.
        args: a [`RerankerTrainingArguments`].
        train_dataset: pairs of [`mine_supervision`].
        eval_dataset: pairs of held-out tasks; `evaluate` gives the figures of [`evaluate_reranker`].
        processing_class: the model's tokenizer, a fast one that takes pairs.
        objective: what to learn; see `objectives`.
        kwargs: what `Trainer` takes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: RerankerTrainingArguments,
        *,
        processing_class: PreTrainedTokenizerBase,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        objective: Objective = binary,
        **kwargs: Any,
    ) -> None:
        if not isinstance(args, RerankerTrainingArguments):
            raise TypeError(f"Expected `args` to be a RerankerTrainingArguments, found {type(args).__name__}.")
        if objective is pairwise and not args.group_by_query:
            raise ValueError(
                "Expected `group_by_query=True` with the pairwise objective: at random, hardly two candidates of one query meet in a "
                "batch. Set it, or choose another objective."
            )
        for name in ("compute_metrics", "data_collator", "compute_loss_func"):
            if name in kwargs:
                raise TypeError(
                    f"There is no `{name}` to pass: pairs are scored by `evaluate_reranker`, losses by `objective`."
                )
        if args.label_smoothing_factor:
            raise ValueError("`label_smoothing_factor` is not used: pass an `objective` that smooths.")
        # transformers loads a checkpoint in the dtype that it was saved in; steps of 1e-5 round to nothing in half precision.
        if model.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(
                f"Expected weights in float32, found {model.dtype}. Load the model with `dtype=torch.float32`; `bf16=True` computes "
                "in half precision and keeps the weights."
            )
        if args.device.type == "cpu":
            args.dataloader_pin_memory = False
        if args.bf16:
            warn_where_bfloat16_is_slow(args.device.type)
        args.remove_unused_columns = False
        if train_dataset is not None:
            model.config.query_tasks = sorted(set(train_dataset["query_task"][:]))  # saved with it, for its card
        max_length = min(args.max_length, longest_pair(model, processing_class))
        self._settings = {"max_length": max_length, "include_answers": args.include_answers}
        # Made once before, so that a model of which none can be made is refused now and not after the training.
        self.pair_tokenizer = CrossEncoderReranker(model, processing_class, **self._settings).pair_tokenizer
        self.objective = objective
        # The loss below is a mean over the batch and does not divide by what the base class infers from **kwargs.
        model.accepts_loss_kwargs = False
        super().__init__(
            model=model,
            args=args,
            data_collator=self._collate,
            train_dataset=_TokenizedPairs(train_dataset, self.pair_tokenizer, args.include_answers)
            if train_dataset is not None
            else None,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )

    def reranker(self) -> CrossEncoderReranker:
        """The reranker with the weights as they are now."""
        model = self.accelerator.unwrap_model(self.model)
        return CrossEncoderReranker(model, self.processing_class, **self._settings)

    def evaluate(
        self,
        eval_dataset: Dataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """The figures of [`evaluate_reranker`], with a prefix."""
        pairs = self.eval_dataset if eval_dataset is None else eval_dataset
        if pairs is None:
            raise ValueError(
                "Expected pairs to evaluate on, found none. Pass `eval_dataset` here or to the constructor."
            )
        found = evaluate_reranker(self.reranker(), pairs)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
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
        """The objective on the scores of a batch."""
        targets = [inputs.pop(name) for name in ("label", "utility", "query")]
        outputs = model(**inputs)
        loss = self.objective(outputs.logits[:, 0].float(), *targets)
        return (loss, outputs) if return_outputs else loss

    def _collate(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pairs = [{name: item[name] for name in item if name in ("input_ids", "token_type_ids")} for item in items]
        batch = self.pair_tokenizer.pad(pairs)
        batch["label"] = torch.tensor([item["label"] for item in items], dtype=torch.float32)
        batch["utility"] = torch.tensor([item["utility"] for item in items], dtype=torch.float32)
        batch["query"] = torch.tensor([item["query"] for item in items])
        return batch

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.group_by_query:
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return _QuerySampler(dataset.query_of, seed)
        return super()._get_train_sampler(dataset)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        self.reranker().save_pretrained(folder)
        write_json(folder / "training_args.json", json.loads(self.args.to_json_string()))


class _TokenizedPairs(torch.utils.data.Dataset):
    """Pairs as token ids; each distinct text is tokenised once, and pairs are joined when they are asked for."""

    def __init__(self, pairs: Dataset, pair_tokenizer: PairTokenizer, include_answers: bool) -> None:
        columns = pairs.to_dict()
        self.pair_tokenizer = pair_tokenizer
        candidates = [
            _candidate_text(text, answer, include_answers)
            for text, answer in zip(columns["candidate"], columns["answer"], strict=True)
        ]
        place_of = {text: place for place, text in enumerate(dict.fromkeys([*columns["query"], *candidates]))}
        self.token_ids = pair_tokenizer.tokenize(list(place_of))
        self.first = [place_of[text] for text in columns["query"]]
        self.second = [place_of[text] for text in candidates]
        self.labels = columns["label"]
        self.utilities = _standardized(np.array(columns["utility"]), _rows_by_set(pairs))
        queries = list(zip(columns["set"], columns["query"], strict=True))
        number_of = {query: number for number, query in enumerate(dict.fromkeys(queries))}
        self.query_of = [number_of[query] for query in queries]

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, item: int) -> dict[str, Any]:
        joined = self.pair_tokenizer.join(self.token_ids[self.first[item]], self.token_ids[self.second[item]])
        return joined | {
            "label": self.labels[item],
            "utility": self.utilities[item],
            "query": self.query_of[item],
        }


def _standardized(utilities: np.ndarray, rows_of: dict[Any, list[int]]) -> np.ndarray:
    """Utilities less their set's mean, in units of its standard deviation."""
    result = np.zeros(len(utilities))
    for rows in rows_of.values():
        of_set = utilities[rows]
        if np.ptp(of_set) > 0:  # the deviation of equal numbers need not be 0 in floating point
            result[rows] = (of_set - of_set.mean()) / of_set.std()
    return result


class _QuerySampler(torch.utils.data.Sampler[int]):
    """All pairs of one query after another, the queries in an order that changes with the epoch."""

    def __init__(self, query_of: list[int], seed: int) -> None:
        self.rows: dict[int, list[int]] = {}
        for row, query in enumerate(query_of):
            self.rows.setdefault(query, []).append(row)
        self.num_pairs, self.seed, self.epoch = len(query_of), seed, 0

    def __len__(self) -> int:
        return self.num_pairs

    def __iter__(self) -> Iterator[int]:
        queries = list(self.rows)
        for place in np.random.default_rng([self.seed, self.epoch]).permutation(len(queries)):
            yield from self.rows[queries[place]]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
