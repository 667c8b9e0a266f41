"""Errors about the Hub and about what came from it: each says what was expected, what was found and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from json import JSONDecodeError

from huggingface_hub import constants, get_session
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

# The client changed its HTTP library between two versions; this is the base of whatever that library raises.
_HTTP_ERROR: type[Exception] = next(base for base in HfHubHTTPError.__bases__ if base is not OSError)
CLIENT_ERRORS: tuple[type[Exception], ...] = (
    _HTTP_ERROR,
    EntryNotFoundError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    ConnectionError,
)
"""What `huggingface_hub` raises where the Hub could not be asked or refused."""
WAITS = (10.0, 300.0, 300.0, None)
"""Seconds to wait for a connection, for the next bytes of an answer and to send some, and for a place among the connections."""
# The client wraps some of its errors in these.
_EXPLAINED: tuple[type[Exception], ...] = (*CLIENT_ERRORS, ValueError, RuntimeError)


class HubError(OSError):
    """The Hub could not give or take something; the message says why, and what to do."""


class ArtifactError(ValueError):
    """A folder, a repository or a file in it is not the artifact that it should be; the message says what is wrong."""


@contextmanager
def _answered_in_time() -> Iterator[None]:
    session = get_session()
    before, session.timeout = session.timeout, WAITS
    try:
        yield
    finally:
        session.timeout = before


@contextmanager
def explained(
    repository: Repository,
    *,
    name: str | None = None,
    access: HubAccess | None = None,
    writes: bool = False,
) -> Iterator[None]:
    """Turns what the client raises into a `HubError` with an [`explanation`], which says what the arguments are.

    What is written waits `WAITS` for an answer: the client itself would wait for ever.
    """
    try:
        with _answered_in_time() if writes else nullcontext():
            yield
    except HubError:
        raise
    except _EXPLAINED as error:
        said = explanation(error, repository, name=name, access=access, writes=writes)
        if said is None:
            raise
        raise HubError(said) from error


def explanation(
    error: BaseException,
    repository: Repository,
    *,
    name: str | None = None,
    access: HubAccess | None = None,
    writes: bool = False,
) -> str | None:
    """What happened and what to do, where the client raised an error or caused one.

    Args:
        error: An error; what caused it counts as well.
        repository: The repository that was asked for.
        name: The file of it that was asked for.
        access: How it was asked for.
        writes: Whether something was to be written.

    Returns:
        One or more sentences; None where the error does not come from the Hub's client.
    """
    causes = [cause for cause in _chain(error) if isinstance(cause, CLIENT_ERRORS)]
    if not causes:
        return _explanation_of_others(error, repository)
    # That a file is not in the cache has a reason of its own, unless nothing else was tried.
    cause = next((cause for cause in causes if not isinstance(cause, LocalEntryNotFoundError)), causes[0])
    wanted = str(repository) if name is None else f"{name} of {repository}"
    if repository.revision is not None:
        wanted += f" at {repository.revision}"
    remedy = "log in with `hf auth login`, or pass `token`"
    if isinstance(cause, GatedRepoError):
        return gated(repository)
    if isinstance(cause, RepositoryNotFoundError):
        return (
            f"There is no {repository.repo_type} repository {repository.repo_id} at {constants.ENDPOINT}, or it is private "
            f"and not yours to see. Check the name (a folder of this name is not here either); if it is private, {remedy}."
        )
    if isinstance(cause, RevisionNotFoundError):
        return (
            f"{repository} has no revision {repository.revision}. Name a branch, a tag or a commit that it has: "
            f"{repository.url}."
        )
    if isinstance(cause, HFValidationError):
        return f"Expected the name of a repository, such as org/name, found {repository.repo_id!r}."
    if isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return _not_in_the_cache(cause, wanted, access)
    if isinstance(cause, EntryNotFoundError):
        return f"There is no {wanted}. Check name and revision, or ask who published it to publish it again."
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
    if status == 401 or isinstance(cause, LocalTokenNotFoundError):
        return (
            f"The Hub asks for a valid token to {'write to' if writes else 'read'} {wanted}: there is none, or it was mistyped "
            f"or has expired. Make one at {constants.ENDPOINT}/settings/tokens, then {remedy}."
        )
    if status == 403:
        return (
            f"The token may not {'write to' if writes else 'read'} {wanted}. Take one with that right, or ask the owners of "
            f"{repository.repo_id.partition('/')[0]} for it."
        )
    if status in (409, 412):
        return f"Somebody else wrote to {wanted} at the same time, and nothing of this was written. Publish again."
    if isinstance(cause, HfHubHTTPError):
        return _refusal(cause, wanted)
    return (
        f"No connection to {constants.ENDPOINT} for {wanted}"
        f"{'' if writes else ', which is not in the cache'}: {cause}. Check the network and try again"
        f"{'' if writes else '; if a folder was meant, check its path'}."
    )


def _refusal(cause: HfHubHTTPError, wanted: str) -> str:
    """What an answer with another status says."""
    status = cause.response.status_code
    if status == 413:
        return f"The Hub takes no file as large as one of {wanted}. Save in smaller shards, or leave the file out."
    if status == 429:
        waits = cause.response.headers.get("Retry-After")
        return (
            f"The Hub was asked too often, and refused {wanted} (429). Wait {f'{waits} seconds' if waits else 'some minutes'}, and try "
            "again; with a token more is allowed."
        )
    said = str(cause).partition("\n")[0].rstrip(".")
    return f"The Hub answered {status} when asked for {wanted}: {said}. If that is its own trouble, try again later."


def _explanation_of_others(error: BaseException, repository: Repository) -> str | None:
    """What happened where the client did not expect what it met: answers that are none of a Hub, and a token that is none."""
    causes = list(_chain(error))
    if any(isinstance(cause, JSONDecodeError) for cause in causes):
        return (
            f"Expected an answer of a Hub about {repository} from {constants.ENDPOINT}, found something else, such as the page of a proxy or "
            "a login. Open that address in a browser, or check HF_ENDPOINT, and try again."
        )
    if any(isinstance(cause, UnicodeEncodeError) and cause.encoding == "ascii" for cause in causes):
        return (
            f"Expected a token of plain letters and digits for {repository}, found one with others: it was not copied as it is. Take it from "
            f"{constants.ENDPOINT}/settings/tokens."
        )
    return None


def gated(repository: Repository) -> str:
    """Says that the owners of a repository decide who reads it, and how to be let in."""
    return (
        f"{repository} is gated: its owners decide who reads it. Ask for access at {repository.url}, then log in with "
        "`hf auth login`, or pass `token`."
    )


def _not_in_the_cache(cause: BaseException, wanted: str, access: HubAccess | None) -> str:
    setting = "`local_files_only=True`" if access is not None and access.local_files_only else "HF_HUB_OFFLINE"
    if isinstance(cause, IncompleteSnapshotError):
        missing = str(cause).partition(" is incomplete: ")[2].partition(". ")[0]
        return (
            f"{wanted} is in the cache in part: {missing}, and {setting} forbids to fetch the rest. Load it once with the "
            "network, or name the `cache_dir` that has it."
        )
    return (
        f"{wanted} is not in the cache, and {setting} forbids to fetch it. Load it once with the network, or name "
        "the `cache_dir` that has it; if a folder was meant, check its path."
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
