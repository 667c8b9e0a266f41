"""The report of a benchmark: tables, pictures, and one page that needs no other file."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, StrictUndefined

from ..._version import __version__
from ...core.files import write_atomically, write_json
from ...core.tables import Table
from ..results import SHARED, BenchmarkResults, Cell
from .comparison import Comparison, Difference
from .figures import by_share, draw_ablations, draw_forest, draw_pairs, draw_retrieved, draw_scores, retrieved_shares
from .findings import Roles, below_floors, default_pairs, headline, parts, reservations, roles_of
from .paper_results import TABLE_1, TABLE_2_MEANS, TABLE_2_TASKS
from .scores import METRICS, BenchmarkScores
from .tables import (
    ablations_table,
    data_table,
    differences_table,
    intervals_table,
    main_table,
    outputs_table,
    pair_name,
    paper_table,
    seconds_table,
    task_differences_table,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT_FILE, SUMMARY_FILE = "report.html", "summary.json"
TABLES_FOLDER, FIGURES_FOLDER = "tables", "figures"
_TEMPLATE = "page.html"
_DEGENERATE = ("in_answers", "num_words")
_LONGEST_PREDICTION = 200
_DPI = 150


class Picture(NamedTuple):
    """A figure as PNG, and what it shows."""

    name: str
    caption: str
    png: bytes

    @property
    def address(self) -> str:
        """The picture itself, as an address that needs no other file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


def write_report(
    results: BenchmarkResults,
    folder: str | Path,
    *,
    title: str = "Benchmark",
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
    summary = write_report(BenchmarkResults.load("benchmark"), "benchmark")
    print(summary["headline"])
    ```

    Args:
        settings: of the run, for readers: the model, the index, the arguments.
        primary: the method that the first sentence is about, see [`roles_of`].
        metric: that the first sentence and the pictures are in. Exact match, since SoftEM can be gamed.
        pairs: of methods whose difference is looked at; see [`default_pairs`].
        num_resamples: of the bootstrap, as `level` (coverage of intervals) and `seed`.

    Returns:
        What `summary.json` holds.

    Raises:
        ValueError: cells and predictions do not fit, or there is no method or metric of a name.
        ImportError: matplotlib is not installed.
    """
    if metric not in METRICS:
        raise ValueError(f"Expected a metric among {', '.join(METRICS)}, found {metric!r}.")
    report = _Report(results, roles_of(results.cells, primary), metric, pairs, num_resamples, level, seed)
    folder = Path(folder)
    for table in report.all_tables():
        for suffix, text in (("md", table.to_markdown()), ("tex", table.to_latex()), ("csv", table.to_csv())):
            _write_text(folder / TABLES_FOLDER / f"{table.name}.{suffix}", text)
    for picture in report.pictures():
        write_atomically(
            folder / FIGURES_FOLDER / f"{picture.name}.png", lambda partial, png=picture.png: partial.write_bytes(png)
        )
    _write_text(folder / REPORT_FILE, report.html(title, settings or {}))
    summary = report.summary()
    write_json(folder / SUMMARY_FILE, summary)
    return summary


class _Report:
    """All that a report shows, computed once."""

    def __init__(
        self,
        results: BenchmarkResults,
        roles: Roles,
        metric: str,
        pairs: Sequence[tuple[str, str]] | None,
        num_resamples: int,
        level: float,
        seed: int,
    ) -> None:
        self.cells, self.roles, self.metric, self.level = results.cells, roles, metric, level
        self.num_resamples, self.seed = num_resamples, seed
        self.scores = BenchmarkScores(results)
        contestants = roles.compared + roles.floors
        self.comparisons = {name: self._compare(name, contestants) for name in METRICS}
        # Nothing is known of the choices, for example.
        self.known = {name: found for name, found in self.comparisons.items() if found.complete_tasks}
        self.pairs = list(default_pairs(roles) if pairs is None else pairs)
        for name in {name for pair in self.pairs for name in pair} - set(contestants):
            raise ValueError(f"Expected pairs of the methods {', '.join(contestants)}, found {name!r} in one.")
        self.differences = {
            name: self.comparisons[name].differences(self.pairs) for name in dict.fromkeys([metric, "soft_em"])
        }
        self.main_tables = [
            main_table(found, name=f"main-{name}", caption=self._caption(found), floors=roles.floors)
            for name, found in self.known.items()
        ]
        self.paper_tables = self._paper_tables()
        in_paper = [task for task in self.scores.tasks if task in TABLE_1]
        self.beside_paper = (
            paper_table(self._compare("soft_em", roles.compared, in_paper), name="beside-paper") if in_paper else None
        )
        self.intervals = intervals_table(
            [found for name, found in self.known.items() if name not in _DEGENERATE],
            name="intervals",
            caption=f"Means with {100 * level:g} % intervals, by bootstrap over query sets and source examples.",
        )
        self.difference_tables = [
            differences_table(
                found,
                name=f"differences-{name}",
                caption=f"Paired differences in {METRICS[name].label}, mean over tasks; tasks with a corrected p below "
                f"{1 - level:.2g} count as better or worse.",
                alpha=1 - level,
            )
            for name, found in self.differences.items()
        ]
        self.task_difference_tables = [
            task_differences_table(
                found,
                name=f"differences-{metric}-{place:02d}",
                caption=f"{pair_name(found)}: difference in {METRICS[metric].label} by task; p-values corrected for "
                f"{len(found.by_task)} tasks (Holm).",
            )
            for place, found in enumerate(self.differences[metric], start=1)
        ]
        self.ablations = self._ablations()
        self.outputs = outputs_table(
            self.scores,
            [self._compare(name, roles.compared) for name in _DEGENERATE],
            name="outputs",
            caption="What answers look like, mean over tasks: a method that answers all with one text, or with lists, shows here.",
        )
        self.data = data_table(
            self.scores,
            self.cells,
            name="data",
            caption="Test examples may be several renderings of one source example; intervals draw these together.",
        )
        self.seconds = seconds_table(
            self.cells, name="seconds", caption="Wall time in seconds, mean of the finished cells."
        )
        self._draw()

    def _compare(self, metric: str, methods: Sequence[str], tasks: Sequence[str] | None = None) -> Comparison:
        return Comparison(
            self.scores, metric, methods, tasks, num_resamples=self.num_resamples, level=self.level, seed=self.seed
        )

    def _caption(self, comparison: Comparison) -> str:
        sets = [number for number in comparison.complete_sets if number != SHARED]
        over = f"mean of {len(sets)} query sets" if len(sets) > 1 else "one query set"
        return f"{METRICS[comparison.metric].label}, {over}. The last columns are answers that need no model."

    def _paper_tables(self) -> list[Table]:
        """Tables 1 and 2, where the tasks are those of both."""
        tables = []
        for number, names in ((1, tuple(TABLE_1)), (2, TABLE_2_TASKS)):
            tasks = [task for task in self.scores.tasks if task in names]
            if not tasks or len(tasks) == len(self.scores.tasks):
                continue
            for metric in ("soft_em", "exact_match"):
                found = self._compare(metric, self.roles.compared + self.roles.floors, tasks)
                caption = f"The tasks of the paper's table {number}. {self._caption(found)}"
                if number == 2 and metric == "soft_em" and len(tasks) == len(names):
                    theirs = ", ".join(f"{model} {mean:.2f}" for model, mean in TABLE_2_MEANS.items())
                    caption += f" The paper's means, of other and larger models: {theirs}."
                name = f"table{number}-{metric}"
                tables.append(main_table(found, name=name, caption=caption, floors=self.roles.floors))
        return tables

    def _ablations(self) -> list[tuple[Table, Figure | None, str]]:
        found = []
        base = [self.roles.base] if self.roles.base else []
        for place, (main, variants) in enumerate(self.roles.variants.items(), start=1):
            for metric in dict.fromkeys([self.metric, "soft_em"]):
                main_known = [main] if main in self.scores.methods else []
                comparison = self._compare(metric, [*main_known, *variants])
                caption = f"Ablations of {main}: {METRICS[metric].label}, with the difference from {main} (corrected for their number)."
                table = ablations_table(comparison, main, name=f"ablations-{metric}-{place:02d}", caption=caption)
                figure = None
                if metric == self.metric:
                    beside = self._compare(metric, [*base, *main_known, *variants])
                    figure = draw_ablations(beside, main, self.cells, base=self.roles.base)
                found.append((table, figure, main))
        return found

    def _draw(self) -> None:
        comparison = self.comparisons[self.metric]
        label = METRICS[self.metric].label
        self.score_pictures = [
            _picture(
                f"scores-{name}",
                f"{METRICS[name].label} of each method, with its interval. Paired differences are far more certain than two "
                "intervals side by side suggest.",
                draw_scores(self.known[name], floors=self.roles.floors),
            )
            for name in dict.fromkeys([self.metric, "soft_em"])
            if name in self.known and set(self.known[name].complete_methods) & set(self.roles.compared)
        ]
        differences = self.differences[self.metric]
        self.pair_pictures = []
        if any(found.overall is not None for found in differences):
            caption = f"Paired differences in {label}, mean over tasks. Filled and coloured: p below {1 - self.level:.2g} after correction."
            self.pair_pictures = [_picture("pairs", caption, draw_pairs(comparison, differences))]
        self.forests = [
            _picture(
                f"forest-{place:02d}",
                f"{pair_name(found)}, task by task. Filled and coloured: p below {1 - self.level:.2g}, corrected for the number of "
                "tasks; that of the mean is not.",
                draw_forest(comparison, found),
            )
            if found.by_task
            else None
            for place, found in enumerate(differences, start=1)
        ]
        places = {main: place for place, main in enumerate(self.roles.variants, start=1)}  # as of its tables
        self.ablation_pictures = [
            _picture(f"ablations-{places[main]:02d}", f"Score of {main} against its settings.", figure)
            for _, figure, main in self.ablations
            if figure is not None
        ]
        shares = {
            method: found for method, found in retrieved_shares(self.cells).items() if method in self.roles.methods
        }
        columns = by_share(shares.values())
        every = [share for by_task in shares.values() for found in by_task.values() for share in found.values()]
        self.heat_maps = [
            _picture(
                f"retrieved-{place:02d}",
                f"What {method} learned from: share of each upstream task, mean of the query sets. The colours of all methods "
                "are on one scale, by the square root.",
                draw_retrieved(found, title=method, columns=columns, largest=max(every)),
            )
            for place, (method, found) in enumerate(shares.items(), start=1)
        ]

    def all_tables(self) -> list[Table]:
        """In the order of the report."""
        tables = [*self.main_tables, *self.paper_tables, self.intervals, *self.difference_tables]
        tables += [*self.task_difference_tables, *(table for table, _, _ in self.ablations)]
        tables += [self.outputs, self.data, self.seconds]
        return tables if self.beside_paper is None else [*tables, self.beside_paper]

    def pictures(self) -> list[Picture]:
        """In the order of the report."""
        found = [*self.score_pictures, *self.pair_pictures, *self.forests, *self.ablation_pictures, *self.heat_maps]
        return [picture for picture in found if picture is not None]

    # ---- what is said ----------------------------------------------------------------------------------------------

    def headline(self) -> str:
        return headline(self.comparisons[self.metric], self.roles, self.differences[self.metric])

    def parts(self) -> list[str]:
        return parts(self.comparisons[self.metric], self.roles, self.differences[self.metric])

    def warnings(self) -> list[str]:
        found = reservations(self.comparisons[self.metric], self.cells)
        found += self.below_floors()
        found += [f"{task}: {text}." for task, text in self.overlaps()]
        return list(dict.fromkeys(found))

    def failures(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.error is not None]

    def below_floors(self) -> list[str]:
        return [
            sentence
            for metric in ("soft_em", "exact_match")
            for sentence in below_floors(self.comparisons[metric], self.roles)
        ]

    def searched(self) -> list[str]:
        """The tasks whose cells say under `overlaps` of their details what test set, queries and upstream data share."""
        return list(dict.fromkeys(cell.task for cell in self.cells if "overlaps" in cell.details))

    def overlaps(self) -> list[tuple[str, str]]:
        """What was found there, by task: the numbers of the details, and how they were handled."""
        found: dict[str, str] = {}
        for cell in self.cells:
            overlap = cell.details.get("overlaps", {})
            counts = {name: value for name, value in overlap.items() if isinstance(value, int) and value}
            if counts:
                listed = ", ".join(f"{name.replace('_', ' ')}: {_plain(value)}" for name, value in counts.items())
                found[cell.task] = f"{listed} (handling: {overlap.get('handling', 'not named')})"
        return list(found.items())

    def samples(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """By task: the header and rows of some predictions of the first query set."""
        found = []
        for task in self.scores.tasks:
            answers = {}
            for method in self.roles.compared:
                by_set = self.scores.predictions(method, task)
                if by_set:
                    answers[method] = by_set[min(by_set)]
            ids = self.scores.ids(task)
            # Spread over the test set, which may be ordered.
            rows = [number * len(ids) // 4 for number in range(4)] if len(ids) >= 4 else range(len(ids))
            table = [[_cut(ids[row]), *(_cut(texts[row]) for texts in answers.values())] for row in rows]
            if answers:
                found.append((task, ["id", *answers], table))
        return found

    def method_settings(self) -> list[tuple[str, str]]:
        """By method: the settings of its first finished cell, as its details have them under `settings`."""
        found = {}
        for cell in self.cells:
            if cell.error is None and "settings" in cell.details and cell.method not in found:
                found[cell.method] = json.dumps(cell.details["settings"], indent=2, default=str)
        return list(found.items())

    def html(self, title: str, settings: Mapping[str, Any]) -> str:
        source = resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
        # Names of tasks and methods and all predictions are anybody's: they are escaped.
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        return environment.from_string(source).render(
            title=title,
            version=__version__,
            headline=self.headline(),
            parts=self.parts(),
            warnings=self.warnings(),
            level=f"{100 * self.level:g} %",
            num_resamples=f"{self.num_resamples:,}",
            roles=self.roles,
            report=self,
            settings=[(name, _plain(value)) for name, value in settings.items()],
        )

    def summary(self) -> dict[str, Any]:
        """As JSON values."""
        metrics = {}
        for name, comparison in self.known.items():
            metrics[name] = {
                "tasks": comparison.complete_tasks,
                "query_sets": comparison.complete_sets,
                "notes": comparison.notes,
                "methods": {method: self._method_summary(comparison, method) for method in comparison.methods},
            }
        return {
            "version": __version__,
            "headline": self.headline(),
            "parts": self.parts(),
            "warnings": self.warnings(),
            "primary": self.roles.primary,
            "metric": self.metric,
            "level": self.level,
            "num_resamples": self.num_resamples,
            "seed": self.seed,
            "metrics": metrics,
            "differences": {
                metric: [_difference_json(each) for each in found] for metric, found in self.differences.items()
            },
            "tasks": {
                task: {"num_examples": self.scores.num_examples(task), "num_sources": self.scores.num_sources(task)}
                for task in self.scores.tasks
            },
            "failed": [
                {"method": cell.method, "task": cell.task, "query_set": cell.query_set, "error": cell.error}
                for cell in self.failures()
            ],
            "overlaps": dict(self.overlaps()),
        }

    def _method_summary(self, comparison: Comparison, method: str) -> dict[str, Any]:
        summary, interval = comparison.summary(method), comparison.interval(method)
        return {
            "all": None if summary is None else {**summary._asdict(), "low": interval.low, "high": interval.high},
            "by_task": {task: comparison.score(method, task) for task in comparison.tasks},
        }


def _difference_json(difference: Difference) -> dict[str, Any]:
    return {
        "one": difference.one,
        "other": difference.other,
        "overall": None if difference.overall is None else difference.overall._asdict(),
        "by_task": {task: found._asdict() for task, found in difference.by_task.items()},
    }


def _picture(name: str, caption: str, figure: Figure) -> Picture:
    file = io.BytesIO()
    # Without the library's version the same results give the same bytes.
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return Picture(name, caption, file.getvalue())


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_PREDICTION else f"{text[:_LONGEST_PREDICTION]} [...]"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
