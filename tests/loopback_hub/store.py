"""What a Hub keeps: repositories with the whole state of every commit. Nothing here knows of HTTP."""

import codecs
import fnmatch
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from types import MappingProxyType

MAIN = "refs/heads/main"
LARGE = ("arrow", "bin", "faiss", "gz", "index", "npy", "npz", "onnx", "parquet", "png", "pt", "safetensors", "zip")
ATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE).encode()
LARGEST_REGULAR = 10_000_000


class RepoNotFound(LookupError):
    """There is no such repository, or whoever asks must not know of it."""


class RevisionNotFound(LookupError):
    """The repository has no such branch, tag or commit."""


class EntryNotFound(LookupError):
    """The commit has no such file or folder."""


class AlreadyThere(ValueError):
    """A repository, branch or tag of that name exists."""


class Outdated(ValueError):
    """The branch has moved on from the commit that the writer knew."""


class Malformed(ValueError):
    """What was asked makes no sense."""


@dataclass(frozen=True)
class File:
    """A file of a commit; a large one is known by the SHA-256 of its content, any other by its git blob.

    Args:
        content: Its bytes.
        large: Whether it is in the large file storage (LFS), and git has a pointer alone.
    """

    content: bytes
    large: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @cached_property
    def blob(self) -> str:
        """Git's name of what git has."""
        content = self.pointer if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def identity(self) -> str:
        """What says that two files are the same."""
        return self.sha256 if self.large else self.blob

    @property
    def size(self) -> int:
        return len(self.content)


@dataclass(frozen=True)
class Commit:
    """A commit and all files as of it."""

    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    files: Mapping[str, File]

    def file(self, path: str) -> File:
        if path not in self.files:
            raise EntryNotFound(f"{path} does not exist on {self.oid}")
        return self.files[path]

    def folders(self) -> list[str]:
        parents = ("/".join(path.split("/")[:depth]) for path in self.files for depth in range(1, path.count("/") + 1))
        return sorted(set(parents))

    def paths(self, folder: str, *, recursive: bool) -> list[str]:
        """Files and folders in a folder ("" is the top), or in that and all below it."""
        if folder and folder not in self.folders():
            raise EntryNotFound(f"{folder} does not exist on {self.oid}")
        start = f"{folder}/" if folder else ""
        below = [path for path in sorted([*self.files, *self.folders()]) if path.startswith(start)]
        return below if recursive else [path for path in below if "/" not in path.removeprefix(start)]

    def takes_large(self, path: str, sample: bytes, size: int) -> bool:
        """Whether a file goes to the large file storage: by `.gitattributes`, by size, or because it is no text."""
        attributes = self.files[".gitattributes"].content.decode() if ".gitattributes" in self.files else ""
        for line in attributes.splitlines():
            pattern, *words = line.split() or [""]
            if "filter=lfs" in words and _matches(path, pattern):
                return True
        return size > LARGEST_REGULAR or _is_binary(sample)


@dataclass
class Repository:
    """A repository of a kind (`models`, `datasets` or `spaces`); references point at commits, all of which are kept."""

    kind: str
    name: str
    private: bool = False
    gated: str | bool = False
    may_read_gated: set[str] = field(default_factory=set)
    references: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        return self.name.split("/")[0]

    def reference(self, revision: str) -> str | None:
        """The full name of a branch, tag or pull request."""
        names = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((name for name in names if name in self.references), None)

    def commit(self, revision: str = "main") -> Commit:
        oid = self.references.get(self.reference(revision), revision)
        if oid not in self.commits:
            raise RevisionNotFound(f"Invalid rev id: {revision}")
        return self.commits[oid]

    def history(self, revision: str) -> list[Commit]:
        """A revision's commits, the last one first."""
        found = [self.commit(revision)]
        while found[-1].parent is not None:
            found.append(self.commits[found[-1].parent])
        return found

    def write(
        self,
        reference: str,
        files: Mapping[str, File],
        *,
        deleted: Iterable[str] = (),
        parent: Commit | None = None,
        title: str = "Upload",
        message: str = "",
        author: str = "",
    ) -> Commit:
        """Makes a commit of deletions and then additions, and points the reference at it, in one step.

        Args:
            reference: Full name, such as `refs/heads/main`.
            files: What is added or replaced.
            deleted: Files, and folders with a `/` at the end.
            parent: The commit that this one follows. A first one has none.
            title: First line of the message.
            message: The rest of it.
            author: A user's name.

        Raises:
            EntryNotFound: What is to be deleted is not there.
        """
        state = dict(parent.files) if parent else {}
        for path in deleted:
            gone = [name for name in state if name == path or (path.endswith("/") and name.startswith(path))]
            if not gone:
                raise EntryNotFound(f"A file with this name doesn't exist: {path}")
            for name in gone:
                del state[name]
        state |= files
        self.objects |= {file.sha256: file.content for file in files.values() if file.large}
        date = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        known = [self.kind, self.name, len(self.commits), title, sorted((path, f.blob) for path, f in state.items())]
        oid = hashlib.sha1(repr(known).encode()).hexdigest()
        parent_oid = parent.oid if parent else None
        self.commits[oid] = Commit(oid, parent_oid, title, message, author, date, MappingProxyType(state))
        self.references[reference] = oid
        return self.commits[oid]

    def point(self, reference: str, revision: str) -> None:
        """Makes a branch or a tag."""
        if reference in self.references:
            raise AlreadyThere(f"Reference already exists: {reference}")
        self.references[reference] = self.commit(revision).oid

    def unpoint(self, reference: str) -> None:
        if reference not in self.references:
            raise RevisionNotFound(f"Invalid rev id: {reference}")
        del self.references[reference]


class Store:
    """All repositories of a Hub."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}

    def create(self, kind: str, name: str, *, private: bool = False, author: str = "") -> Repository:
        """A repository with the first commit that a Hub makes: what files are large."""
        if (kind, name) in self.repositories:
            raise AlreadyThere(f"You already created this {kind.removesuffix('s')} repo: {name}")
        repository = self.repositories[kind, name] = Repository(kind, name, private)
        repository.write(MAIN, {".gitattributes": File(ATTRIBUTES)}, title="initial commit", author=author)
        return repository

    def repository(self, kind: str, name: str) -> Repository:
        if (kind, name) not in self.repositories:
            raise RepoNotFound("Repository not found")
        return self.repositories[kind, name]

    def delete(self, kind: str, name: str) -> None:
        del self.repositories[kind, name]


def is_ignored(path: str, gitignore: str) -> bool:
    """Whether lines of a `.gitignore` name a path or a folder above it; lines that take back (`!`) are not known."""
    lines = [line.strip() for line in gitignore.splitlines()]
    parts = path.split("/")
    parents = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    return any(_matches(parent, line.rstrip("/")) for line in lines if line and line[0] != "#" for parent in parents)


def _matches(path: str, pattern: str) -> bool:
    if "/" in pattern:
        return fnmatch.fnmatchcase(path, pattern.lstrip("/"))
    return fnmatch.fnmatchcase(path.split("/")[-1], pattern)


def _is_binary(sample: bytes) -> bool:
    """Whether the beginning of a file is no text; it may end within a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return True
    return b"\0" in sample
