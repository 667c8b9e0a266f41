"""A Hub of data sets on the loopback interface, which the real clients read from."""

import hashlib
import json
import threading
import urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONVERTED = "refs/convert/parquet"


class Hub:
    """Repositories: `hub.add("org/name", {"data/train.parquet": bytes}, revision="main")`."""

    def __init__(self):
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.licenses: dict[str, str] = {}
        self.requests: list[str] = []

    def add(self, name, files, revision="main"):
        self.files[name, revision] = files

    def commit(self, name, revision):
        """The commit that a revision stands for; None where there is no such."""
        for known, at in self.files:
            commit = hashlib.sha1(f"{known}@{at}".encode()).hexdigest()
            if known == name and revision in (at, commit):
                return commit
        return None

    def tree(self, name, revision):
        commit = self.commit(name, revision)
        return next(files for (known, at), files in self.files.items() if self.commit(known, at) == commit)

    @contextmanager
    def serve(self):
        """The endpoint's address, while the server runs."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def do_POST(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(body=True, form=urllib.parse.parse_qs(content.decode()))

    def answer(self, body, form=None):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "datasets"]:
            self.api("/".join(parts[2:4]), parts[4:], form)
        elif parts[0] == "datasets" and "resolve" in parts:
            at = parts.index("resolve")
            self.resolve("/".join(parts[1:at]), parts[at + 1 :], body)
        else:
            self.send(404, {"error": "no such page"})

    def known(self, name, revision):
        if not any(known == name for known, _ in self.hub.files):
            self.send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif self.hub.commit(name, revision) is None:
            self.send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        else:
            return True
        return False

    def api(self, name, rest, form):
        kind, rest = (rest[0], rest[1:]) if rest else ("revision", ["main"])
        revision, rest = self.revision_of(rest or ["main"])
        if not self.known(name, revision):
            return
        files, commit = self.hub.tree(name, revision), self.hub.commit(name, revision)
        if kind == "revision":
            card = {"license": self.hub.licenses[name]} if name in self.hub.licenses else {}
            siblings = [{"rfilename": path} for path in files]
            gated = "manual" if name in self.hub.gated else False
            self.send(200, {"id": name, "sha": commit, "siblings": siblings, "cardData": card, "gated": gated})
        elif kind == "tree":
            folder = "/".join(rest)
            found = entries(files, folder, recursive="recursive=true" in self.path.lower())
            if folder and not found:
                self.send(404, {"error": "no such path"}, {"X-Error-Code": "EntryNotFound"})
            else:
                self.send(200, found)
        elif kind == "paths-info":
            everything = entries(files, "", recursive=True)
            self.send(200, [entry for entry in everything if entry["path"] in form.get("paths", [])])
        else:
            self.send(404, {"error": "unknown call"})

    def revision_of(self, parts):
        if parts[:3] == CONVERTED.split("/"):
            return CONVERTED, parts[3:]
        return parts[0], parts[1:]

    def resolve(self, name, parts, body):
        revision, path = self.revision_of(parts)
        path = "/".join(path)
        if not self.known(name, revision):
            return
        commit, content = self.hub.commit(name, revision), self.hub.tree(name, revision).get(path)
        if name in self.hub.gated:
            self.send(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo", "X-Repo-Commit": commit})
        elif content is None:
            self.send(404, {"error": "no entry"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        else:
            headers = {"X-Repo-Commit": commit, "ETag": f'"{oid(content)}"', "Accept-Ranges": "bytes"}
            start, stop = 0, len(content)
            if "Range" in self.headers:
                first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
                start, stop = int(first), int(last) + 1 if last else stop
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            self.send(206 if "Range" in self.headers else 200, content[start:stop], headers, body)

    def send(self, status, content, headers=None, body=True):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(content)


def oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entries(files, folder, recursive):
    """Of a tree: files, and folders where it is not recursive (and where it is, as the Hub does)."""
    prefix = f"{folder}/" if folder else ""
    found = {}
    for path, content in files.items():
        if not path.startswith(prefix):
            continue
        rest = path.removeprefix(prefix).split("/")
        for depth in range(1, len(rest)):
            if depth == 1 or recursive:
                name = prefix + "/".join(rest[:depth])
                found[name] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": name}
        if len(rest) == 1 or recursive:
            found[path] = {"type": "file", "oid": oid(content), "size": len(content), "path": path}
    return list(found.values())
