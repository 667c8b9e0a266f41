"""The record of an adaptation: what was done, and how it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from ..core.files import read_parquet

if TYPE_CHECKING:
    from .arguments import AdaptationArguments
    from .safety_gate import GateVerdict

RETRIEVED_FILE = "retrieved.parquet"
"""Name of the file with the retrieved examples, beside a model and in each checkpoint."""

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
_SETTINGS_OF_A_CHOICE = ("upsampling_ratio", "select_by")


@dataclass(frozen=True)
class Evaluation:
    """SoftEM and exact match on labelled examples, in percent.

    Args:
        soft_em: SoftEM.
        exact_match: Exact match.
        n: Number of examples.
        tasks: Tasks that the examples are of.
        is_adapted: Whether the model had been adapted.
        is_mean: Whether it is the unweighted mean of several tasks, which has no interval here.
    """

    soft_em: float
    exact_match: float
    n: int
    tasks: Sequence[str]
    is_adapted: bool
    is_mean: bool = False

    @classmethod
    def of(
        cls, metrics: Mapping[str, float], prefix: str, evaluated: Dataset | Mapping[str, Dataset], *, is_adapted: bool
    ) -> Evaluation:
        """Takes the metrics with a prefix from those of [`ExampleTrainer.evaluate`] on a data set, or on several by task."""
        sets = list(evaluated.values()) if isinstance(evaluated, Mapping) else [evaluated]
        return cls(
            soft_em=metrics[f"{prefix}_soft_em"],
            exact_match=metrics[f"{prefix}_exact_match"],
            n=sum(len(examples) for examples in sets),
            tasks=sorted(
                {task for examples in sets if "task" in examples.column_names for task in examples["task"][:]}
            ),
            is_adapted=is_adapted,
            is_mean=isinstance(evaluated, Mapping),
        )

    @property
    def scores(self) -> dict[str, float]:
        """`soft_em`, `exact_match` and `n`."""
        return {"soft_em": self.soft_em, "exact_match": self.exact_match, "n": self.n}


@dataclass(frozen=True)
class Adaptation:
    """How a model was adapted.

    Args:
        num_queries: Number of unlabelled inputs; None where that is not known any more.
        settings: Settings by their names in [`AdaptationArguments`]; besides, the classes of `retriever` and `reranker`. The settings of a
            selection are there if there was one.
        evaluations: Evaluations by the prefix of their metrics.
        gate: Verdict of the safety gate, if there was one.
        decoding: Settings of the model's own that change what it answers.
    """

    num_queries: int | None
    settings: Mapping[str, Any]
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    gate: GateVerdict | None = None
    decoding: Mapping[str, Any] = field(default_factory=dict)


def recorded_settings(args: AdaptationArguments, *, has_choice: bool) -> dict[str, Any]:
    """The settings that an adaptation is told by.

    Args:
        has_choice: Whether the examples were chosen among more.
    """
    names = (*_SETTINGS, *(_SETTINGS_OF_A_CHOICE if has_choice else ()))
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def read_retrieved(checkpoint: str | Path) -> Dataset:
    """Reads the retrieved examples of a checkpoint.

    Raises:
        FileNotFoundError: It is no checkpoint of an adaptation.
    """
    path = Path(checkpoint) / RETRIEVED_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected {RETRIEVED_FILE} in {checkpoint}, found none: this is no checkpoint of an adaptation. Resume from one, or begin "
            "anew without `resume_from_checkpoint`."
        )
    return read_parquet(path)
