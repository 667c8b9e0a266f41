"""Rows of a task from a data set on the Hub, by its parquet files; no script is run."""

from __future__ import annotations

import errno
import fnmatch
from collections.abc import Iterator, Sequence

from datasets import Dataset, get_dataset_config_names, load_dataset
from datasets.exceptions import DatasetsError
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from .rows import BATCH_ROWS, RowBatch, Rows
from .sources import P3, P3_SCORED, SourceError, TaskSource

# Of the HTTP client that huggingface_hub uses, whichever that is: no connection, no answer in time.
_HTTPError: type[Exception] = next(base for base in HfHubHTTPError.__bases__ if base is not OSError)
CONVERTED = "refs/convert/parquet"
"""The branch on which the Hub keeps data sets, also those whose scripts no longer run, as `config/split/*.parquet`."""


def hub_rows(source: TaskSource) -> Rows:
    """A data set's own files where it has no script, else the Hub's parquet form of it."""
    try:
        commit, license = _commit_and_license(source)
        parts, notes = _parts(source, commit)
    except (DatasetsError, _HTTPError, OSError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SourceError(f"Task {source.task}: {_explained(source, error)}") from error
    # Of rows that are examples already each configuration is what one template made. Where all are as long, row n of each is
    # row n of the source; else rows are told apart.
    is_template = source.templates is None and (len(parts) > 1 or source.dataset == P3)
    aligned = len({len(dataset) for _, dataset in parts}) == 1
    if not aligned:
        notes.append(
            "configurations differ in length: prompts of one source row cannot be told, and may be in both splits"
        )

    def batches() -> Iterator[RowBatch]:
        first = 0
        for config, dataset in parts:
            first = 0 if aligned else first
            for table in dataset.with_format("arrow").iter(BATCH_ROWS):
                yield RowBatch(table, first, **({"template": config} if is_template else {}))
                first += len(table)

    names = [*parts[0][1].column_names, *(["template"] if is_template else [])]
    return Rows(
        sum(len(dataset) for _, dataset in parts),
        names,
        batches,
        version=commit and f"{source.dataset}@{commit}",
        license=source.license or license,
        notes=notes,
    )


def _commit_and_license(source: TaskSource) -> tuple[str | None, str | None]:
    """The commit, so that all parts are of the same, and the licence; neither is known offline."""
    try:
        info = HfApi().dataset_info(source.dataset or "", revision=source.revision)
    except OfflineModeIsEnabled:
        return None, None
    license = getattr(info.card_data, "license", None)
    return info.sha, ", ".join(license) if isinstance(license, list) else license


def _parts(source: TaskSource, commit: str | None) -> tuple[list[tuple[str | None, Dataset]], list[str]]:
    """The configurations and their rows, and what is to be known of them."""
    name, revision = source.dataset or "", commit or source.revision
    try:
        configs = [source.config]
        if source.config is not None and "*" in source.config:
            configs = _matching(get_dataset_config_names(name, revision=revision), source)
        return [(config, load_dataset(name, config, split=source.split, revision=revision)) for config in configs], []
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
    if source.revision is not None:
        raise ValueError(f"a script, which is not run, and its parquet form has no revision {source.revision}")
    return _converted(source)


def _matching(known: Sequence[str], source: TaskSource) -> list[str]:
    if source.templates is not None:
        raise ValueError(f"a pattern of configurations ({source.config}), which is for rows that are examples already")
    pattern = source.config or ""
    found = sorted(name for name in known if fnmatch.fnmatchcase(name, pattern))
    if source.dataset == P3 and not pattern.endswith(P3_SCORED):
        found = [name for name in found if not name.endswith(P3_SCORED)]
    if not found:
        raise ValueError(f"no configuration like {pattern!r}")
    return found


def _converted(source: TaskSource) -> tuple[list[tuple[str | None, Dataset]], list[str]]:
    """The same from the Hub's parquet form, at the commit that it has now."""
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

    configs = [source.config]
    if source.config is None or "*" in source.config:
        known = [entry.path for entry in entries(None) if isinstance(entry, RepoFolder)]
        if source.config is None and len(known) != 1:
            raise ValueError(f"the configurations {', '.join(known)}: say which with `config`")
        configs = known if source.config is None else _matching(known, source)
    parts, notes = [], [f"read in the Hub's parquet form, at {commit}"]
    for config in configs:
        for split in (source.split, f"partial-{source.split}"):  # of large ones the Hub converts the first part
            files = sorted(entry.path for entry in entries(f"{config}/{split}") if entry.path.endswith(".parquet"))
            if files:
                urls = [f"hf://datasets/{name}@{commit}/{path}" for path in files]
                parts.append((config, load_dataset("parquet", data_files=urls, split="train")))
                notes += ["the Hub's parquet form holds the first part of it alone"] * (split != source.split)
                break
        else:
            raise ValueError(f"no {config}/{source.split} in the parquet form of {name}, which has a script")
    return parts, notes


def _explained(source: TaskSource, error: Exception) -> str:
    name = source.dataset
    causes = [error, error.__cause__, error.__context__]
    if any(isinstance(cause, GatedRepoError) for cause in causes) or "a gated dataset" in str(error):
        return (
            f"the data set {name} is gated. Accept its terms on its page on the Hub, and log in with `hf auth login`."
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes) or "doesn't exist on the Hub" in str(error):
        return (
            f"expected the data set {name} on the Hub, found none. It was renamed or removed, or it is private: then log in "
            "with `hf auth login`."
        )
    if isinstance(error, OfflineModeIsEnabled) or "OfflineModeIsEnabled" in str(error):
        return (
            f"expected the data set {name} in the cache, for this is offline, found none. Run once with a connection."
        )
    if isinstance(error, ConnectionError | _HTTPError) and not isinstance(error, HfHubHTTPError):
        return f"expected the data set {name}, found no Hub at {HfApi().endpoint} ({error}). Try again: what is done is kept."
    config = f"{source.config}, " if source.config else ""
    return f"expected {config}split {source.split!r} of the data set {name}, found: {' '.join(str(error).split())}"
