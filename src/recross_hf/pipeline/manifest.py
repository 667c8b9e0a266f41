"""`recross.json`: the parts of a pipeline, where they are, and the checksum of each file.

A manifest may be anybody's: every value is checked before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from .._version import __version__
from ..adaptation.record import RETRIEVED_FILE
from ..core.files import is_intact, read_json, sha256_of, write_json
from ..hub.errors import ArtifactError
from ..hub.repository import COMMIT, Repository, is_repo_id
from ..hub.safety import MANIFEST_FILE, SAFE_SUFFIXES
from .lance_part import LanceReference
from .settings import check_adaptation_settings, expect

FORMAT_VERSION, WITH_NEW_PARTS, WITH_LANCE = 2, 3, 4
"""Versions of the format: of a pipeline that earlier versions can open, of one with a base or an encoder of its own, and of one whose index
is a Lance data set."""
MAX_MANIFEST_SIZE = 1 << 20
PARTS = ("base_model", "upstream_model", "encoder", "index", "reranker", "adapted_model", "retrieved")
BASE_MODEL, UPSTREAM_MODEL, ENCODER, INDEX, RERANKER, ADAPTED_MODEL, RETRIEVED = PARTS
_NEW_PARTS = {BASE_MODEL, ENCODER}
_AUTOCAST_DTYPES = (None, "bfloat16", "float16")
_DTYPES = (None, "float32", "bfloat16", "float16", "float64")
_EXPECTED = "the encoder's max_length and autocast_dtype, or its prompt and max_length"


@dataclass(frozen=True)
class Part:
    """Files of a pipeline that belong together.

    Args:
        sha256: Checksum of each file, by its name below `path`.
        path: Folder of the files; "." is the root.
        repository: Repository of the files, at a commit; without one, they lie beside the manifest.
        base: Part that the adapter of an adapted model is on; the upstream model by default.
        lance: Version of a Lance data set that the part is in place of files; only an index is.

    Raises:
        ArtifactError: A name leads out of the folder, a format is not safe, or the revision is no commit.
    """

    sha256: Mapping[str, str]
    path: str = "."
    repository: Repository | None = None
    base: str | None = None
    lance: LanceReference | None = None

    def __post_init__(self) -> None:
        if self.path != ".":
            _check_name(self.path)
        for name, digest in self.sha256.items():
            _check_name(name)
            if PurePosixPath(name).suffix not in SAFE_SUFFIXES:
                raise ArtifactError(
                    f"Expected files in safe formats ({', '.join(sorted(SAFE_SUFFIXES))}), found {name!r}. Pickles and code "
                    "are never loaded: save the artifact again with `save_pretrained`."
                )
            expect(
                isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef"),
                f"a SHA-256 checksum of {name}",
                digest,
            )
        expect(
            self.base in (None, BASE_MODEL, UPSTREAM_MODEL), f"{BASE_MODEL} or {UPSTREAM_MODEL} as a base", self.base
        )
        if self.repository is not None:
            repo = self.repository
            expect(isinstance(repo.repo_id, str) and is_repo_id(repo.repo_id), "a repository's name", repo.repo_id)
            expect(repo.repo_type in ("model", "dataset"), "a model or dataset repository", repo.repo_type)
            expect(
                isinstance(repo.revision, str) and COMMIT.fullmatch(repo.revision) is not None,
                f"a commit of {repo.repo_id} (40 hexadecimal digits)",
                repo.revision,
            )

    def to_json(self) -> dict[str, Any]:
        """The part as it stands in the manifest."""
        if self.lance is not None:
            return self.lance.to_json()
        own = {} if self.base is None else {"base": self.base}
        if self.repository is None:
            return {"path": self.path, **own, "sha256": dict(self.sha256)}
        place = asdict(self.repository) | ({} if self.path == "." else {"path": self.path})
        return place | own | {"sha256": dict(self.sha256)}

    @classmethod
    def from_json(cls, content: Any) -> Part:
        """Reads what [`Part.to_json`] gave."""
        expect(isinstance(content, dict), "a part", content)
        if "storage" in content:
            return cls({}, lance=LanceReference.from_json(content))
        known = {"path", "base", "sha256", "repo_id", "repo_type", "revision"}
        expect(set(content) <= known, f"a part with {', '.join(sorted(known))}", ", ".join(content))
        sha256, path = content.get("sha256"), content.get("path", ".")
        expect(isinstance(sha256, dict) and bool(sha256), "checksums of a part's files", sha256)
        expect(isinstance(path, str), "the path of a part", path)
        repository = None
        if "repo_id" in content:
            repository = Repository(content["repo_id"], content.get("repo_type", "model"), content.get("revision"))
        return cls(sha256, path, repository, content.get("base"))


@dataclass(frozen=True)
class Manifest:
    """The parts of a pipeline, and the settings that belong to them.

    Args:
        parts: Parts by name; `upstream_model` and `index` are always there.
        encoder: Settings of the encoder ([`MeanPooledEncoder.settings`]; of an encoder of its own, [`SentenceEncoder.settings`]).
        adaptation: Settings of [`AdaptationArguments`] that suit the model.
        dtype: Data type that the models are opened in, such as "bfloat16"; None is float32.

    Raises:
        ArtifactError: A value is not what it must be.
    """

    parts: Mapping[str, Part]
    encoder: dict[str, Any]
    adaptation: dict[str, Any] = field(default_factory=dict)
    dtype: str | None = None

    def __post_init__(self) -> None:
        expect(set(self.parts) <= set(PARTS), f"the parts {', '.join(PARTS)}", ", ".join(self.parts))
        expect({UPSTREAM_MODEL, INDEX} <= set(self.parts), "an upstream model and an index", ", ".join(self.parts))
        in_lance = {name for name, part in self.parts.items() if part.lance is not None}
        expect(in_lance <= {INDEX}, "the index alone in a Lance data set", ", ".join(sorted(in_lance - {INDEX})))
        has_base = BASE_MODEL in self.parts
        expect(has_base or all(part.base is None for part in self.parts.values()), "the base of an adapter", "none")
        encoder = self.encoder
        expect(isinstance(encoder, dict) and isinstance(encoder.get("chat_template", True), bool), _EXPECTED, encoder)
        if ENCODER in self.parts:
            holds = set(encoder) - {"chat_template"} == {"prompt", "max_length"} and isinstance(encoder["prompt"], str)
            holds = holds and (encoder["max_length"] is None or _is_count(encoder["max_length"]))
        else:
            holds = (
                set(encoder) - {"chat_template", "pooling"} == {"max_length", "autocast_dtype"}
                and encoder.get("pooling", "mean") in ("mean", "weighted_mean")
                and _is_count(encoder["max_length"])
                and encoder["autocast_dtype"] in _AUTOCAST_DTYPES
            )
        expect(holds, _EXPECTED, encoder)
        check_adaptation_settings(self.adaptation)
        expect(self.dtype in _DTYPES, f"a data type of weights ({', '.join(map(str, _DTYPES[1:]))})", self.dtype)

    def to_json(self) -> dict[str, Any]:
        """The content of `recross.json`."""
        # A version that passes the type over opens the models in float32, and the check of the index tells it which one to ask for.
        own = {} if self.dtype in (None, "float32") else {"dtype": self.dtype}
        return {
            "format_version": _format_of(self.parts, has_lance=self.parts[INDEX].lance is not None),
            "recross_hf_version": __version__,
            "parts": {name: part.to_json() for name, part in self.parts.items()},
            "encoder": self.encoder,
            "adaptation": self.adaptation,
            **own,
        }

    def to_bytes(self) -> bytes:
        """The bytes of `recross.json`."""
        return (json.dumps(self.to_json(), indent=2) + "\n").encode()

    @classmethod
    def read(cls, path: Path, where: str) -> Manifest:
        """Reads and checks `recross.json`.

        Args:
            path: The file.
            where: Name of the pipeline, for messages.

        Raises:
            ArtifactError: The file is of another format, or not what a manifest must be.
            ValueError: The file is no JSON.
        """
        size = path.stat().st_size
        if size > MAX_MANIFEST_SIZE:
            raise ArtifactError(
                f"Expected {MANIFEST_FILE} of at most {MAX_MANIFEST_SIZE:,} bytes in {where}, found {size:,}. "
                "recross_hf writes no such manifest: do not use it."
            )
        read = read_json(path)
        content: Any = read if isinstance(read, dict) else {}
        named = content.get("parts")
        named = named if isinstance(named, dict) else {}
        index = named.get(INDEX)
        expected = _format_of(named, has_lance=isinstance(index, dict) and "storage" in index)
        if (version := content.get("format_version")) != expected:
            raise ArtifactError(
                f"Expected a pipeline of format {expected}, found {version} in {where} (written by recross_hf "
                f"{content.get('recross_hf_version')}). Install a version that reads it: pip install -U recross_hf."
            )
        try:
            parts = content.get("parts")
            expect(isinstance(parts, dict), "the parts of a pipeline", parts)
            return cls(
                {name: Part.from_json(part) for name, part in parts.items()},
                content.get("encoder"),
                content.get("adaptation"),
                content.get("dtype"),
            )
        except ArtifactError as error:
            raise ArtifactError(f"{MANIFEST_FILE} of {where}: {error}") from error


def _format_of(parts: Iterable[str], *, has_lance: bool) -> int:
    if has_lance:
        return WITH_LANCE
    return WITH_NEW_PARTS if _NEW_PARTS & {*parts} else FORMAT_VERSION


def write_manifest(
    folder: Path,
    parts: Iterable[str],
    encoder_settings: dict[str, Any],
    adaptation: dict[str, Any],
    *,
    described: Mapping[str, Part] | None = None,
    dtype: str | None = None,
) -> None:
    """Writes `recross.json` of parts that lie in `folder`: a folder of its own name each, and `retrieved.parquet`.

    Args:
        folder: Folder to write to.
        parts: Names of parts in it.
        encoder_settings: Settings of the encoder.
        adaptation: Settings that the pipeline is adapted with.
        described: Further parts, which may lie elsewhere.
        dtype: Data type that the models are opened in.
    """
    described = {**(described or {}), **{name: describe_part(folder, name) for name in parts}}
    write_json(folder / MANIFEST_FILE, Manifest(described, encoder_settings, adaptation, dtype).to_json())


def describe_part(folder: Path, name: str) -> Part:
    """A part that lies in a folder, with the checksums of its files."""
    if name == RETRIEVED:
        return Part({RETRIEVED_FILE: sha256_of(folder / RETRIEVED_FILE)})
    # The card is there for people to write in.
    files = sorted(path for path in (folder / name).rglob("*") if path.is_file() and path.name != "README.md")
    return Part({path.relative_to(folder / name).as_posix(): sha256_of(path) for path in files}, name)


def read_manifest(folder: Path) -> Manifest:
    """Reads `recross.json` of a folder and checks that the files beside it are there; [`check_files`] checks what they hold.

    Raises:
        ArtifactError: There is no manifest, or a file is missing.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise ArtifactError(
            f"Expected a pipeline folder with {MANIFEST_FILE}, found none in {folder}. A pipeline is written by "
            "`ReCrossPipeline.save_pretrained`; a model alone is no pipeline."
        )
    manifest = Manifest.read(path, str(folder))
    for part in manifest.parts.values():
        for place in _places(part) if part.repository is None else ():
            if not (folder / place).is_file():
                raise ArtifactError(f"Expected the file {place} in {folder}, found none. Download or save it again.")
    return manifest


def check_files(folder: Path, part: Part) -> None:
    """Compares the files of a part that lies in `folder` with their checksums.

    Raises:
        ArtifactError: A file is another one, or gone.
    """
    for place, expected in _places(part).items():
        if not (folder / place).is_file() or not is_intact(folder / place, expected):
            raise ArtifactError(
                f"{folder / place} is not the file that was saved: its checksum differs. Download or save it again; if "
                "you changed it on purpose, pass `verify_checksums=False`."
            )


def _places(part: Part) -> dict[str, str]:
    return {(PurePosixPath(part.path) / name).as_posix(): digest for name, digest in part.sha256.items()}


def _check_name(name: Any) -> None:
    """Names lead to a place within the folder on every system."""
    safe = isinstance(name, str) and 0 < len(name) <= 255 and name.isprintable()
    safe = safe and not set(name) & set('\\:*?"<>|')
    if not safe or any(part in ("", ".", "..") for part in name.split("/")):
        raise ArtifactError(
            f"Expected the name of a file within the folder, found {name!r}. recross_hf writes no such pipeline: do "
            "not use it."
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
