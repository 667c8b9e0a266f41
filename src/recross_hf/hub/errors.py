"""Repositories on the Hub: their names, how they are reached, and what it means when that fails."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

SAFE_SUFFIXES = frozenset({".safetensors", ".parquet", ".faiss", ".json", ".txt", ".md", ".model", ".jinja"})
"""Formats of artifacts: none of them can hold code that runs when it is read."""
UNSAFE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5"})
COMMIT = re.compile(r"[0-9a-f]{40}")

# The client changed its HTTP library between two versions; this is the base of whatever that raises.
_HTTPError = HfHubHTTPError.__bases__[0]
_CLIENT_ERRORS = (
    _HTTPError,
    EntryNotFoundError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    ConnectionError,
)


class HubError(OSError):
    """Something on the Hub could not be had or written; the message says why, and what to do."""


@dataclass(frozen=True)
class HubAccess:
    """How files are fetched, as in `huggingface_hub`.

    Args:
        token: a token, `False` for none; the one of `hf auth login` by default.
        cache_dir: where files are kept; the cache of `huggingface_hub` by default.
        local_files_only: take what is in the cache and make no request.
        force_download: fetch files anew that are in the cache.
    """

    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False


@dataclass(frozen=True)
class Repository:
    """A repository on the Hub at a revision.

    Args:
        repo_type: "model", "dataset" or "space".
        revision: a branch, a tag or a commit; the main branch by default.
    """

    repo_id: str
    repo_type: str = "model"
    revision: str | None = None

    def __str__(self) -> str:
        return f"the {self.repo_type} repository {self.repo_id}"

    @property
    def url(self) -> str:
        """Its page."""
        prefix = "" if self.repo_type == "model" else f"{self.repo_type}s/"
        return f"{constants.ENDPOINT}/{prefix}{self.repo_id}"


def is_repo_id(name: str) -> bool:
    """Whether a name could be that of a repository: `org/name`, or `name` alone."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


# ---- errors ------------------------------------------------------------------------------------------------------------


@contextmanager
def explained(
    repository: Repository,
    *,
    name: str | None = None,
    access: HubAccess | None = None,
    writes: bool = False,
) -> Iterator[None]:
    """Turns what the client raises into a `HubError` that says what to do."""
    try:
        yield
    except HubError:
        raise
    except (*_CLIENT_ERRORS, ValueError, RuntimeError) as error:
        # That a file is not in the cache has a reason of its own, unless nothing else was tried.
        causes = [one for one in _chain(error) if isinstance(one, _CLIENT_ERRORS)]
        if not causes:
            raise
        cause = next((one for one in causes if not isinstance(one, LocalEntryNotFoundError)), causes[0])
        what = str(repository) if name is None else f"{name} of {repository}"
        if repository.revision is not None:
            what += f" at {repository.revision}"
        raise HubError(_explanation(cause, what, repository, access, writes)) from error


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _explanation(
    error: BaseException, what: str, repository: Repository, access: HubAccess | None, writes: bool
) -> str:
    remedy = "log in with `hf auth login`, or pass `token`"
    if isinstance(error, GatedRepoError):
        return f"{repository} is gated: its owners decide who reads it. Ask for access at {repository.url}, then {remedy}."
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"There is no {repository.repo_type} repository {repository.repo_id} at {constants.ENDPOINT}, or it is private "
            f"and not yours to see. Check the name (a folder of this name is not here either); if it is private, {remedy}."
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            f"{repository} has no revision {repository.revision}. Name a branch, a tag or a commit that it has: "
            f"{repository.url}."
        )
    if isinstance(error, HFValidationError):
        return f"Expected the name of a repository, such as org/name, found {repository.repo_id!r}."
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        setting = "`local_files_only=True`" if access is not None and access.local_files_only else "HF_HUB_OFFLINE"
        if isinstance(error, IncompleteSnapshotError):
            missing = str(error).partition(" is incomplete: ")[2].partition(". ")[0]
            return (
                f"{what} is in the cache in part: {missing}, and {setting} forbids to fetch the rest. Load it once with the "
                "network, or name the `cache_dir` that has it."
            )
        return (
            f"{what} is not in the cache, and {setting} forbids to fetch it. Load it once with the network, or name "
            "the `cache_dir` that has it."
        )
    if isinstance(error, EntryNotFoundError):
        return f"There is no {what}. Check name and revision, or ask who published it to publish it again."
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401 or isinstance(error, LocalTokenNotFoundError):
        return (
            f"The Hub asks for a valid token to {'write to' if writes else 'read'} {what}: there is none, or it was mistyped "
            f"or has expired. Make one at {constants.ENDPOINT}/settings/tokens, then {remedy}."
        )
    if status == 403:
        return (
            f"The token may not {'write to' if writes else 'read'} {what}. Take one with that right, or ask the owners of "
            f"{repository.repo_id.partition('/')[0]} for it."
        )
    if status in (409, 412):
        return f"Somebody else wrote to {what} at the same time, and nothing of this was written. Publish again."
    if status is not None:
        said = str(error).partition("\n")[0].rstrip(".")
        return f"The Hub answered {status} when asked for {what}: {said}. If that is its own trouble, try again later."
    return (
        f"No connection to {constants.ENDPOINT} for {what}"
        f"{'' if writes else ', which is not in the cache'}: {error}. Check the network and try again."
    )
