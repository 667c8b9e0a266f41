"""The plan of mining supervision."""

from __future__ import annotations

import copy
import functools
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..core.deprecation import renamed_argument
from ..core.distributed import process_state
from ..core.files import write_parquet
from ..retrieval.retriever import Retriever
from ..supervision.arguments import SupervisionArguments
from ..supervision.mining import mine_supervision
from ..supervision.query_sets import SETS_FOLDER
from ..supervision.utility import UtilityEstimator, by_groups
from .plan import Plan, TimeEstimate
from .probe import LESS_DISK, folder_for_all


def plan_mining(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    retriever: Retriever,
    examples: Dataset,
    output_dir: str | Path,
    args: SupervisionArguments | None = None,
    *,
    utility_estimator: UtilityEstimator = by_groups,
    num_probed: int = 3,
    judge: UtilityEstimator | None = None,
    **kwargs: Any,
) -> Plan:
    """Plans [`mine_supervision`] with the same arguments: some query sets are mined, the first of them untimed.

    Every process must call it.

    Args:
        model: Upstream model.
        processing_class: Its tokenizer.
        retriever: Retriever of the candidates.
        examples: Upstream examples to draw query sets from.
        output_dir: Folder that the mining writes to.
        args: Settings of the mining.
        utility_estimator: Function that says how useful each candidate was.
        num_probed: Query sets that each process mines for the plan.
        judge: Former name of `utility_estimator`.
        kwargs: Other arguments of [`mine_supervision`].

    Returns:
        The plan.

    Raises:
        ValueError: The utilities of fewer than two query sets could be estimated.
    """
    args, state = args or SupervisionArguments(), process_state()
    if judge is not None:
        utility_estimator = renamed_argument("judge", "utility_estimator", judge)
    starts: list[float] = []  # the time at which each set's estimate began

    @functools.wraps(utility_estimator)
    def timed(*arguments: Any) -> Any:
        starts.append(time.perf_counter())
        return utility_estimator(*arguments)

    probed = copy.copy(args)
    probed.num_query_sets = min(args.num_query_sets, num_probed * state.num_processes)
    with folder_for_all(output_dir) as folder:
        pairs = mine_supervision(
            model, processing_class, retriever, examples, folder, probed, utility_estimator=timed, **kwargs
        )
        if state.is_main_process:
            write_parquet(pairs, folder / "pairs.parquet")
        state.wait_for_everyone()
        written = [
            path.stat().st_size for path in (*(folder / SETS_FOLDER).glob("*.parquet"), folder / "pairs.parquet")
        ]
        state.wait_for_everyone()
    if len(starts) < 2:
        raise ValueError(
            f"Expected at least two query sets with estimated utilities, found {len(starts)} of {probed.num_query_sets}: there is too "
            "little to plan, or there are too few candidates. Ask for more query sets, or for smaller ones."
        )
    num_sets = math.ceil(args.num_query_sets / state.num_processes)
    return Plan.after_probe(
        output_dir,
        state.device,
        work=f"Mining {args.num_query_sets:,} query sets",
        probe=f"{probed.num_query_sets} of them",
        seconds=TimeEstimate.of(np.diff(starts).tolist(), num_sets),
        disk=round(sum(written) / probed.num_query_sets * args.num_query_sets),
        num_processes=state.num_processes,
        advice={
            "memory": "Fine-tune fewer weights (--trainable_parameters '^decoder'), or use a smaller model.",
            "device_memory": "Fine-tune fewer weights (--trainable_parameters '^decoder'), use --bf16 or a smaller model.",
            "disk": f"{LESS_DISK}, or mine fewer query sets (--num_query_sets).",
        },
    )
