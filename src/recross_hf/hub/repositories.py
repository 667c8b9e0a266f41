"""Repositories on the Hub: files that are fetched and verified, and what is published in one commit."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import DryRunError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from ..core.files import is_intact, sha256_of
from .errors import SAFE_SUFFIXES, HubAccess, HubError, Repository, explained, is_repo_id

LARGEST_TEXT = 128 << 20
"""Bytes that a file of settings, a tokenizer or a card may have; weights, examples and vectors may have any number."""
_LARGE_SUFFIXES = frozenset({".safetensors", ".parquet", ".faiss"})
# Of an older version, and read in place of the new files or beside them. Whatever else a repository has is its owner's.
_SHADOWING = re.compile(
    r"(pytorch_model|model|adapter_model|tf_model|flax_model)[\w.-]*\.(bin|safetensors|h5|msgpack|index\.json)"
    r"|(config|adapter_config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|recross|index)\.json"
    r"|vocab\.(json|txt)|merges\.txt|(tokenizer|spiece|sentencepiece\.bpe)\.model|chat_template\.jinja"
    r"|examples\.parquet|retrieved\.parquet|index\.faiss"
)

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
    if isinstance(name_or_path, Path) or Path(name_or_path).exists() or not is_repo_id(name_or_path):
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
            if (
                cached == planned.local_path
            ):  # also where a branch is remembered, so that it is found without the network
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
    return len(digest) != 40 or _git_digest(path.read_bytes()) == digest


def _git_digest(content: bytes) -> str:
    """Git's name of a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


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
    with explained(Repository(repo_id), writes=True):
        return f"{HfApi().whoami(token=token)['name']}/{repo_id}"


def check_may_publish(
    repo_id: str, *, repo_type: str = "model", token: str | bool | None = None, private: bool | None = None
) -> str:
    """Makes sure, before work that is to be published begins, that a repository is there and may be written to.

    Returns:
        Its name, with its namespace.

    Raises:
        HubError: that is not so.
    """
    repo_id = full_name(repo_id, token)
    with explained(Repository(repo_id, repo_type), writes=True):
        api = HfApi(token=token)
        api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
        api.auth_check(repo_id, repo_type=repo_type, write=True)
    return repo_id


def is_private(repository: Repository, token: str | bool | None = None) -> bool | None:
    """Whether a repository is private; None where the token sees none.

    Raises:
        HubError: the Hub could not be asked, or takes no such token.
    """
    with explained(repository, writes=True):
        try:
            return HfApi(token=token).repo_info(repository.repo_id, repo_type=repository.repo_type).private
        except RepositoryNotFoundError:
            return None


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
        create_pr: propose the commit in place of making it. A pipeline names the commits that were proposed of its parts:
            keep those pull requests, merged or not.

    Raises:
        HubError: there is no permission or no network, somebody else wrote at the same time, or the Hub does not hold what it
            was sent.
    """
    repo_id, repo_type = publication.repo_id, publication.repo_type
    repository = Repository(repo_id, repo_type, revision)
    additions = [CommitOperationAdd(name, content) for name, content in sorted(publication.files.items())]
    api = HfApi(token=token)
    with explained(repository, writes=True):
        api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, space_sdk=publication.space_sdk)
        if revision is not None and not create_pr and not revision.startswith("refs/"):
            api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True)
        info = api.repo_info(repo_id, repo_type=repo_type, revision=revision)
        if private and not info.private:
            raise not_private(repository)
        there = {sibling.rfilename for sibling in info.siblings or []}
        old = sorted(name for name in there - {*publication.files} if _SHADOWING.fullmatch(name))
        # An artifact is published whole: what the repository's own .gitignore names would be left out of the commit, silently.
        api.preupload_lfs_files(
            repo_id,
            additions,
            repo_type=repo_type,
            revision=revision,
            create_pr=create_pr,
            gitignore_content="",
            free_memory=False,
        )
        commit = api.create_commit(
            repo_id,
            [*additions, *(CommitOperationDelete(name) for name in old)],
            repo_type=repo_type,
            commit_message=commit_message or f"Publish {repo_id.rpartition('/')[2]}",
            revision=revision,
            create_pr=create_pr,
            parent_commit=info.sha,  # so that of two writers one is told
        )
        # Where nothing was to change, the client names the branch's head, which may be somebody else's by now.
        held = api.get_paths_info(repo_id, [*publication.files], repo_type=repo_type, revision=commit.oid)
        digests = {
            file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in held if isinstance(file, RepoFile)
        }
    missing = [one.path_in_repo for one in additions if not _is_of(one, digests.get(one.path_in_repo))]
    if missing:
        raise HubError(
            f"Expected {repository} to hold at {commit.oid} what was published, found {', '.join(missing)} missing or "
            "different: the Hub left them out, or somebody else wrote at the same time. Look at both, and publish again."
        )
    return commit


def not_private(repository: Repository) -> HubError:
    """That a repository is public which was to be private."""
    return HubError(
        f"Expected {repository} to be private, found it public. Change that in its settings ({repository.url}/settings), or "
        "publish under another name."
    )


def _is_of(addition: CommitOperationAdd, digest: str | None) -> bool:
    """Whether this is the checksum on the Hub of a file that was sent: SHA-256, or git's name of a small one."""
    if digest is None or len(digest) == 64:
        return digest == addition.upload_info.sha256.hex()
    with addition.as_file() as file:
        return _git_digest(file.read()) == digest
