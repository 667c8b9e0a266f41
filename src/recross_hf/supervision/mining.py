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
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from accelerate.utils import broadcast_object_list
from datasets import Dataset, Features, List, Value
from datasets.table import InMemoryTable
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..core.distributed import process_state
from ..core.files import read_json, write_json, write_parquet
from ..core.weights import weights_hash
from ..data.readers import ExampleError, take_rows, without_index
from ..reranking.cross_encoder import CrossEncoderReranker
from ..reranking.reranker import Reranker
from ..retrieval.index import column_hash
from ..retrieval.retriever import Retriever
from ..training.arguments import SupervisionArguments
from .group_trainer import GroupTrainer
from .utility import Judge, by_groups

if TYPE_CHECKING:
    from peft import PeftConfig

logger = logging.getLogger(__name__)

SETTINGS_FILE, SETS_FOLDER = "supervision.json", "query_sets"

CANDIDATE_FEATURES = {
    "id": Value("string"),
    "task": Value("string"),
    "input": Value("string"),
    "answer": Value("string"),
    "rank": Value("int64"),
    "utility": Value("float64"),
    "utilities": List(Value("float64")),
}
SET_FEATURES = Features(
    {
        "set": Value("int64"),
        "task": Value("string"),
        "queries": List(Value("string")),
        "query_ids": List(Value("string")),
        "held_out_ids": List(Value("string")),
        "base_loss": Value("float64"),
        "candidates": List(CANDIDATE_FEATURES),
        "diverged_groups": Value("int64"),
        "skipped": Value("string"),
    }
)
"""A mined query set. A candidate's `utilities` are those of each round (NaN: diverged), its `utility` is their mean; `rank` is its
place in the order in which candidates were chosen, the retriever's or that of an earlier reranker; `skipped` says why a set has no candidates, else it is empty."""

PAIR_FEATURES = Features(
    {
        "set": Value("int64"),
        "query": Value("string"),
        "candidate": Value("string"),
        "label": Value("int64"),
        "utility": Value("float64"),
        "query_task": Value("string"),
        "candidate_task": Value("string"),
        "query_id": Value("string"),
        "candidate_id": Value("string"),
        "answer": Value("string"),
        "rank": Value("int64"),
    }
)
"""A pair to train a reranker on: `label` 1 (helps) or 0, `rank` as in the set."""


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
        missing = [[number for number in range(args.num_query_sets) if _read_set(folder, number) is None]]
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
                write_parquet(row, _path_of(folder, number))
        progress.close()
    state.wait_for_everyone()
    sets = load_query_sets(folder)
    return label_pairs(sets.select(range(args.num_query_sets)), args.num_labelled, by=args.label_by)


def load_query_sets(output_dir: str | Path) -> Dataset:
    """The query sets that were mined into a folder, by their number.

    Raises:
        FileNotFoundError: there are none.
    """
    folder = Path(output_dir)
    numbers = sorted(int(path.stem) for path in (folder / SETS_FOLDER).glob("[0-9]*.parquet"))
    tables = [table for number in numbers if (table := _read_set(folder, number)) is not None]
    if not tables:
        raise FileNotFoundError(f"Expected mined query sets in {folder / SETS_FOLDER}, found none. Mine some first.")
    schema = SET_FEATURES.arrow_schema
    return Dataset(InMemoryTable(pa.concat_tables(table.cast(schema) for table in tables)))


def label_pairs(sets: Dataset, num_labelled: int, *, by: str = "example") -> Dataset:
    """Each set's queries with its `num_labelled` best candidates (label 1) and as many worst (label 0).

    Half the number of candidates labels them all. Sets with fewer than twice `num_labelled` candidates are left out.

    Args:
        sets: of [`load_query_sets`].
        num_labelled: W.
        by: "example": by each candidate's own utility (Algorithm 1). "task": by the mean utility of the candidates of its task,
            among them one more of no utility, so that a task of few candidates is neither best nor worst by chance.

    Returns:
        The pairs; their `utility` is what they were labelled by.

    Raises:
        ValueError: no set is left, or `by` is neither.
    """
    if by not in ("example", "task"):
        raise ValueError(f"Expected `by` to be 'example' or 'task', found {by!r}.")
    columns: dict[str, list[Any]] = {name: [] for name in PAIR_FEATURES}
    num_short = 0
    for row in sets:
        # Best first; among equals, what was retrieved first.
        candidates = _of_their_tasks(row["candidates"]) if by == "task" else row["candidates"]
        ordered = sorted(candidates, key=lambda candidate: (-candidate["utility"], candidate["rank"]))
        if len(ordered) < 2 * num_labelled:
            num_short += 1
            continue
        labelled = [(candidate, 1) for candidate in ordered[:num_labelled]]
        labelled += [(candidate, 0) for candidate in ordered[-num_labelled:]]
        for query, query_id in zip(row["queries"], row["query_ids"], strict=True):
            for candidate, label in labelled:
                pair = {
                    "set": row["set"],
                    "query": query,
                    "candidate": candidate["input"],
                    "label": label,
                    "utility": candidate["utility"],
                    "query_task": row["task"],
                    "candidate_task": candidate["task"],
                    "query_id": query_id,
                    "candidate_id": candidate["id"],
                    "answer": candidate["answer"],
                    "rank": candidate["rank"],
                }
                for name, value in pair.items():
                    columns[name].append(value)
    if num_short:
        logger.warning(
            "%d of %d query sets have fewer than 2 x %d candidates and are left out.",
            num_short,
            len(sets),
            num_labelled,
        )
    if not columns["set"]:
        raise ValueError(
            f"Expected query sets with at least 2 x {num_labelled} candidates, found none among {len(sets)}: "
            f"{_reasons(sets) or 'all have fewer'}. Mine with more candidates, or label fewer of them."
        )
    return Dataset.from_dict(columns, features=PAIR_FEATURES)


def _of_their_tasks(candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The candidates with the mean utility of their task in place of their own."""
    number = Counter(candidate["task"] for candidate in candidates)
    total: dict[str, float] = dict.fromkeys(number, 0.0)
    for candidate in candidates:
        total[candidate["task"]] += candidate["utility"]
    return [
        candidate | {"utility": total[candidate["task"]] / (number[candidate["task"]] + 1)} for candidate in candidates
    ]


def summarize_supervision(sets: Dataset) -> dict[str, Any]:
    """What was mined, as JSON values.

    `reliability` is the correlation of a set's candidates' utilities in one round with those in the next (mean over sets): 0 where
    a round says nothing of a candidate, 1 where it says all. In groups a candidate shares its round with the others of its group,
    so that twenty of a hundred leave little; the mean over rounds is somewhat better than one round. `task_pairs` says which upstream task helps
    which: mean utility and number of candidates, most helpful first.
    """
    rows = [row for row in sets if not row["skipped"]]
    utilities = np.array([candidate["utility"] for row in rows for candidate in row["candidates"]])
    of_pair: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for candidate in row["candidates"]:
            of_pair.setdefault((row["task"], candidate["task"]), []).append(candidate["utility"])
    task_pairs = [
        {"query_task": query, "candidate_task": other, "num_candidates": len(found), "utility": float(np.mean(found))}
        for (query, other), found in of_pair.items()
    ]
    reliabilities = [value for row in rows if (value := _reliability(row)) is not None]
    return {
        "num_sets": len(sets),
        "num_mined": len(rows),
        "skipped": dict(Counter(row["skipped"] for row in sets if row["skipped"])),
        "diverged_groups": sum(row["diverged_groups"] for row in sets),
        "num_query_tasks": len({row["task"] for row in rows}),
        "num_candidates": len(utilities),
        "base_loss": float(np.mean([row["base_loss"] for row in rows])) if rows else None,
        "utility_mean": float(utilities.mean()) if len(utilities) else None,
        "utility_std": float(utilities.std()) if len(utilities) else None,
        "share_helpful": float((utilities > 0).mean()) if len(utilities) else None,
        "reliability": float(np.mean(reliabilities)) if reliabilities else None,
        "task_pairs": sorted(task_pairs, key=lambda pair: -pair["utility"]),
    }


def _reliability(row: dict[str, Any]) -> float | None:
    utilities = np.array([candidate["utilities"] for candidate in row["candidates"]])
    utilities = utilities[np.isfinite(utilities).all(axis=1)]
    if utilities.ndim != 2 or utilities.shape[1] < 2 or len(utilities) < 3 or (utilities.std(axis=0) == 0).any():
        return None
    # Rounds two by two: those of `by_reversal` then have no held-out example in common.
    first, second = utilities[:, 0:-1:2], utilities[:, 1::2]
    return float(np.mean([np.corrcoef(one, other)[0, 1] for one, other in zip(first.T, second.T, strict=True)]))


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
        return take_rows(self.examples, rows)

    def _retrieve(self, inputs: list[str], task: str) -> Dataset:
        """Distinct candidates of other tasks, in the retriever's order or the reranker's."""
        args, retriever = self.args, self.retriever
        num_kept = num_retrieved = args.num_candidates
        if self.reranker is not None:
            num_retrieved = math.ceil(args.upsampling_ratio * num_kept)
        if task in self.retrievable and not args.retrieve_own_task:
            if len(self.retrievable) == 1:
                return take_rows(retriever.upstream, [])
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
        rows = take_rows(retrieved, judged)
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
    column = (
        without_index(examples)
        .select_columns("task")
        .with_format("arrow")[:]["task"]
        .combine_chunks()
        .dictionary_encode()
    )
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
    probe = retriever.retrieve(take_rows(examples, [0, len(examples) - 1])["input"][:], min(8, retriever.num_allowed))
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


def _path_of(folder: Path, number: int) -> Path:
    return folder / SETS_FOLDER / f"{number:06d}.parquet"


def _read_set(folder: Path, number: int) -> pa.Table | None:
    path = _path_of(folder, number)
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError):
        table = None
    if table is None or table.column_names != list(SET_FEATURES) or len(table) != 1:
        logger.warning("%s is damaged: this query set is mined again.", path)
        return None
    return table


def _reasons(sets: Dataset) -> str:
    counts = Counter(row for row in sets["skipped"][:] if row)
    return ", ".join(f"{reason} ({count})" for reason, count in counts.items())
