"""What all cards share: templates, tables that no text can break, licence and citation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from datasets import Dataset
from huggingface_hub import CardData, RepoCard, constants

from .._version import __version__

if TYPE_CHECKING:
    from .statistics import Interval

TEMPLATES = Path(__file__).parents[1] / "card_templates"
METRICS = {"soft_em": "SoftEM", "exact_match": "exact match"}
_LONGEST_CELL = 200
_CITATION = """\
```bibtex
@inproceedings{lin2022unsupervised,
  title = {Unsupervised Cross-Task Generalization via Retrieval Augmentation},
  author = {Lin, Bill Yuchen and Tan, Kangmin and Miller, Chris and Tian, Beiwen and Ren, Xiang},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2022},
  url = {https://arxiv.org/abs/2204.07937}
}
```"""

_Card = TypeVar("_Card", bound=RepoCard)
NO_DATA = "What it was trained on was not recorded with it."


def repository_name(repo_id: str) -> str:
    """The name of a repository without its namespace, as a table cell."""
    return cell(repo_id.rpartition("/")[2])


def task_rows(examples: Dataset) -> str:
    """Task, examples, share and templates; the largest task first."""
    columns = [name for name in ("task", "template") if name in examples.column_names]
    counts = Counter(zip(*(examples[name][:] for name in columns), strict=True))
    of_task: Counter[str] = Counter()
    templates: Counter[str] = Counter()
    for (task, *template), count in counts.items():
        of_task[task] += count
        templates[task] += bool(template and template[0])
    return rows(
        (task, f"{count:,}", f"{100 * count / len(examples):.1f} %", templates[task] or "not named")
        for task, count in sorted(of_task.items(), key=lambda item: (-item[1], item[0]))
    )


def shortened(value: Any) -> Any:
    """Hashes are cut."""
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else value


def render(kind: type[_Card], template: str, data: CardData, **values: Any) -> _Card:
    """A card made by a template of this package; each gets `licence`, `citation` and `version`, too.

    Args:
        kind: `ModelCard` or `DatasetCard`.
        template: the name of the file.
        data: its metadata; what it leaves out is not in the header.
        values: what the template asks for. Text of others goes through [`cell`] first.
    """
    license = data.get("license")
    licence = f"`{cell(license)}`" if license else "Not stated for this as a whole."
    return kind.from_template(
        data, str(TEMPLATES / template), licence=licence, citation=_CITATION, version=__version__, **values
    )


def cell(text: object) -> str:
    """Text of others as one line that no table, link, markup or header can come of; long ones are cut."""
    line = " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())
    line = line if len(line) <= _LONGEST_CELL else line[:_LONGEST_CELL] + "..."
    return re.sub(r"([\\`*\[\]<>|#~$])|(?<!\w)(_)|(_)(?!\w)", r"\\\g<0>", line)


def rows(values: Iterable[Sequence[object]]) -> str:
    """Rows of a table; strings go through [`cell`]."""
    return "\n".join("".join(f"| {text} " if text else "| " for text in map(cell, row)) + "|" for row in values)


def settings_rows(settings: Mapping[str, Any]) -> str:
    """Rows of a table of names and values."""
    return "\n".join(f"| `{name}` | {cell(value)} |" for name, value in settings.items())


def share_rows(shares: Mapping[str, float]) -> str:
    """Rows of a table of tasks and their shares."""
    return rows((task, f"{100 * share:.1f} %") for task, share in shares.items())


def interval_cell(interval: Interval) -> str:
    """A score and its interval, such as those of [`share_interval`]."""
    return f"{interval.mean:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def model_link(repo_id: str) -> str:
    """A link to a model of the Hub in use, which may be a company's own."""
    return f"[{repo_id}]({constants.ENDPOINT}/{repo_id})"
