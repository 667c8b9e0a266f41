"""The card of prepared upstream data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from ..core.cards import cell, render, rows, settings_rows
from .arguments import MixtureArguments


def mixture_card(
    reports: Mapping[str, dict[str, Any]], *, failed: Sequence[str] = (), args: MixtureArguments, num_target_texts: int
) -> DatasetCard:
    """Writes the card of upstream data.

    Args:
        reports: Report of each task, as [`prepare_mixture`] returns them.
        failed: Names of the tasks that could not be had.
        args: Settings of the mixture.
        num_target_texts: Number of target texts that the examples were compared with.

    Returns:
        The card.
    """
    overlap = [(task, kind, count) for task, report in reports.items() for kind, count in report["overlap"].items()]
    dropped = [
        (task, reason, f"{count:,}") for task, report in reports.items() for reason, count in report["dropped"].items()
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
    """The files that `load_dataset` reads under a name."""
    splits = ("train", "dev") if has_dev else ("train",)
    return {
        "config_name": name,
        "data_files": [{"split": split, "path": f"{folder}/{split}-*.parquet"} for split in splits],
    }
