"""Repositories on the Hub: files that are fetched and verified, and what is published in one commit."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from .files import is_intact, sha256_of

SAFE_SUFFIXES = frozenset({".safetensors", ".parquet", ".faiss", ".json", ".txt", ".md", ".model", ".jinja"})
"""Formats of artifacts: none of them can hold code that runs when it is read."""
UNSAFE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5"})
COMMIT = re.compile(r"[0-9a-f]{40}")
# Of an older version, and read in place of the new files or beside them. Whatever else a repository has is its owner's.
_SHADOWING = re.compile(
    r"(pytorch_model|model|adapter_model|tf_model|flax_model)[\w.-]*\.(bin|safetensors|h5|msgpack|index\.json)"
    r"|(config|adapter_config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|recross|index)\.json"
    r"|vocab\.(json|txt)|merges\.txt|(tokenizer|spiece|sentencepiece\.bpe)\.model|chat_template\.jinja"
    r"|examples\.parquet|retrieved\.parquet|index\.faiss"
)

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


# ---- fetching ----------------------------------------------------------------------------------------------------------


def fetch_file(repository: Repository, name: str, access: HubAccess) -> tuple[Path, Repository]:
    """A file of a repository, and the repository at the commit that it is of.

    Raises:
        HubError: it could not be had, or its bytes are not those that the Hub announced.
    """
    path = _download(repository, name, access)
    _check(path, repository, name, _is_announced(path))
    commit = path.parents[len(PurePosixPath(name).parts) - 1].name
    return path, Repository(repository.repo_id, repository.repo_type, commit)


def fetch_files(
    repository: Repository, folder: str, sha256: Mapping[str, str], access: HubAccess, *, verify: bool = True
) -> Path:
    """Files of a repository at a commit, and none but those; what is in the cache asks for no request.

    Args:
        repository: at a commit.
        folder: in the repository; "." is its root.
        sha256: the checksums, by the name below `folder`.
        verify: compare the files with their checksums.

    Returns:
        The folder with the files; there may be others in it.

    Raises:
        HubError: a file could not be had, or its bytes are others. Those leave the cache.
    """
    found = Path()
    for name, expected in sha256.items():
        name = str(PurePosixPath(folder) / name)
        path = _download(repository, name, access)
        if verify:
            _check(path, repository, name, is_intact(path, expected))
        found = path.parents[len(PurePosixPath(name).parts) - 1]
    return found / folder


def fetch_artifact(repository: Repository, access: HubAccess) -> Path:
    """The files at the root of a repository that are in safe formats, each compared with what the Hub announced.

    Raises:
        HubError: the repository could not be had, or the bytes of a file are others. Those leave the cache.
    """
    with _explained(repository, access=access):
        folder = Path(
            snapshot_download(
                repository.repo_id,
                repo_type=repository.repo_type,
                revision=repository.revision,
                allow_patterns=[f"*{suffix}" for suffix in SAFE_SUFFIXES],
                ignore_patterns=["*/*"],
                token=access.token,
                cache_dir=access.cache_dir,
                local_files_only=access.local_files_only,
                force_download=access.force_download,
            )
        )
    for path in sorted(folder.iterdir()):
        if path.suffix in SAFE_SUFFIXES:
            _check(path, repository, path.name, _is_announced(path))
    return folder


def artifact_folder(name_or_path: str | Path, repo_type: str, revision: str | None, access: HubAccess) -> Path:
    """The folder of an artifact, fetched if no folder has that name and a repository may ([`fetch_artifact`])."""
    if isinstance(name_or_path, Path) or Path(name_or_path).exists() or not is_repo_id(name_or_path):
        return Path(name_or_path)
    return fetch_artifact(Repository(name_or_path, repo_type, revision), access)


def _download(repository: Repository, name: str, access: HubAccess) -> Path:
    with _explained(repository, name=name, access=access):
        return Path(
            hf_hub_download(
                repository.repo_id,
                name,
                repo_type=repository.repo_type,
                revision=repository.revision,
                token=access.token,
                cache_dir=access.cache_dir,
                local_files_only=access.local_files_only,
                force_download=access.force_download,
            )
        )


def _check(path: Path, repository: Repository, name: str, intact: bool) -> None:
    if intact:
        return
    # What is as the Hub announced it may be somebody else's, too: then it is the manifest that errs.
    if _knows_checksum(path) and _is_announced(path):
        raise HubError(
            f"{name} of {repository} is what the Hub holds, and not what the pipeline names: its checksum differs. Ask who "
            "published the pipeline to publish it again."
        )
    for cached in (path.resolve(), path):
        cached.unlink(missing_ok=True)
    raise HubError(
        f"{name} of {repository} did not arrive as it was published: its checksum differs. It was removed from the cache: "
        "load again to fetch it anew. If that gives the same, the file on the Hub is another one: publish it again."
    )


def _knows_checksum(path: Path) -> bool:
    blob = path.resolve()
    return blob.parent.name == "blobs" and len(blob.name) in (40, 64)


def _is_announced(path: Path) -> bool:
    """Whether a cached file is what the Hub announced: its name in the cache is its checksum there."""
    blob = path.resolve()
    if blob.parent.name != "blobs":
        return True  # a cache without links knows no checksums
    if len(blob.name) == 64:
        return is_intact(blob, blob.name)
    content = blob.read_bytes()
    return len(blob.name) != 40 or hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == blob.name


# ---- publishing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Publication:
    """What a repository is to hold.

    Args:
        files: paths of this machine, or bytes, by the path in the repository.
        space_sdk: of a Space.
    """

    repo_id: str
    repo_type: str
    files: Mapping[str, Path | bytes]
    space_sdk: str | None = None

    def __post_init__(self) -> None:
        unsafe = [name for name in self.files if PurePosixPath(name).suffix not in SAFE_SUFFIXES]
        if unsafe and self.repo_type != "space":
            raise ValueError(
                f"Expected files in safe formats ({', '.join(sorted(SAFE_SUFFIXES))}), found {', '.join(unsafe)}: pickles "
                "and other formats are not published. Save the artifact with `save_pretrained`."
            )

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file, by its path in the repository."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in sorted(self.files.items())
        }

    @property
    def sha256(self) -> dict[str, str]:
        """Checksums of the files, by their paths in the repository; the card has none."""
        return {
            name: hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256_of(content)
            for name, content in sorted(self.files.items())
            if name != "README.md"
        }


def full_name(repo_id: str, token: str | bool | None = None) -> str:
    """A repository's name with its namespace: the user's own where none is given.

    Raises:
        HubError: no namespace is given, and the token does not tell whose it is.
    """
    if not is_repo_id(repo_id):
        raise HubError(f"Expected the name of a repository, such as org/name, found {repo_id!r}.")
    if "/" in repo_id:
        return repo_id
    with _explained(Repository(repo_id), writes=True):
        return f"{HfApi().whoami(token=token)['name']}/{repo_id}"


def publish(
    publication: Publication,
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
) -> CommitInfo:
    """Makes a repository hold these files: one commit, or none where it holds them already.

    Files of artifacts that an older version had and this one has not, such as shards of weights, are deleted in the same
    commit; whatever else there is stays. Nothing is uploaded twice.

    Args:
        private: of a repository that is made; by default as the namespace says.
        revision: the branch to write to; it is made if it is not there.
        create_pr: propose the commit in place of making it.

    Raises:
        HubError: there is no permission or no network, or somebody else wrote at the same time.
    """
    repo_id, repo_type = publication.repo_id, publication.repo_type
    repository = Repository(repo_id, repo_type, revision)
    api = HfApi(token=token)
    with _explained(repository, writes=True):
        api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, space_sdk=publication.space_sdk)
        if revision is not None and not create_pr and not revision.startswith("refs/"):
            api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True)
        info = api.repo_info(repo_id, repo_type=repo_type, revision=revision)
        if private and not info.private:
            raise HubError(
                f"Expected {repository} to be private, found it public. Change that in its settings ({repository.url}"
                "/settings), or publish under another name."
            )
        there = {sibling.rfilename for sibling in info.siblings or []}
        old = sorted(name for name in there - {*publication.files} if _SHADOWING.fullmatch(name))
        return api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(name, content) for name, content in sorted(publication.files.items())),
                *(CommitOperationDelete(name) for name in old),
            ],
            repo_type=repo_type,
            commit_message=commit_message or f"Publish {repo_id.rpartition('/')[2]}",
            revision=revision,
            create_pr=create_pr,
            parent_commit=info.sha,  # so that of two writers one is told
        )


# ---- errors ------------------------------------------------------------------------------------------------------------


@contextmanager
def _explained(
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
