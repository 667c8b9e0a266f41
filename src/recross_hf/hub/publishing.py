"""What is published on the Hub: one commit a repository, checked afterwards."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from ..core.files import sha256_of
from .errors import HubError, explained
from .repository import Repository, is_repo_id
from .safety import SAFE_SUFFIXES, git_digest

# Of an older version, and read in place of the new files or beside them. Whatever else a repository has is its owner's.
_SHADOWING = re.compile(
    r"(pytorch_model|model|adapter_model|tf_model|flax_model)[\w.-]*\.(bin|safetensors|h5|msgpack|index\.json)"
    r"|(config|adapter_config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|recross|index)\.json"
    r"|vocab\.(json|txt)|merges\.txt|(tokenizer|spiece|sentencepiece\.bpe)\.model|chat_template\.jinja"
    r"|examples\.parquet|retrieved\.parquet|index\.faiss"
)


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
        return git_digest(file.read()) == digest
