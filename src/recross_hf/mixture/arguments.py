"""`MixtureArguments`: settings of preparing upstream data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class MixtureArguments:
    """Settings of [`prepare_mixture`]; the defaults are the paper's, and the authors' where it is silent.

    Raises:
        ValueError: A number is too small, or `on_overlap` is none of its three values.
    """

    max_examples_per_task: int = field(default=50_000, metadata={"help": "Cap on the training examples of a task."})
    max_dev_examples_per_task: int = field(
        default=500,
        metadata={"help": "Examples of a task to hold out, made of rows of their own; at most a tenth of the rows."},
    )
    templates_per_example: int | None = field(
        default=None,
        metadata={
            "help": "Templates that render each row. The default is the authors': 10 in tasks of up to 5,000 rows, 7 up "
            "to 10,000, 5 up to 50,000, else 1."
        },
    )
    exact_match_only: bool = field(
        default=False,
        metadata={"help": "Use only templates whose metrics say that an exact match can judge their answers."},
    )
    original_task_only: bool = field(
        default=False, metadata={"help": "Use only templates that ask for the task that the data set was made for."}
    )
    truncate: bool = field(
        default=True, metadata={"help": "Cut each value of a row to 2,048 characters, as PromptSource does."}
    )
    ngram_size: int = field(
        default=13, metadata={"help": "Words in a row that an example shares with a target where the two overlap."}
    )
    on_overlap: str = field(
        default="drop",
        metadata={"help": "Handling of examples that overlap with a target: drop, keep (and report) or fail."},
    )
    strict: bool = field(
        default=False, metadata={"help": "Fail where a template fails on a row, instead of leaving that row out."}
    )
    shard_size: int = field(default=100_000, metadata={"help": "Examples in each parquet file."})
    seed: int = field(default=0, metadata={"help": "Seed for drawing rows and templates."})

    def __post_init__(self) -> None:
        for name in ("max_examples_per_task", "templates_per_example", "shard_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, found {value}.")
        if self.max_dev_examples_per_task < 0:
            raise ValueError(
                f"`max_dev_examples_per_task` must not be negative, found {self.max_dev_examples_per_task}."
            )
        if self.ngram_size < 2:
            raise ValueError(f"`ngram_size` must be at least 2 words, found {self.ngram_size}.")
        if self.on_overlap not in ("drop", "keep", "fail"):
            raise ValueError(f"`on_overlap` must be 'drop', 'keep' or 'fail', found {self.on_overlap!r}.")
