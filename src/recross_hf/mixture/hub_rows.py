"""Rows of a task from the parquet files of a data set on the Hub; no script is run."""

from __future__ import annotations

import errno
import fnmatch
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from datasets import Dataset, get_dataset_config_names, load_dataset
from datasets.exceptions import DatasetsError
from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError, OfflineModeIsEnabled, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile, RepoFolder

from ..hub.errors import CLIENT_ERRORS, explanation, gated
from ..hub.repository import Repository
from .rows import BATCH_ROWS, RowBatch, Rows
from .sources import SourceError, TaskSource

_FAILURES: tuple[type[Exception], ...] = (DatasetsError, *CLIENT_ERRORS, OSError, ValueError)
CONVERTED = "refs/convert/parquet"
"""The branch on which the Hub keeps data sets, also those whose scripts no longer run, as `config/split/*.parquet`."""


class _Configuration(NamedTuple):
    """The rows of one configuration; its name is None where the data set has only one."""

    name: str | None
    rows: Dataset


def hub_rows(source: TaskSource, *, without: str = "", config_is_template: bool = False) -> Rows:
    """The rows of a data set's own files where it has no script, else those of the Hub's parquet form of it.

    Args:
        source: The task.
        without: Pattern of configurations that a pattern in `source.config` does not stand for.
        config_is_template: Whether rows that are examples already name their configuration as their template even where there is
            only one; rows of several configurations always do.

    Raises:
        SourceError: The data set is gone, private or gated, or has no such configuration or split.
    """
    try:
        commit, license = _commit_and_license(source)
        configurations, notes = _configurations(source, commit, without)
    except _FAILURES as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SourceError(f"Task {source.task}: {_explained(source, error)}") from error
    # Each configuration of rows that are examples already is what one template made. Where all are as long, row n of each is
    # row n of the source; else rows are told apart.
    names_template = source.templates is None and (len(configurations) > 1 or config_is_template)
    aligned = len({len(rows) for _, rows in configurations}) == 1
    if not aligned:
        notes.append(
            "configurations differ in length: prompts of one source row cannot be told, and may be in both splits"
        )

    def batches() -> Iterator[RowBatch]:
        first = 0
        for name, rows in configurations:
            first = 0 if aligned else first
            for table in rows.with_format("arrow").iter(BATCH_ROWS):
                yield RowBatch(table, first, **({"template": name} if names_template else {}))
                first += len(table)

    return Rows(
        num_rows=sum(len(rows) for _, rows in configurations),
        column_names=(*configurations[0].rows.column_names, *(["template"] if names_template else [])),
        batches=batches,
        version=commit and f"{source.dataset}@{commit}",
        license=source.license or license,
        notes=tuple(notes),
        columns=source.columns,
    )


def _commit_and_license(source: TaskSource) -> tuple[str | None, str | None]:
    """The commit, so that all files are of the same, and the licence; neither is known offline."""
    try:
        info = HfApi().dataset_info(source.dataset or "", revision=source.revision)
    except OfflineModeIsEnabled:
        return None, None
    license = getattr(info.card_data, "license", None)
    return info.sha, ", ".join(license) if isinstance(license, list) else license


def _configurations(source: TaskSource, commit: str | None, without: str) -> tuple[list[_Configuration], list[str]]:
    """The configurations with their rows, and notes about them."""
    name, revision = source.dataset or "", commit or source.revision
    try:
        configs: Sequence[str | None] = [source.config]
        if _is_pattern(source.config):
            configs = _matching(get_dataset_config_names(name, revision=revision), source, without)
        return [
            _Configuration(config, load_dataset(name, config, split=source.split, revision=revision))
            for config in configs
        ], []
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
    if source.revision is not None:
        raise ValueError(f"a script, which is not run, and its parquet form has no revision {source.revision}")
    return _converted(source, without)


def _is_pattern(config: str | None) -> bool:
    return config is not None and "*" in config


def _matching(known: Sequence[str], source: TaskSource, without: str) -> list[str]:
    if source.templates is not None:
        raise ValueError(f"a pattern of configurations ({source.config}), which is for rows that are examples already")
    pattern = source.config or ""
    configs = sorted(
        name for name in known if fnmatch.fnmatchcase(name, pattern) and not fnmatch.fnmatchcase(name, without)
    )
    if not configs:
        raise ValueError(f"no configuration like {pattern!r}")
    return configs


def _converted(source: TaskSource, without: str) -> tuple[list[_Configuration], list[str]]:
    """The configurations and notes of the Hub's parquet form, at the commit that it has now."""
    name, api = source.dataset or "", HfApi()
    try:
        commit = api.dataset_info(name, revision=CONVERTED).sha
    except RevisionNotFoundError as error:
        raise ValueError(
            "a script, which is not run, and no parquet form of it. Download the data, and use `files`"
        ) from error

    def entries(folder: str | None) -> list[RepoFile | RepoFolder]:
        try:
            return list(api.list_repo_tree(name, folder, revision=commit, repo_type="dataset"))
        except EntryNotFoundError:
            return []

    configs = [source.config] if source.config is not None else []
    if not configs or _is_pattern(source.config):
        known = [entry.path for entry in entries(None) if isinstance(entry, RepoFolder)]
        if not configs and len(known) != 1:
            raise ValueError(f"the configurations {', '.join(known)}: say which with `config`")
        configs = _matching(known, source, without) if configs else known
    configurations, notes = [], [f"read in the Hub's parquet form, at {commit}"]
    for config in configs:
        for split in (source.split, f"partial-{source.split}"):  # the Hub converts the first part of large ones alone
            files = sorted(entry.path for entry in entries(f"{config}/{split}") if entry.path.endswith(".parquet"))
            if files:
                urls = [f"hf://datasets/{name}@{commit}/{path}" for path in files]
                rows = load_dataset("parquet", data_files=urls, split="train")
                configurations.append(_Configuration(config, rows))
                notes += ["the Hub's parquet form holds the first part of it alone"] * (split != source.split)
                break
        else:
            raise ValueError(f"no {config}/{source.split} in the parquet form of {name}, which has a script")
    return configurations, notes


def _explained(source: TaskSource, error: Exception) -> str:
    repository = Repository(source.dataset or "", "dataset", source.revision)
    found = " ".join(str(error).split())
    # Of these two, `datasets` keeps the words alone.
    if "a gated dataset" in found:
        return gated(repository)
    if "OfflineModeIsEnabled" in found:
        error = OfflineModeIsEnabled(found)
    # A `ValueError` says itself what was found, also where the client's error made it so.
    if not isinstance(error, ValueError) and (said := explanation(error, repository)) is not None:
        return said
    config = f"{source.config}, " if source.config else ""
    return f"expected {config}split {source.split!r} of the data set {source.dataset}, found: {found}"
