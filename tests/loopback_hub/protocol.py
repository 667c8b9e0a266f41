"""The Hub's protocol: what the clients ask, and what is answered. Nothing here knows of sockets."""

import base64
import json
import urllib.parse
from typing import Any

import yaml

from .access import Access, Refused, Token
from .store import (
    AlreadyThere,
    Commit,
    EntryNotFound,
    File,
    Malformed,
    Outdated,
    RepoNotFound,
    Repository,
    RevisionNotFound,
    Store,
    is_ignored,
)
from .transport import Answer, Request

KINDS = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}
"""Kinds of repositories, and what their addresses begin with."""


class HubProtocol:
    """Answers at the Hub's own origin.

    Args:
        store: The repositories.
        access: Who may do what.
        page_size: Paths and commits on a page of a list.
        part_size: Larger files are uploaded in parts of that size; None for no such.
    """

    def __init__(self, store: Store, access: Access, *, page_size: int = 1000, part_size: int | None = None) -> None:
        self.store, self.access, self.page_size, self.part_size = store, access, page_size, part_size
        self.url = self.storage_url = ""

    def __call__(self, request: Request) -> Answer:
        try:
            return self._answer(request, self.access.token(request.headers.get("authorization")))
        except Refused as error:
            return _error(error.status, error, error.code)
        except (RepoNotFound, RevisionNotFound, EntryNotFound) as error:
            return _error(404, error, type(error).__name__)
        except AlreadyThere as error:
            return _error(409, error)
        except Outdated as error:
            return _error(412, error)
        except Malformed as error:
            return _error(400, error)

    def _answer(self, request: Request, token: Token | None) -> Answer:
        match request.method, *request.segments:
            case "GET", "api", "whoami-v2":
                return self._whoami(self.access.require_user(token))
            case "POST", "api", "validate-yaml":
                return _validate_yaml(request.json()["content"])
            case "POST", "api", "repos", "create":
                return self._create(request.json(), token)
            case "DELETE", "api", "repos", "delete":
                return self._delete(request.json(), token)
            case _, "api", kind, owner, name, *rest if kind in KINDS:
                return self._api(request, token, self._known(token, kind, owner, name), rest)
            case _, "api", kind, _ if kind in KINDS:  # a name without an owner: there is none
                self.access.require_known(token, None)
            case "POST", *place, "info", "lfs", "objects", "batch":
                return self._lfs_batch(request.json(), token, self._known(token, *_place(place)))
            case "POST", *place, "info", "lfs", "verify":
                return self._lfs_verify(request.json(), self._known(token, *_place(place)))
        return self._page(request, token)

    def _page(self, request: Request, token: Token | None) -> Answer:
        """A file of a repository: the only pages that there are."""
        kind, segments = "models", request.segments
        if segments[0] in KINDS:
            kind, *segments = segments
        match request.method, *segments:
            case (("GET" | "HEAD"), owner, name, "resolve", revision, *path):
                return self._resolve(request, token, self._known(token, kind, owner, name), revision, "/".join(path))
        return _error(404, f"No such page: {request.target}")

    def _known(self, token: Token | None, kind: str, owner: str, name: str) -> Repository:
        return self.access.require_known(token, self.store.repositories.get((kind, f"{owner}/{name}")))

    # ---- users and repositories --------------------------------------------------------------------------------------

    def _whoami(self, token: Token) -> Answer:
        organizations = [name for name, users in self.access.organizations.items() if token.user in users]
        role = "write" if token.may_write else "read"
        return Answer.of(
            {
                "type": "user",
                "name": token.user,
                "orgs": [{"name": name} for name in organizations],
                "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": role}},
            }
        )

    def _create(self, asked: dict[str, Any], token: Token | None) -> Answer:
        token = self.access.require_user(token)
        kind, name = f"{asked.get('type') or 'model'}s", f"{asked.get('organization') or token.user}/{asked['name']}"
        self.access.require_write(token, name.split("/")[0])
        address = {"url": f"{self.url}/{KINDS[kind]}{name}", "name": name}
        try:
            self.store.create(kind, name, private=asked.get("visibility") == "private", author=token.user)
        except AlreadyThere as error:
            return Answer.of(address | {"error": str(error)}, 409)
        return Answer.of(address)

    def _delete(self, asked: dict[str, Any], token: Token | None) -> Answer:
        owner = asked.get("organization") or self.access.require_user(token).user
        repository = self._known(token, f"{asked.get('type') or 'model'}s", owner, asked["name"])
        self.access.require_write(token, repository.owner)
        self.store.delete(repository.kind, repository.name)
        return Answer.of({})

    # ---- one repository ----------------------------------------------------------------------------------------------

    def _api(self, request: Request, token: Token | None, repository: Repository, rest: list[str]) -> Answer:
        match request.method, *rest:
            case ("GET",):
                return self._info(repository, "main", request.query)
            case "GET", "revision", revision:
                return self._info(repository, revision, request.query)
            case "GET", "tree", revision, *folder:
                return self._tree(request, repository.commit(revision), "/".join(folder))
            case "POST", "paths-info", revision:
                commit = repository.commit(revision)
                known = {*commit.files, *commit.folders()}
                paths = [path.rstrip("/") for path in request.form.get("paths", [])]
                return Answer.of([_entry(commit, path) for path in paths if path in known])
            case "GET", "refs":
                return self._references(repository, request.query)
            case "GET", "commits", revision:
                found = [_commit_entry(commit) for commit in repository.history(revision)]
                return self._listed(request, found)
            case "GET", "auth-check":
                self.access.require_content(token, repository)
                return Answer.of({})
            case "GET", "auth-check", "write":
                self.access.require_write(token, repository.owner)
                return Answer.of({})
            case "POST", "preupload", revision:
                self._require_commit(request, token, repository)
                return _preupload(request.json(), repository.commit(revision))
            case "POST", "commit", revision:
                author = self._require_commit(request, token, repository).user
                return self._commit(request, repository, revision, author)
        return self._change(request, token, repository, rest)

    def _require_commit(self, request: Request, token: Token | None, repository: Repository) -> Token:
        """Who may read a repository may propose a change."""
        token = self.access.require_user(token)
        if request.query.get("create_pr") == "1" and token.may_write:
            return token
        return self.access.require_write(token, repository.owner)

    def _change(self, request: Request, token: Token | None, repository: Repository, rest: list[str]) -> Answer:
        """What changes references and settings."""
        match request.method, *rest:
            case "POST", "tag", revision:
                self.access.require_write(token, repository.owner)
                repository.point(f"refs/tags/{request.json()['tag']}", revision)
            case "DELETE", "tag", tag:
                self.access.require_write(token, repository.owner)
                repository.unpoint(f"refs/tags/{tag}")
            case "POST", "branch", branch:
                self.access.require_write(token, repository.owner)
                repository.point(f"refs/heads/{branch}", request.json().get("startingPoint", "main"))
            case "DELETE", "branch", branch if branch != "main":
                self.access.require_write(token, repository.owner)
                repository.unpoint(f"refs/heads/{branch}")
            case "PUT", "settings":
                self.access.require_write(token, repository.owner)
                settings = request.json()
                repository.gated = settings.get("gated", repository.gated)
                repository.private = settings.get("visibility", "private" * repository.private) == "private"
            case _:
                return _error(404, f"No such call: {request.method} {request.target}")
        return Answer.of({})

    def _info(self, repository: Repository, revision: str, query: dict[str, str]) -> Answer:
        commit = repository.commit(revision)
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in commit.files]
        if query.get("blobs", "").lower() in ("1", "true"):
            for sibling in siblings:
                file = commit.files[sibling["rfilename"]]
                sibling |= {"size": file.size, "blobId": file.blob}
                if file.large:
                    sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": len(file.pointer)}
        return Answer.of(
            {
                "id": repository.name,
                "sha": commit.oid,
                "author": repository.owner,
                "private": repository.private,
                "gated": repository.gated,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "lastModified": commit.date,
                "createdAt": repository.history(revision)[-1].date,
                "cardData": _metadata(commit.files["README.md"].content.decode())
                if "README.md" in commit.files
                else {},
                "siblings": siblings,
            }
        )

    def _tree(self, request: Request, commit: Commit, folder: str) -> Answer:
        recursive = request.query.get("recursive", "").lower() in ("1", "true")
        return self._listed(request, [_entry(commit, path) for path in commit.paths(folder, recursive=recursive)])

    def _listed(self, request: Request, found: list[dict[str, Any]]) -> Answer:
        """A page of a list, and where the next one is."""
        first = int(request.query.get("cursor", 0))
        headers = {}
        if first + self.page_size < len(found):
            query = urllib.parse.urlencode(request.query | {"cursor": first + self.page_size})
            path = urllib.parse.urlsplit(request.target).path
            headers["Link"] = f'<{self.url}{path}?{query}>; rel="next"'
        return Answer.of(found[first : first + self.page_size], headers=headers)

    def _references(self, repository: Repository, query: dict[str, str]) -> Answer:
        found: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        groups = {"heads": "branches", "tags": "tags", "convert": "converts", "pr": "pullRequests"}
        for name, oid in repository.references.items():
            _, group, short = name.split("/", 2)
            found[groups[group]].append({"name": short, "ref": name, "targetCommit": oid})
        if query.get("include_prs") != "1":
            del found["pullRequests"]
        return Answer.of(found)

    # ---- uploads -----------------------------------------------------------------------------------------------------

    def _commit(self, request: Request, repository: Repository, revision: str, author: str) -> Answer:
        head = repository.commit(revision)
        header: dict[str, str] = {}
        files: dict[str, File] = {}
        deleted: list[str] = []
        for line in request.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "header":
                    header = value
                case "file":
                    files[value["path"]] = File(base64.b64decode(value["content"]))
                case "lfsFile" if value["oid"] in repository.objects:
                    files[value["path"]] = File(repository.objects[value["oid"]], large=True)
                case "lfsFile":
                    raise Malformed(f"Your push was rejected because {value['path']} was not uploaded")
                case "deletedFile":
                    deleted.append(value["path"].rstrip("/"))
                case "deletedFolder":
                    deleted.append(value["path"].rstrip("/") + "/")
        if header.get("parentCommit", head.oid) != head.oid:
            raise Outdated("A commit has happened since. Please refresh and try again.")
        proposed = request.query.get("create_pr") == "1"
        reference = repository.reference(revision)
        number = 1 + sum(name.startswith("refs/pr/") for name in repository.references)
        if proposed:
            reference = f"refs/pr/{number}"
        elif reference is None or reference.startswith("refs/tags/"):
            raise RevisionNotFound(f"Invalid rev id: {revision} is no branch")
        about = {"title": header["summary"], "message": header.get("description", ""), "author": author}
        commit = repository.write(reference, files, deleted=deleted, parent=head, **about)
        page = f"{self.url}/{KINDS[repository.kind]}{repository.name}"
        answer = {"success": True, "commitOid": commit.oid, "commitUrl": f"{page}/commit/{commit.oid}"}
        return Answer.of(answer | ({"pullRequestUrl": f"{page}/discussions/{number}"} if proposed else {}))

    def _lfs_batch(self, asked: dict[str, Any], token: Token | None, repository: Repository) -> Answer:
        self.access.require_user(token)
        objects = []
        for wanted in asked["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            found: dict[str, Any] = {"oid": oid, "size": size}
            if oid not in repository.objects:
                href = f"{self.storage_url}/{repository.kind}/{repository.name}/{oid}"
                upload: dict[str, Any] = {"href": href}
                if self.part_size is not None and size > self.part_size:
                    parts = range(-(-size // self.part_size))
                    upload["header"] = {f"{part + 1:05}": f"{href}?part={part + 1}" for part in parts}
                    upload["header"]["chunk_size"] = str(self.part_size)
                verify = f"{self.url}/{KINDS[repository.kind]}{repository.name}.git/info/lfs/verify"
                found["actions"] = {"upload": upload, "verify": {"href": verify}}
            objects.append(found)
        return Answer.of({"transfer": "basic", "objects": objects})

    def _lfs_verify(self, asked: dict[str, Any], repository: Repository) -> Answer:
        if len(repository.objects.get(asked["oid"], b"")) != asked["size"]:
            raise Malformed(f"Object {asked['oid']} is not there, or has another size")
        return Answer.of({})

    # ---- downloads ---------------------------------------------------------------------------------------------------

    def _resolve(
        self, request: Request, token: Token | None, repository: Repository, revision: str, path: str
    ) -> Answer:
        commit = repository.commit(revision)
        headers = {"X-Repo-Commit": commit.oid}
        try:
            self.access.require_content(token, repository)
            file = commit.file(path)
        except Refused as error:
            return _error(error.status, error, error.code, headers)
        except EntryNotFound as error:
            return _error(404, error, "EntryNotFound", headers)
        if file.large:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
            headers["Location"] = f"{self.storage_url}/{repository.kind}/{repository.name}/{file.sha256}"
            return Answer(302, b"", headers)
        return Answer(200, file.content, headers | {"ETag": f'"{file.blob}"'}).part_for(request)


class StorageProtocol:
    """Answers at the origin of large files, which knows no tokens and refuses them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.parts: dict[str, dict[int, bytes]] = {}

    def __call__(self, request: Request) -> Answer:
        if "authorization" in request.headers:
            return _error(400, "A token of the Hub was sent to the storage")
        kind, owner, name, oid = request.segments
        repository = self.store.repositories.get((kind, f"{owner}/{name}"))
        if repository is None:
            return _error(404, "No such repository")
        match request.method:
            case "PUT" if "part" in request.query:
                number = int(request.query["part"])
                self.parts.setdefault(oid, {})[number] = request.body
                return Answer(headers={"ETag": f'"{oid[:8]}-{number}"'})
            case "PUT":
                return _put(repository, oid, request.body)
            case "POST":
                parts = self.parts.pop(oid, {})
                return _put(repository, oid, b"".join(parts[part["partNumber"]] for part in request.json()["parts"]))
            case "GET" | "HEAD" if oid in repository.objects:
                return Answer(200, repository.objects[oid], {"ETag": f'"{oid}"'}).part_for(request)
        return _error(404, "No such object")


def _put(repository: Repository, oid: str, content: bytes) -> Answer:
    if File(content).sha256 != oid:
        return _error(400, f"The content is not that of {oid}")
    repository.objects[oid] = content
    return Answer()


def _place(segments: list[str]) -> tuple[str, str, str]:
    """Kind, owner and name of `owner/name.git` or `datasets/owner/name.git`."""
    kind, owner, name = segments if segments[0] in KINDS else ("models", *segments)
    return kind, owner, name.removesuffix(".git")


def _entry(commit: Commit, path: str) -> dict[str, Any]:
    """A file or a folder of a tree."""
    if path not in commit.files:
        below = sorted((name, file.blob) for name, file in commit.files.items() if name.startswith(f"{path}/"))
        return {"type": "directory", "oid": File(repr(below).encode()).blob, "size": 0, "path": path}
    file = commit.files[path]
    entry: dict[str, Any] = {"type": "file", "oid": file.blob, "size": file.size, "path": path}
    if file.large:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": len(file.pointer)}
    return entry


def _commit_entry(commit: Commit) -> dict[str, Any]:
    about = {"id": commit.oid, "title": commit.title, "message": commit.message, "date": commit.date}
    return about | {"authors": [{"user": commit.author}]}


def _preupload(asked: dict[str, Any], commit: Commit) -> Answer:
    if "gitIgnore" in asked:
        ignored = asked["gitIgnore"]
    else:
        ignored = commit.files[".gitignore"].content.decode() if ".gitignore" in commit.files else ""
    files = []
    for file in asked["files"]:
        path = file["path"]
        large = commit.takes_large(path, base64.b64decode(file["sample"]), file["size"])
        found = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": is_ignored(path, ignored)}
        if path in commit.files:
            found["oid"] = commit.files[path].identity
        files.append(found)
    return Answer.of({"files": files})


def _metadata(readme: str) -> dict[str, Any]:
    """The YAML at the head of a card; {} where there is none."""
    if not readme.startswith("---\n"):
        return {}
    return yaml.safe_load(readme.split("---\n")[1]) or {}


def _validate_yaml(readme: str) -> Answer:
    try:
        metadata = _metadata(readme)
    except yaml.YAMLError as error:
        return Answer.of({"errors": [{"message": str(error)}], "warnings": []}, 400)
    if not isinstance(metadata, dict):
        return Answer.of({"errors": [{"message": "Expected a mapping"}], "warnings": []}, 400)
    warnings = [] if metadata else [{"message": "empty or missing yaml metadata in repo card"}]
    return Answer.of({"errors": [], "warnings": warnings})


def _error(status: int, message: object, code: str | None = None, headers: dict[str, str] | None = None) -> Answer:
    about = {"X-Error-Message": str(message).replace("\n", " ")} | ({"X-Error-Code": code} if code else {})
    return Answer.of({"error": str(message)}, status, about | (headers or {}))
