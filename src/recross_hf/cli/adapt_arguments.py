"""What `recross adapt` takes, and how its short help shows that."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..adaptation.report import REPORT_FILE, SHOWN_INPUTS
from .outputs import OVERWRITE
from .pipeline_choice import PipelineChoice

DEFAULTS = {"output_dir": "adapted", "report_to": "none"}
ABOUT = (
    "Adapt a copy of an upstream model to your task, from a file of unlabelled inputs (one a line, or parquet, jsonl, csv); about sixteen "
    "are enough. Without a file, the starter is adapted to a task that it never saw; --query_files takes many. "
    f"{REPORT_FILE} shows the first {SHOWN_INPUTS} inputs with their answers before and after."
)
GROUPS = {
    "What to adapt, and to what": ["query_file", "pipeline", "output_dir", "eval_file", "columns"],
    "How": ["use_peft", "num_retrieved", "learning_rate", "gate", "preset"],
    "Where else it goes": ["push_to_hub", "hub_model_id", "overwrite"],
}


@dataclass
class ScriptArguments(PipelineChoice):
    """What `recross adapt` takes beside the arguments of an adaptation."""

    query_file: str | None = field(default=None, metadata={"help": "The unlabelled inputs of your task."})
    query_files: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Files, or patterns of them, each with the inputs of a task of its own. Each is adapted to in a folder of its name in "
            "output_dir; the same command continues, and several share the tasks."
        },
    )
    eval_file: str | None = field(
        default=None, metadata={"help": "Labelled examples to evaluate on, if there are any."}
    )
    task: str | None = field(
        default=None, metadata={"help": "Name of the task; without query_file, one of the starter's."}
    )
    query_set: int = field(default=0, metadata={"help": "Which of the starter's five query sets."})
    num_queries: int | None = field(default=None, metadata={"help": "Use the first so many inputs of the query file."})
    columns: list[str] = field(
        default_factory=list, metadata={"help": "Column mapping, e.g. --columns references=outputs id=example_id"}
    )
    retriever: str = field(default="dense", metadata={"help": "What to learn from.", "choices": ["dense", "random"]})
    exclude_tasks: list[str] = field(default_factory=list, metadata={"help": "Upstream tasks not to retrieve from."})
    preset: str | None = field(
        default=None,
        metadata={
            "help": "The paper's settings, or those that the authors' code ran with (as_run is the same).",
            "choices": ["paper", "authors_code", "as_run"],
        },
    )
    merge: bool = field(
        default=False, metadata={"help": "Merge the LoRA adapter after the training, and write a whole model."}
    )
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})
