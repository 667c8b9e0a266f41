"""Distant supervision: mining finds, by trying them out, which upstream examples help on which queries (Algorithm 1).

The data flow: `sampling` draws a query set of a task, `candidates` retrieves examples of other tasks, a function of `utility` estimates
how much each helps, `miner` makes a row of that, and `pairs` labels the best and the worst candidates. Each set is a file of
its own; `settings` says whether a run may go on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..adaptation.model_copy import adaptable_copy
from ..core.claims import shared_out
from ..core.deprecation import renamed_argument
from ..core.distributed import process_state
from ..core.files import write_parquet
from ..core.output_folders import check_apart, check_not_of_others, folder_to_write
from ..core.progress import progress_bar
from ..models.adapters import is_peft_model
from ..models.base import check_finite_weights
from ..reranking.reranker import Reranker
from ..retrieval.retriever import Retriever
from .arguments import SupervisionArguments
from .candidates import CandidateSource
from .group_trainer import GroupTrainer
from .miner import QuerySetMiner
from .pairs import label_pairs
from .query_sets import SET_FEATURES, SETTINGS_FILE, load_query_sets, path_of, read_set
from .sampling import QuerySetSampler
from .settings import check_settings, mining_settings
from .utility import UtilityEstimator, by_groups

if TYPE_CHECKING:
    from peft import PeftConfig


# More than half of its lines document its arguments.
def mine_supervision(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    retriever: Retriever,
    examples: Dataset,
    output_dir: str | Path,
    args: SupervisionArguments | None = None,
    *,
    utility_estimator: UtilityEstimator = by_groups,
    reranker: Reranker | None = None,
    exclude_tasks: Collection[str] = (),
    peft_config: PeftConfig | None = None,
    judge: UtilityEstimator | None = None,
) -> Dataset:
    """Mines pairs of a query and an upstream example, labelled by whether the example helps (paper, Algorithm 1).

    ```python
    pairs = mine_supervision(model, tokenizer, DenseRetriever(index), index.dataset, "supervision")
    pairs.to_pandas().groupby(["query_task", "candidate_task"]).utility.mean()
    ```

    Each query set is written when it is done. A killed run continues when it is called again with the same arguments, and
    ends in the same data; more query sets, another `num_labelled` or `label_by` can be asked for later. Processes that call it with the
    same arguments at the same time, those of `accelerate launch` or of several machines, share the sets; each returns when all are mined.

    Args:
        model: Upstream model; it is fine-tuned in place and put back. Of one with a PEFT adapter, a copy is fine-tuned into whose weights the
            adapter is merged; of one in half precision, a copy in float32, unless a `peft_config` is given.
        processing_class: Tokenizer of the model.
        retriever: Retriever of the candidates; each set's own task is excluded.
        examples: Upstream examples to draw queries and held-out examples from, such as those of the index.
        output_dir: Folder of the query sets.
        args: Settings of the mining; by default Algorithm 1 without the faults of the authors' code.
        utility_estimator: Function that estimates how much each candidate helps: `by_groups`, the paper's way, `by_reversal`, or
            one like them; see `recross_hf.supervision.utility`.
        reranker: Reranker of an earlier iteration; it chooses the candidates among `upsampling_ratio` times as many.
        exclude_tasks: Tasks neither queried nor retrieved: targets, or tasks to evaluate a reranker on.
        peft_config: Configuration of an adapter that is fine-tuned on each group in place of all weights.
        judge: Former name of `utility_estimator`.

    Returns:
        The pairs of [`label_pairs`].

    Raises:
        ExampleError: No task has enough examples.
        ValueError: An excluded task is unknown, or the folder holds sets of another model, data or settings.
    """
    if judge is not None:
        utility_estimator = renamed_argument("judge", "utility_estimator", judge)
    if isinstance(exclude_tasks, str):
        raise TypeError("Expected `exclude_tasks` to be a collection of strings, found one string. Pass a list.")
    args = args or SupervisionArguments()
    folder, state = folder_to_write(output_dir), process_state()
    is_half = model.dtype in (torch.bfloat16, torch.float16)
    if is_peft_model(model) or (is_half and peft_config is None):
        model = adaptable_copy(model, None, args.seed, upstream_adapter="merge")
    check_finite_weights(model)
    check_apart(folder, {"the upstream model": model.name_or_path})
    check_not_of_others(folder, SETTINGS_FILE, overwritten=("README.md",))
    sampler = QuerySetSampler(examples, args, exclude_tasks)
    unknown = set(exclude_tasks) - {*examples.unique("task"), *retriever.rows.all_tasks}
    if unknown:
        raise ValueError(f"Expected to exclude tasks of the data, found {', '.join(sorted(unknown))}, which are none.")
    retriever = retriever.excluding(exclude_tasks)
    if state.is_main_process:
        settings = mining_settings(
            model, retriever, examples, args, utility_estimator, reranker, exclude_tasks, peft_config, processing_class
        )
        check_settings(folder, settings)
    state.wait_for_everyone()
    missing = [number for number in range(args.num_query_sets) if read_set(folder, number) is None]
    # Each process of a group begins with sets of its own.
    missing.sort(key=lambda number: (number - state.process_index) % state.num_processes)
    if missing:
        miner = QuerySetMiner(sampler, CandidateSource(retriever, reranker, args), utility_estimator, args)
        progress = progress_bar(
            total=len(missing) * miner.groups_a_set,
            desc=f"Mining {len(missing)} of {args.num_query_sets} query sets",
            unit="group",
            is_shown=state.is_main_process,
        )
        with progress, GroupTrainer(model, processing_class, args, peft_config=peft_config) as trainer:
            _mine_sets(missing, miner, trainer, progress, folder)
    state.wait_for_everyone()
    sets = load_query_sets(folder)
    return label_pairs(sets.select(range(args.num_query_sets)), args.num_labelled, by=args.label_by)


def _mine_sets(
    numbers: Sequence[int], miner: QuerySetMiner, trainer: GroupTrainer, progress: tqdm, folder: Path
) -> None:
    """Mines the sets that no other process mines, until all are there."""

    def is_mined(number: int) -> bool:
        return read_set(folder, number) is not None

    def lock_of(number: int) -> Path:
        return folder / "locks" / path_of(folder, number).with_suffix(".lock").name

    for number, is_mine in shared_out(numbers, is_mined, lock_of):
        if not is_mine:
            progress.update(miner.groups_a_set)
            continue
        row = Dataset.from_list([miner.mine(number, trainer, progress)], features=SET_FEATURES)
        write_parquet(row, path_of(folder, number))
