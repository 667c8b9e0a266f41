"""Files and artifacts that are fetched from the Hub and verified."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TypedDict

from huggingface_hub import (
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import DryRunError, HfHubHTTPError
from huggingface_hub.utils.sha import git_hash

from ..core.files import is_intact
from .errors import HubError, explained
from .repository import HubAccess, Repository, check_revision, looks_like_path, what_was_meant
from .safety import SAFE_SUFFIXES

LARGEST_TEXT = 128 << 20
"""Bytes that a file of settings, a tokenizer or a card may have; weights, examples and vectors may have any number."""
_LARGE_SUFFIXES = frozenset({".safetensors", ".parquet", ".faiss"})
_SAFE_FILES = sorted(f"*{suffix}" for suffix in SAFE_SUFFIXES)
_BELOW = ["*/*"]
_OTHER_RUNTIMES = ["onnx/*", "openvino/*"]


class _Arguments(TypedDict):
    repo_type: str
    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    force_download: bool


def _arguments(repository: Repository, access: HubAccess) -> _Arguments:
    """Arguments that `hf_hub_download` and `snapshot_download` both take."""
    return {
        "repo_type": repository.repo_type,
        "revision": repository.revision,
        "token": access.token,
        "cache_dir": access.cache_dir,
        "local_files_only": access.local_files_only,
        "force_download": access.force_download,
    }


def fetch_file(
    repository: Repository, name: str, access: HubAccess, *, largest: int = LARGEST_TEXT
) -> tuple[Path, Repository]:
    """A file of a repository, and the repository at the commit that the file is of.

    Where nobody answers, this fails at once: it is what a repository is opened with.

    Args:
        repository: A repository at any revision.
        name: Path of the file in the repository.
        access: How the file is fetched.
        largest: Bytes that a file of settings may have; a larger one is not fetched.

    Raises:
        HubError: The file could not be had, is too large, or its bytes are not those that the Hub announced.
    """
    _reach(repository, name, access)
    path, is_new = _download(repository, name, access, largest)
    _check(path, repository, name, _is_announced(path, repository, name, access if is_new else None))
    commit = path.parents[len(PurePosixPath(name).parts) - 1].name
    return path, Repository(repository.repo_id, repository.repo_type, commit)


def fetch_files(
    repository: Repository, folder: str, sha256: Mapping[str, str], access: HubAccess, *, verify: bool = True
) -> Path:
    """Files of a repository at a commit, and none but those; what is in the cache asks for no request.

    Args:
        repository: A repository at a commit.
        folder: Folder in the repository; "." is its root.
        sha256: Checksums of the files, by their names below `folder`.
        access: How the files are fetched.
        verify: Compare the files with their checksums.

    Returns:
        The folder with the files; there may be others in it.

    Raises:
        HubError: A file could not be had, is too large, or its bytes are others. Those leave the cache.
    """
    root = Path()
    for name, expected in sha256.items():
        name = str(PurePosixPath(folder) / name)
        path, _ = _download(repository, name, access)
        if verify:
            _check(path, repository, name, is_intact(path, expected))
        root = path.parents[len(PurePosixPath(name).parts) - 1]
    return root / folder


def fetch_artifact(repository: Repository, access: HubAccess, *, nested: bool = False) -> Path:
    """The files of a repository that are in safe formats, each compared with what the Hub announced.

    Args:
        repository: A repository at any revision.
        access: How the files are fetched.
        nested: Whether the files of folders are fetched, too, and not those at the root alone.

    Raises:
        HubError: The repository could not be had, a file of settings is too large, or the bytes of a file are others.
            Those leave the cache.
    """
    asked, ignored = _arguments(repository, access), _OTHER_RUNTIMES if nested else _BELOW
    with explained(repository, access=access):
        try:
            planned = snapshot_download(
                repository.repo_id, dry_run=True, allow_patterns=_SAFE_FILES, ignore_patterns=ignored, **asked
            )
        except DryRunError:
            planned = []  # The Hub cannot be asked, so that nothing is fetched.
        new = {file.filename: file.file_size for file in planned if file.will_download}
        for name, size in new.items():
            _check_size(size, repository, name, LARGEST_TEXT)
        folder = Path(
            snapshot_download(repository.repo_id, allow_patterns=_SAFE_FILES, ignore_patterns=ignored, **asked)
        )
    if not folder.is_dir():
        raise HubError(
            f"Expected files in safe formats ({', '.join(sorted(SAFE_SUFFIXES))}) at the root of {repository}, found none. It holds something "
            "else: check the name, or publish the artifact with `push_to_hub`."
        )
    for path in sorted(folder.rglob("*") if nested else folder.iterdir()):
        if path.is_file() and path.suffix in SAFE_SUFFIXES:
            name = path.relative_to(folder).as_posix()
            ask = access if name in new else None
            _check(path, repository, name, _is_announced(path, repository, name, ask))
    return folder


def refuse_revision(folder: str | Path, revision: str | None) -> None:
    """Refuses a revision of a folder: another version than the one that was asked for would be opened.

    Raises:
        ValueError: There is a revision.
    """
    if revision is not None:
        raise ValueError(
            f"Expected a `revision` of a repository on the Hub, found {revision!r} of the folder {folder}, which has none. Leave "
            "`revision` out, or name a repository."
        )


def artifact_folder(
    name_or_path: str | Path, repo_type: str, revision: str | None, access: HubAccess, *, nested: bool = False
) -> Path:
    """The folder of an artifact, fetched if no folder has that name and a repository may ([`fetch_artifact`]).

    Raises:
        FileNotFoundError: There is no such folder, and no repository can have that name.
        HubError: The repository could not be had.
        ValueError: A `revision` is asked for of a folder, or is none.
    """
    check_revision(revision)
    if str(name_or_path) and Path(name_or_path).exists():
        refuse_revision(name_or_path, revision)
        return Path(name_or_path)
    if isinstance(name_or_path, Path) or looks_like_path(name_or_path):
        raise FileNotFoundError(
            f"Expected a folder, or the name of a repository on the Hub (`org/name`), found {str(name_or_path)!r}, and no such folder."
            f"{what_was_meant(str(name_or_path))}"
        )
    return fetch_artifact(Repository(name_or_path, repo_type, revision), access, nested=nested)


def _reach(repository: Repository, name: str, access: HubAccess) -> None:
    """Fails at once where nobody answers and a file is not in the cache: `hf_hub_download` alone would try for 24 s."""
    if access.local_files_only or (not access.force_download and _cached(repository, name, access)):
        return
    url = hf_hub_url(repository.repo_id, name, repo_type=repository.repo_type, revision=repository.revision)
    with explained(repository, name=name, access=access):
        try:
            get_hf_file_metadata(url, token=access.token)
        except HfHubHTTPError:
            return  # Somebody answers, and says when the file is fetched why it cannot be had.


def _cached(repository: Repository, name: str, access: HubAccess) -> str | None:
    """Where a file is in the cache, also where a branch is remembered, so that it is found without the network."""
    path = try_to_load_from_cache(
        repository.repo_id,
        name,
        cache_dir=access.cache_dir,
        revision=repository.revision,
        repo_type=repository.repo_type,
    )
    return path if isinstance(path, str) else None


def _download(repository: Repository, name: str, access: HubAccess, largest: int = LARGEST_TEXT) -> tuple[Path, bool]:
    """A file in the cache, and whether it was fetched just now."""
    with explained(repository, name=name, access=access):
        planned = hf_hub_download(repository.repo_id, name, dry_run=True, **_arguments(repository, access))
        cached = None if planned.will_download else _cached(repository, name, access)
        if cached and _is_same_folder(Path(cached).parent, Path(planned.local_path).parent):
            return Path(cached), False
        _check_size(planned.file_size, repository, name, largest)
        path = hf_hub_download(repository.repo_id, name, **_arguments(repository, access))
        return Path(path), planned.will_download


def _is_same_folder(one: Path, other: Path) -> bool:
    """Whether two paths lead to one folder: the client follows links on the way to the cache in some of its paths."""
    return one == other or one.resolve() == other.resolve()


def _check_size(size: int | None, repository: Repository, name: str, largest: int) -> None:
    """Refuses, before a byte of it is fetched, a large file that holds no weights, examples or vectors."""
    if PurePosixPath(name).suffix not in _LARGE_SUFFIXES and size is not None and size > largest:
        raise HubError(
            f"Expected {name} of at most {largest:,} bytes in {repository}, found {size:,}. It was not fetched: "
            "recross_hf writes no such file. Ask who published it to publish it again."
        )


def _check(path: Path, repository: Repository, name: str, intact: bool) -> None:
    if intact:
        return
    # A file that is as the Hub announced it may be in use elsewhere: then it is the manifest that errs.
    if _knows_checksum(path) and _is_announced(path, repository, name, None):
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


def _is_announced(path: Path, repository: Repository, name: str, asked: HubAccess | None) -> bool:
    """Whether a cached file is what the Hub announced: its name in the cache is its checksum there.

    Args:
        asked: How to ask the Hub where the cache has no such names, as on a file system without links; None asks nobody
            and takes the file as it is.
    """
    digest: str | None = path.resolve().name
    if path.resolve().parent.name != "blobs":
        if asked is None:
            return True
        commit = path.parents[len(PurePosixPath(name).parts) - 1].name
        url = hf_hub_url(repository.repo_id, name, repo_type=repository.repo_type, revision=commit)
        with explained(repository, name=name, access=asked):
            digest = get_hf_file_metadata(url, token=asked.token).etag
    if digest is not None and len(digest) == 64:
        return is_intact(path, digest)
    return digest is None or len(digest) != 40 or git_hash(path.read_bytes()) == digest
