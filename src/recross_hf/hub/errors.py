"""`HubError`: what the client raises, put as what happened and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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

from .repository import HubAccess, Repository

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
            "the `cache_dir` that has it; if a folder was meant, check its path."
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
        f"{'' if writes else ', which is not in the cache'}: {error}. Check the network and try again"
        f"{'' if writes else '; if a folder was meant, check its path'}."
    )
