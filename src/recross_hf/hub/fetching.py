"""Files and artifacts that are fetched from the Hub and verified."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from huggingface_hub import (
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import DryRunError

from ..core.files import is_intact
from .errors import HubError, explained
from .repository import HubAccess, Repository, looks_like_path
from .safety import SAFE_SUFFIXES, git_digest

LARGEST_TEXT = 128 << 20
"""Bytes that a file of settings, a tokenizer or a card may have; weights, examples and vectors may have any number."""
_LARGE_SUFFIXES = frozenset({".safetensors", ".parquet", ".faiss"})

# ---- fetching ----------------------------------------------------------------------------------------------------------


def fetch_file(
    repository: Repository, name: str, access: HubAccess, *, largest: int = LARGEST_TEXT
) -> tuple[Path, Repository]:
    """A file of a repository, and the repository at the commit that it is of.

    Args:
        largest: bytes that a file of settings may have; a larger one is not fetched.

    Raises:
        HubError: it could not be had, is too large, or its bytes are not those that the Hub announced.
    """
    path, is_new = _download(repository, name, access, largest)
    _check(path, repository, name, _is_announced(path, repository, name, access if is_new else None))
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
        HubError: a file could not be had, is too large, or its bytes are others. Those leave the cache.
    """
    found = Path()
    for name, expected in sha256.items():
        name = str(PurePosixPath(folder) / name)
        path, _ = _download(repository, name, access)
        if verify:
            _check(path, repository, name, is_intact(path, expected))
        found = path.parents[len(PurePosixPath(name).parts) - 1]
    return found / folder


def fetch_artifact(repository: Repository, access: HubAccess) -> Path:
    """The files at the root of a repository that are in safe formats, each compared with what the Hub announced.

    Raises:
        HubError: the repository could not be had, a file of settings is too large, or the bytes of a file are others.
            Those leave the cache.
    """
    arguments = {
        "repo_type": repository.repo_type,
        "revision": repository.revision,
        "allow_patterns": [f"*{suffix}" for suffix in SAFE_SUFFIXES],
        "ignore_patterns": ["*/*"],
        "token": access.token,
        "cache_dir": access.cache_dir,
        "local_files_only": access.local_files_only,
        "force_download": access.force_download,
    }
    with explained(repository, access=access):
        try:
            planned = snapshot_download(repository.repo_id, dry_run=True, **arguments)
        except DryRunError:
            planned = []  # The Hub cannot be asked, so that nothing is fetched.
        new = {file.filename: file.file_size for file in planned if file.will_download}
        for name, size in new.items():
            _check_size(size, repository, name, LARGEST_TEXT)
        folder = Path(snapshot_download(repository.repo_id, **arguments))
    for path in sorted(folder.iterdir()):
        if path.suffix in SAFE_SUFFIXES:
            asked = access if path.name in new else None
            _check(path, repository, path.name, _is_announced(path, repository, path.name, asked))
    return folder


def artifact_folder(name_or_path: str | Path, repo_type: str, revision: str | None, access: HubAccess) -> Path:
    """The folder of an artifact, fetched if no folder has that name and a repository may ([`fetch_artifact`])."""
    if isinstance(name_or_path, Path) or Path(name_or_path).exists() or looks_like_path(name_or_path):
        return Path(name_or_path)
    return fetch_artifact(Repository(name_or_path, repo_type, revision), access)


def _download(repository: Repository, name: str, access: HubAccess, largest: int = LARGEST_TEXT) -> tuple[Path, bool]:
    """A file in the cache, and whether it was fetched just now."""
    arguments = {
        "repo_type": repository.repo_type,
        "revision": repository.revision,
        "token": access.token,
        "cache_dir": access.cache_dir,
        "local_files_only": access.local_files_only,
        "force_download": access.force_download,
    }
    with explained(repository, name=name, access=access):
        planned = hf_hub_download(repository.repo_id, name, dry_run=True, **arguments)
        if not planned.will_download:
            cached = try_to_load_from_cache(
                repository.repo_id,
                name,
                cache_dir=access.cache_dir,
                revision=repository.revision,
                repo_type=repository.repo_type,
            )
            # Also where a branch is remembered, so that it is found without the network. Links on the way to the cache are
            # followed in one of the two paths.
            if isinstance(cached, str) and Path(cached).parent.resolve() == Path(planned.local_path).parent.resolve():
                return Path(cached), False
        _check_size(planned.file_size, repository, name, largest)
        return Path(hf_hub_download(repository.repo_id, name, **arguments)), planned.will_download


def _check_size(size: int | None, repository: Repository, name: str, largest: int) -> None:
    """Before a byte of it is fetched: what is no weights, examples or vectors is small."""
    if PurePosixPath(name).suffix not in _LARGE_SUFFIXES and size is not None and size > largest:
        raise HubError(
            f"Expected {name} of at most {largest:,} bytes in {repository}, found {size:,}. It was not fetched: it is none that "
            "recross_hf wrote."
        )


def _check(path: Path, repository: Repository, name: str, intact: bool) -> None:
    if intact:
        return
    # What is as the Hub announced it may be somebody else's, too: then it is the manifest that errs.
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
        asked: how to ask the Hub where the cache has no such names, as on a file system without links; None leaves it.
    """
    digest = path.resolve().name
    if path.resolve().parent.name != "blobs":
        if asked is None:
            return True
        commit = path.parents[len(PurePosixPath(name).parts) - 1].name
        url = hf_hub_url(repository.repo_id, name, repo_type=repository.repo_type, revision=commit)
        with explained(repository, name=name, access=asked):
            digest = get_hf_file_metadata(url, token=asked.token).etag
    if len(digest) == 64:
        return is_intact(path, digest)
    return len(digest) != 40 or git_digest(path.read_bytes()) == digest
