"""Cards: templates, rows of tables that no text can break, licence and citation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from datasets import Dataset
from huggingface_hub import CardData, RepoCard, constants

from .._version import __version__
from .tables import escape_markdown, markdown_rows, shortened

if TYPE_CHECKING:
    from .statistics import Interval

TEMPLATES = Path(__file__).parents[1] / "card_templates"
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
NO_DATA = "Its training data was not recorded with it."


def repository_name(repo_id: str) -> str:
    """The name of a repository without its namespace, as a table cell."""
    return cell(repo_id.rpartition("/")[2])


def task_rows(examples: Dataset) -> str:
    """Rows of a table of tasks: the number of examples, their share and the number of templates; the largest task comes first."""
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


def render(kind: type[_Card], template: str, data: CardData, **values: Any) -> _Card:
    """Fills in a template of this package; each template gets `licence`, `citation` and `version`, too.

    Args:
        kind: Class of the card, `ModelCard` or `DatasetCard`.
        template: Name of the template's file.
        data: Metadata of the card; a field that it leaves out is not in the header.
        values: Values that the template asks for. Text of others goes through [`cell`] first.
    """
    license = data.get("license")
    licence = f"`{cell(license)}`" if license else "Not stated for this as a whole."
    card: _Card = kind.from_template(
        data, str(TEMPLATES / template), licence=licence, citation=_CITATION, version=__version__, **values
    )
    return card


def cell(text: object) -> str:
    """Text of others as one line that no table, link, markup or header can come of; long text is cut."""
    line = " ".join(str(text).split())
    return escape_markdown(line if len(line) <= _LONGEST_CELL else f"{line[:_LONGEST_CELL]}...")


def rows(values: Iterable[Sequence[object]]) -> str:
    """Rows of a table, each cell of which goes through [`cell`]."""
    return markdown_rows([cell(value) for value in row] for row in values)


def settings_rows(settings: Mapping[str, Any]) -> str:
    """Rows of a table of names and values; lists are joined and hashes are cut."""
    return markdown_rows((f"`{name}`", cell(shortened(value, _LONGEST_CELL))) for name, value in settings.items())


def share_rows(shares: Mapping[str, float]) -> str:
    """Rows of a table of tasks and their shares."""
    return rows((task, f"{100 * share:.1f} %") for task, share in shares.items())


def interval_cell(interval: Interval) -> str:
    """A score and its interval, such as that of [`share_interval`], as a table cell."""
    return f"{interval.mean:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def model_link(repo_id: str) -> str:
    """A link to a model of the Hub in use, which may be a company's own."""
    return f"[{repo_id}]({constants.ENDPOINT}/{repo_id})"
