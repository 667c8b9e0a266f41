"""Cards of data: of mined supervision and of upstream data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from ..core.cards import cell, render, rows, settings_rows
from ..training.arguments import MixtureArguments


def supervision_card(*, settings: dict[str, Any], judge: Callable[..., Any], summary: dict[str, Any]) -> DatasetCard:
    """The card of mined pairs.

    Args:
        settings: of `supervision.json`.
        judge: how candidates were judged; the first line of its docstring is quoted.
        summary: of [`summarize_supervision`], with `num_pairs`.
    """
    figures = {name: value for name, value in summary.items() if isinstance(value, int | float)}
    return render(
        DatasetCard,
        "supervision.md",
        DatasetCardData(
            tags=["recross", "distant-supervision", "reranking"],
            task_categories=["text-ranking"],
            configs=[{"config_name": "default", "data_files": "pairs.parquet"}],
        ),
        figures=rows(
            (name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else value)
            for name, value in figures.items()
        ),
        skipped=rows((f"skipped: {reason}", count) for reason, count in summary["skipped"].items()),
        task_pairs=rows(
            (pair["query_task"], pair["candidate_task"], pair["num_candidates"], f"{pair['utility']:+.4f}")
            for pair in summary["task_pairs"]
        ),
        settings=settings_rows({name: _short(value) for name, value in settings.items()}),
        judge=(judge.__doc__ or judge.__name__).splitlines()[0],
    )


def mixture_card(
    reports: Mapping[str, dict[str, Any]], *, failed: Sequence[str] = (), args: MixtureArguments, num_target_texts: int
) -> DatasetCard:
    """The card of upstream data.

    Args:
        reports: what [`prepare_mixture`] says of each task.
        failed: the tasks that could not be had.
        num_target_texts: how many texts of target tasks the examples were compared with.
    """
    overlap = [(task, what, count) for task, report in reports.items() for what, count in report["overlap"].items()]
    dropped = [
        (task, why, f"{count:,}") for task, report in reports.items() for why, count in report["dropped"].items()
    ]
    dropped += [(task, note, "") for task, report in reports.items() for note in report["notes"]]
    dropped += [(task, "all of it: its data or templates could not be had", "") for task in failed]
    templates = [
        f"- {cell(task)}: "
        + ", ".join(f"{cell(name) or 'none'} ({count:,})" for name, count in report["templates"].items())
        + "".join(f"; left out: {cell(name)} ({cell(why)})" for name, why in report["templates_left_out"].items())
        for task, report in reports.items()
    ]
    any_dev = any(report["dev"] for report in reports.values())
    configs = [_config("default", "*", any_dev)]
    configs += [_config(task, task, bool(report["dev"])) for task, report in reports.items()]
    return render(
        DatasetCard,
        "mixture.md",
        DatasetCardData(
            tags=["recross", "multi-task", "prompts"], task_categories=["text-generation"], configs=configs
        ),
        num_tasks=len(reports),
        num_examples=f"{sum(report['train'] for report in reports.values()):,}",
        decontaminated=" and of rows that they share with target tasks"
        if num_target_texts and args.on_overlap == "drop"
        else "",
        first_task=next(iter(reports), "task"),
        tasks=rows(
            (
                task,
                report["source"],
                report["license"] or "not named",
                f"{report['rows']:,}",
                len(report["templates"]),
                f"{report['train']:,}",
                f"{report['dev']:,}",
            )
            for task, report in reports.items()
        ),
        dropped=rows(dropped or [("", "nothing", "")]),
        num_target_texts=f"{num_target_texts:,}",
        ngram_size=args.ngram_size,
        overlap=f"| task | overlap | examples |\n|---|---|---|\n{rows(overlap)}" if overlap else "None found.",
        templates="\n".join(templates),
        settings=settings_rows(asdict(args)),
    )


def _config(name: str, folder: str, has_dev: bool) -> dict[str, Any]:
    """What `load_dataset` reads under a name."""
    splits = ("train", "dev") if has_dev else ("train",)
    return {
        "config_name": name,
        "data_files": [{"split": split, "path": f"{folder}/{split}-*.parquet"} for split in splits],
    }


def _short(value: Any) -> str:
    """Hashes are cut, lists joined."""
    if isinstance(value, list):
        return ", ".join(map(_short, value)) or "none"
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else str(value)
