"""Publishing on the Hub: one commit a repository, checked afterwards."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from json import JSONDecodeError
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from ..core.files import sha256_of
from .errors import CLIENT_ERRORS, HubError, explained
from .repository import COMMIT, Repository, check_revision, is_repo_id, what_was_meant
from .safety import SAFE_SUFFIXES

# Files of an older version that would be read in place of the new ones or beside them. Whatever else a repository has is
# its owner's.
_SHADOWING = re.compile(
    r"(pytorch_model|model|adapter_model|tf_model|flax_model)[\w.-]*\.(bin|safetensors|h5|msgpack|index\.json)"
    r"|(config|adapter_config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|recross|index)\.json"
    r"|vocab\.(json|txt)|merges\.txt|(tokenizer|spiece|sentencepiece\.bpe)\.model|chat_template\.jinja"
    r"|examples\.parquet|retrieved\.parquet|index\.faiss"
)

_NO_ANSWER: tuple[type[Exception], ...] = (*CLIENT_ERRORS, JSONDecodeError)


@dataclass(frozen=True)
class Publication:
    """What a repository is to hold.

    Args:
        repo_id: Name of the repository, with its namespace.
        repo_type: "model", "dataset" or "space".
        files: Paths of this machine, or bytes, by the path in the repository.
        space_sdk: SDK of a Space, such as "gradio".

    Raises:
        ValueError: A file is in no safe format; those of a Space, which is code, may be in any.
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
        HubError: No namespace is given, and the token does not tell whose it is.
    """
    if not is_repo_id(repo_id):
        raise HubError(
            f"Expected the name of a repository, such as org/name, found {repo_id!r}.{what_was_meant(repo_id)}"
        )
    if "/" in repo_id:
        return repo_id
    with explained(Repository(repo_id), writes=True):
        return f"{HfApi().whoami(token=token)['name']}/{repo_id}"


def check_may_publish(
    repo_id: str, *, repo_type: str = "model", token: str | bool | None = None, private: bool | None = None
) -> str:
    """Makes sure, before work that is to be published begins, that a repository may be written to or made.

    One that is made for the question is deleted again: what comes of the work is published later, or never.

    A Hub that knows no such question (`auth-check`) is believed: publishing will tell.

    Args:
        repo_id: Name of the repository; without a namespace it is the user's own.
        repo_type: "model", "dataset" or "space".
        token: A token, `False` for none; the one of `hf auth login` by default.
        private: Whether a repository that is made is private; by default as the namespace says.

    Returns:
        The repository's name, with its namespace.

    Raises:
        HubError: The repository cannot be made, or not be written to.
    """
    repo_id = full_name(repo_id, token)
    api = HfApi(token=token)
    made = _existing(api, repo_id, repo_type, private=private, stays=False)
    with explained(Repository(repo_id, repo_type), writes=True), made:
        try:
            api.auth_check(repo_id, repo_type=repo_type, write=True)
        except HfHubHTTPError as error:
            if error.response.status_code != 404:
                raise
    return repo_id


@contextmanager
def _existing(
    api: HfApi, repo_id: str, repo_type: str, *, private: bool | None, space_sdk: str | None = None, stays: bool = True
) -> Iterator[None]:
    """Within it the repository exists. If it was made for this, and nothing came of it or it is not to stay, it is deleted again."""
    create = partial(api.create_repo, repo_id, repo_type=repo_type, private=private, space_sdk=space_sdk)
    try:
        create()
        is_new = True
    except HfHubHTTPError as refusal:
        # It was there before, or may not be made, which this tells apart.
        try:
            create(exist_ok=True)
        except KeyError:  # the client takes any conflict for a repository that is there, and looks for its address
            raise refusal from None
        is_new = False
    try:
        yield
    except BaseException as error:
        if is_new and not _deleted_if_empty(api, repo_id, repo_type):
            error.add_note(f"{Repository(repo_id, repo_type)} was made and may be empty: delete it, or publish again.")
        raise
    if is_new and not stays:
        _deleted_if_empty(api, repo_id, repo_type)


def _deleted_if_empty(api: HfApi, repo_id: str, repo_type: str) -> bool:
    """Deletes a repository that nobody wrote to; False where the Hub would not say or do it."""
    try:
        if _is_empty(api, repo_id, repo_type):
            api.delete_repo(repo_id, repo_type=repo_type)
    except _NO_ANSWER:
        return False
    return True


def _is_empty(api: HfApi, repo_id: str, repo_type: str) -> bool:
    """Whether nobody wrote to a repository: its branches and pull requests all are at the commit that it was made with."""
    refs = api.list_repo_refs(repo_id, repo_type=repo_type, include_pull_requests=True)
    heads = [*refs.branches, *refs.converts, *refs.tags, *(refs.pull_requests or [])]
    commits = api.list_repo_commits(repo_id, repo_type=repo_type)
    return len(commits) == 1 and all(head.target_commit == commits[0].commit_id for head in heads)


def is_private(repository: Repository, token: str | bool | None = None) -> bool | None:
    """Whether a repository is private; None where the token sees none.

    Raises:
        HubError: The Hub could not be asked, or takes no such token.
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
    commit; whatever else there is stays. Nothing is uploaded twice. A repository that was made for this and got no commit is
    deleted again.

    Args:
        publication: The repository and its files.
        token: A token, `False` for none; the one of `hf auth login` by default.
        private: Whether a repository that is made is private; by default as the namespace says.
        revision: The branch to write to; it is made if it is not there.
        create_pr: Propose the commit in place of making it. A pipeline names the commits that were proposed of its parts:
            keep those pull requests, merged or not.
        commit_message: First line of the commit's message.

    Raises:
        HubError: There is no permission or no network, somebody else wrote at the same time, or the Hub does not hold what it
            was sent.
    """
    repo_id, repo_type = publication.repo_id, publication.repo_type
    check_revision(revision)
    if revision is not None and COMMIT.fullmatch(revision):
        raise HubError(
            f"Expected a branch to write to, found the commit {revision}, which stays as it is. Name a branch, or leave `revision` out."
        )
    repository = Repository(repo_id, repo_type, revision)
    additions = [CommitOperationAdd(name, content) for name, content in sorted(publication.files.items())]
    api = HfApi(token=token)
    with (
        explained(repository, writes=True),
        _existing(api, repo_id, repo_type, private=private, space_sdk=publication.space_sdk),
    ):
        if revision is not None and not create_pr and not revision.startswith("refs/"):
            api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True)
        info = api.repo_info(repo_id, repo_type=repo_type, revision=revision)
        if private and not info.private:
            raise not_private(repository)
        there = set(api.list_repo_files(repo_id, repo_type=repo_type, revision=info.sha))
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
    digests = {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in held if isinstance(file, RepoFile)}
    missing = [one.path_in_repo for one in additions if not _is_of(one, digests.get(one.path_in_repo))]
    if missing:
        raise HubError(
            f"Expected {repository} to hold at {commit.oid} what was published, found {', '.join(missing)} missing or "
            "different: the Hub left them out, or somebody else wrote at the same time. Look at both, and publish again."
        )
    return commit


def not_private(repository: Repository) -> HubError:
    """The error where a repository is public that was to be private."""
    return HubError(
        f"Expected {repository} to be private, found it public. Change that in its settings ({repository.url}/settings), or "
        "publish under another name."
    )


def _is_of(addition: CommitOperationAdd, digest: str | None) -> bool:
    """Whether the Hub's checksum is that of a file that was sent: SHA-256, or git's name of a small file."""
    if digest is None or len(digest) == 64:
        return digest == addition.upload_info.sha256.hex()
    with addition.as_file() as file:
        return git_hash(file.read()) == digest
