"""The report of an evaluation: tables, pictures, and one page that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..._version import __version__
from ...core.files import write_atomically, write_json
from ..results import EvaluationResults
from .all_pictures import ReportPictures, draw_pictures
from .all_tables import ReportTables, make_tables
from .analysis import Analysis, AnalysisSettings, analyze
from .summary import summarize
from .texts import ReportTexts, setting_text, write_texts

REPORT_FILE, SUMMARY_FILE = "report.html", "summary.json"
TABLES_FOLDER, FIGURES_FOLDER = "tables", "figures"
_TEMPLATE = "page.html"


def write_report(
    results: EvaluationResults,
    folder: str | Path,
    *,
    title: str = "Evaluation",
    settings: Mapping[str, Any] | None = None,
    primary: str | None = None,
    metric: str = "exact_match",
    pairs: Sequence[tuple[str, str]] | None = None,
    num_resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Writes `report.html`, `summary.json`, `tables/*.{md,tex,csv}` and `figures/*.png`.

    ```python
    summary = write_report(EvaluationResults.load("benchmark"), "benchmark")
    print(summary["headline"])
    ```

    Args:
        results: Results to report.
        folder: Folder to write to.
        title: Title of the page.
        settings: Settings of the run for readers, for example the model, the index and the arguments.
        primary: Name of the method that the first sentence is about, see [`roles_of`].
        metric: Name of the metric that the first sentence and the pictures are in; exact match by default, since SoftEM can be gamed.
        pairs: Pairs of methods whose difference is looked at; by default those of [`default_pairs`].
        num_resamples: Number of bootstrap resamples.
        level: Coverage of intervals.
        seed: Seed for drawing the resamples.

    Returns:
        The content of `summary.json`.

    Raises:
        ValueError: Cells and predictions do not fit, or there is no method or metric of a name.
        ImportError: matplotlib is not installed.
    """
    judged_by = AnalysisSettings(metric, num_resamples, level, seed)
    analysis = analyze(results, judged_by, primary=primary, pairs=pairs)
    tables, texts = make_tables(analysis), write_texts(analysis)
    summary = summarize(analysis, texts)
    pictures = draw_pictures(analysis)
    folder = Path(folder)
    for table in tables.all():
        for suffix, text in (("md", table.to_markdown()), ("tex", table.to_latex()), ("csv", table.to_csv())):
            _write(folder / TABLES_FOLDER / f"{table.name}.{suffix}", text.encode("utf-8"))
    for picture in pictures.all():
        _write(folder / FIGURES_FOLDER / f"{picture.name}.png", picture.png)
    page = _html(title, settings or {}, analysis, tables, texts, pictures)
    _write(folder / REPORT_FILE, page.encode("utf-8"))
    write_json(folder / SUMMARY_FILE, summary)
    return summary


def _html(
    title: str,
    settings: Mapping[str, Any],
    analysis: Analysis,
    tables: ReportTables,
    texts: ReportTexts,
    pictures: ReportPictures,
) -> str:
    source = resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    # Names of tasks and methods and all predictions are anybody's: they are escaped.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(
        title=title,
        version=__version__,
        level=f"{100 * analysis.settings.level:g} %",
        num_resamples=f"{analysis.settings.num_resamples:,}",
        analysis=analysis,
        tables=tables,
        texts=texts,
        pictures=pictures,
        settings=[(name, setting_text(value)) for name, value in settings.items()],
    )


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda partial: partial.write_bytes(content))
