"""Distant supervision: which upstream examples help on which queries, found by trying them out (Algorithm 1).

The data flow, top to bottom: sample a query set of a task, retrieve candidates of other tasks, fine-tune on groups of
them, take the loss on held-out examples, and label the best and the worst candidates. A set is one row of a shard on disk;
pairs for a reranker are made of the sets.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..core.distributed import process_state
from ..core.files import read_json, write_json, write_parquet
from ..core.hashing import weights_hash
from ..core.output_folders import check_apart, check_not_of_others
from ..data.schema import ExampleError, column_hash
from ..reranking.cross_encoder import CrossEncoderReranker
from ..reranking.reranker import Reranker
from ..retrieval.retriever import Retriever
from .arguments import SupervisionArguments
from .group_trainer import GroupTrainer
from .pairs import label_pairs
from .query_sets import SET_FEATURES, SETTINGS_FILE, load_query_sets, path_of, read_set
from .utility import Judge, by_groups

if TYPE_CHECKING:
    from peft import PeftConfig

logger = logging.getLogger(__name__)


def mine_supervision(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    retriever: Retriever,
    examples: Dataset,
    output_dir: str | Path,
    args: SupervisionArguments | None = None,
    *,
    judge: Judge = by_groups,
    reranker: Reranker | None = None,
    exclude_tasks: Collection[str] = (),
    peft_config: PeftConfig | None = None,
) -> Dataset:
    """Mines pairs of a query and an upstream example, labelled by whether the example helps (paper, Algorithm 1).

    ```python
    pairs = mine_supervision(model, tokenizer, DenseRetriever(index), index.dataset, "supervision")
    pairs.to_pandas().groupby(["query_task", "candidate_task"]).utility.mean()
    ```

    Each query set is written when it is done. A killed run continues when it is called again with the same arguments, and
    ends in the same data; more query sets, another `num_labelled` or `label_by` can be asked for later. Under `accelerate launch` the
    sets are spread over the processes.

    Args:
        model: the upstream model; fine-tuned in place and put back.
        processing_class: its tokenizer.
        retriever: finds candidates; each set's own task is excluded.
        examples: upstream examples to draw queries and held-out examples from, e.g. what was indexed.
        output_dir: the folder of the sets.
        args: settings; Algorithm 1 without the faults of the authors' code by default.
        judge: how candidates are judged: `judges.by_groups`, the paper's way, or `judges.by_reversal`.
        reranker: of an earlier iteration: it chooses the candidates among `upsampling_ratio` times as many.
        exclude_tasks: tasks neither queried nor retrieved: targets, or tasks that a reranker is to be judged on.
        peft_config: fine-tune an adapter on each group in place of all weights.

    Returns:
        The pairs of [`label_pairs`].

    Raises:
        ExampleError: no task has enough examples.
        ValueError: an excluded task is unknown, or the folder holds sets of another model, data or settings.
    """
    if isinstance(exclude_tasks, str):
        raise TypeError("Expected `exclude_tasks` to be a collection of strings, found one string. Pass a list.")
    args = args or SupervisionArguments()
    folder, state = Path(output_dir), process_state()
    check_apart(folder, {"the upstream model": model.name_or_path})
    check_not_of_others(folder, SETTINGS_FILE, overwritten=("README.md",))
    rows_of = _rows_by_task(examples, args, exclude_tasks)
    unknown = set(exclude_tasks) - {*examples.unique("task"), *retriever.upstream.unique("task")}
    if unknown:
        raise ValueError(f"Expected to exclude tasks of the data, found {', '.join(sorted(unknown))}, which are none.")
    retriever = retriever.excluding(exclude_tasks)
    if state.is_main_process:
        settings = _settings(model, retriever, examples, args, judge, reranker, exclude_tasks, peft_config)
        _check_settings(folder, settings)
    state.wait_for_everyone()
    missing: list[Any] = [None]
    if state.is_main_process:
        missing = [[number for number in range(args.num_query_sets) if read_set(folder, number) is None]]
    if state.num_processes > 1:  # one of them looks, for the others may be writing already
        broadcast_object_list(missing)
    mine = missing[0][state.process_index :: state.num_processes]
    miner = _Miner(retriever, examples, rows_of, args, reranker, judge)
    if mine:
        progress = tqdm(
            total=len(mine) * miner.groups_a_set,
            desc=f"Mining {len(missing[0])} of {args.num_query_sets} query sets",
            unit="group",
            disable=not state.is_main_process,
        )
        with GroupTrainer(model, processing_class, args, peft_config=peft_config) as trainer:
            for number in mine:
                row = Dataset.from_list([miner.mine(number, trainer, progress)], features=SET_FEATURES)
                write_parquet(row, path_of(folder, number))
        progress.close()
    state.wait_for_everyone()
    sets = load_query_sets(folder)
    return label_pairs(sets.select(range(args.num_query_sets)), args.num_labelled, by=args.label_by)


# ---- one query set ---------------------------------------------------------------------------------------------------


class _Miner:
    """Algorithm 1 for one query set; what it draws depends on the seed and the set's number alone."""

    def __init__(
        self,
        retriever: Retriever,
        examples: Dataset,
        rows_of: dict[str, np.ndarray],
        args: SupervisionArguments,
        reranker: Reranker | None,
        judge: Judge,
    ) -> None:
        self.retriever = retriever
        self.examples = examples
        self.rows_of = rows_of
        self.args = args
        self.reranker = reranker
        self.judge = judge
        self.retrievable = retriever.tasks

    def task_of(self, number: int) -> str:
        """Tasks take turns, each time in another order."""
        turn, place = divmod(number, len(self.rows_of))
        order = np.random.default_rng([self.args.seed, 1, turn]).permutation(len(self.rows_of))
        return sorted(self.rows_of)[order[place]]

    def mine(self, number: int, trainer: GroupTrainer, progress: tqdm) -> dict[str, Any]:
        args, task = self.args, self.task_of(number)
        rng = np.random.default_rng([args.seed, 0, number])
        drawn = rng.choice(self.rows_of[task], args.num_queries + args.num_held_out, replace=False)
        queries, held_out = (self._select(drawn[part]) for part in np.split(np.arange(len(drawn)), [args.num_queries]))
        mined = {
            "set": number,
            "task": task,
            "queries": queries["input"][:],
            "query_ids": queries["id"][:],
            "held_out_ids": held_out["id"][:],
            "base_loss": None,
            "candidates": [],
            "diverged_groups": 0,
        }
        start = progress.n
        retrieved = self._retrieve(queries["input"][:], task)
        mined |= self._judge(retrieved, held_out, trainer, rng, progress)
        progress.update(start + self.groups_a_set - progress.n)  # what a set with fewer candidates has spared
        if mined["skipped"]:
            logger.warning("Query set %d (%s) is skipped: %s.", number, task, mined["skipped"])
        return mined

    @property
    def groups_a_set(self) -> int:
        return self.args.num_rounds * -(-self.args.num_candidates // self.args.group_size)

    def _select(self, rows: np.ndarray) -> Dataset:
        return self.examples.select(rows)

    def _retrieve(self, inputs: list[str], task: str) -> Dataset:
        """Distinct candidates of other tasks, in the retriever's order or the reranker's."""
        args, retriever = self.args, self.retriever
        num_kept = num_retrieved = args.num_candidates
        if self.reranker is not None:
            num_retrieved = math.ceil(args.upsampling_ratio * num_kept)
        if task in self.retrievable and not args.retrieve_own_task:
            if len(self.retrievable) == 1:
                return retriever.upstream.select([])
            retriever = retriever.excluding([task])
        retrieved = _retrieve_distinct(retriever, inputs, num_retrieved)
        if args.retrieve_own_task:
            retrieved = retrieved.select([row for row, other in enumerate(retrieved["task"][:]) if other != task])
        if self.reranker is not None and len(retrieved):
            return self.reranker.rerank(inputs, retrieved, num_kept)
        return retrieved

    def _judge(
        self,
        retrieved: Dataset,
        held_out: Dataset,
        trainer: GroupTrainer,
        rng: np.random.Generator,
        progress: tqdm,
    ) -> dict[str, Any]:
        """What the judge says of each candidate."""
        args, num_candidates = self.args, len(retrieved)
        # However they are labelled: they may be labelled in another way later.
        if num_candidates <= args.group_size:
            return {
                "skipped": "too few candidates of other tasks" if num_candidates else "no candidates of other tasks"
            }
        judgement = self.judge(
            trainer, trainer.tokenize(retrieved), trainer.tokenize(held_out), args, rng, progress.update
        )
        if not math.isfinite(judgement.base_loss):
            return {"skipped": "the upstream model's own loss is not finite"}
        utilities = np.where(np.isfinite(judgement.utilities), judgement.utilities, np.nan)
        judged = np.flatnonzero(np.isfinite(utilities).any(axis=1))
        rows = retrieved.select(judged)
        return {
            "base_loss": judgement.base_loss,
            "diverged_groups": judgement.num_diverged,
            "skipped": "" if len(judged) else "every group diverged",
            "candidates": [
                {
                    "id": example["id"],
                    "task": example["task"],
                    "input": example["input"],
                    "answer": example["references"][0],
                    "rank": int(rank),
                    "utility": float(np.nanmean(utilities[rank])),
                    "utilities": utilities[rank].tolist(),
                }
                for rank, example in zip(judged, rows, strict=True)
            ],
        }


def _retrieve_distinct(retriever: Retriever, inputs: list[str], num_retrieved: int) -> Dataset:
    """Retrieves more until `num_retrieved` are distinct; an example that is near to several queries comes back often."""
    asked = num_retrieved
    while True:
        found = retriever.retrieve(inputs, asked)
        first = np.sort(np.unique(found["id"][:], return_index=True)[1])
        if len(first) >= num_retrieved or len(found) < asked or asked >= len(inputs) * num_retrieved:
            return found.select(first[:num_retrieved])
        asked *= 2


def _rows_by_task(examples: Dataset, args: SupervisionArguments, excluded: Collection[str]) -> dict[str, np.ndarray]:
    """Rows of the tasks that have enough examples for a query set."""
    missing = [name for name in ("id", "task", "input", "references") if name not in examples.column_names]
    if missing:
        raise ExampleError(
            f"Expected the columns id, task, input and references, found {', '.join(examples.column_names)}. Read the data "
            "with `load_examples`."
        )
    column = examples.select_columns("task").with_format("arrow")[:]["task"].combine_chunks().dictionary_encode()
    names, codes = column.dictionary.to_pylist(), column.indices.to_numpy()
    needed = args.num_queries + args.num_held_out
    code_of = {name: code for code, name in enumerate(names)}
    counts = np.bincount(codes, minlength=len(names))
    allowed = {name: int(counts[code]) for name, code in sorted(code_of.items()) if name not in excluded}
    short = {name: count for name, count in allowed.items() if count < needed}
    if short:
        logger.warning(
            "%d of %d tasks have fewer than %d examples (num_queries + num_held_out) and are not mined: %s.",
            len(short),
            len(allowed),
            needed,
            ", ".join(f"{name} ({count})" for name, count in short.items()),
        )
    if len(short) == len(allowed):
        raise ExampleError(
            f"Expected a task with at least {args.num_queries} + {args.num_held_out} = {needed} examples (num_queries + "
            f"num_held_out), found {', '.join(f'{name} ({count})' for name, count in short.items()) or 'no task'}. Lower "
            "`num_held_out`, or bring more examples."
        )
    return {name: np.flatnonzero(codes == code_of[name]) for name in allowed if name not in short}


# ---- the folder of a run -----------------------------------------------------------------------------------------------


def _settings(
    model: PreTrainedModel,
    retriever: Retriever,
    examples: Dataset,
    args: SupervisionArguments,
    judge: Judge,
    reranker: Reranker | None,
    exclude_tasks: Collection[str],
    peft_config: PeftConfig | None,
) -> dict[str, Any]:
    """What the sets depend on, as JSON values: all but how many there are and how they are labelled."""
    settings = dataclasses.asdict(args)
    del settings["num_query_sets"], settings["num_labelled"], settings["label_by"]
    of_reranker = reranker.identity() if isinstance(reranker, CrossEncoderReranker) else type(reranker).__name__
    probe = retriever.retrieve(examples.select([0, len(examples) - 1])["input"][:], min(8, retriever.num_allowed))
    settings |= {
        "model": weights_hash(model),
        "examples": [column_hash(examples, name) for name in ("id", "input", "references")],
        "upstream": [column_hash(retriever.upstream, name) for name in ("id", "input", "references")],
        "retriever": [type(retriever).__name__, *sorted(probe["id"][:])],  # known by what it finds
        "judge": getattr(judge, "__qualname__", type(judge).__qualname__),
        "num_trainable": sum(parameter.requires_grad for parameter in model.parameters()),
        "reranker": of_reranker if reranker is not None else None,
        "exclude_tasks": sorted(exclude_tasks),
        "peft_config": peft_config.to_dict() if peft_config is not None else None,
    }
    return json.loads(
        json.dumps(settings, default=lambda value: sorted(value) if isinstance(value, set) else str(value))
    )


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / SETTINGS_FILE
    if not path.is_file():
        write_json(path, settings)
        return
    found = read_json(path)
    differing = [name for name in sorted({*settings, *found}) if settings.get(name) != found.get(name)]
    if differing:
        raise ValueError(
            f"{folder} holds query sets that were mined with another {', '.join(differing)}. Mine with the same, or choose "
            "another folder."
        )
    logger.warning("Continuing the mining in %s.", folder)
