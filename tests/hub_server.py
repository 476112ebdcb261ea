"""A small Hugging Face Hub on loopback, for tests that push and load through real HTTP.

It answers what `huggingface_hub` calls for model repositories: create, validate-yaml, preupload, LFS batch and upload,
commit, tree, and resolve with ETag, X-Repo-Commit, X-Linked-* and ranges. As on the real Hub, a large file is stored
elsewhere: resolve redirects to a second server, of another origin, which must never be sent a token. Xet is switched
off by the environment that `LoopbackHub.environment` gives to a client.
"""

import base64
import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
LFS_SUFFIXES = (".safetensors", ".bin")
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"


@dataclass(frozen=True)
class Blob:
    """A file's content, and whether it is stored as LFS (named by its sha256) or in git (named by its git sha1)."""

    content: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Repository:
    """Commits (each a whole tree: path -> blob) and the branches and tags that name them."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit({}, "main")

    def commit(self, tree: dict[str, Blob], branch: str) -> str:
        content = repr((len(self.commits), sorted((path, blob.oid) for path, blob in tree.items())))
        oid = hashlib.sha1(content.encode()).hexdigest()
        self.commits[oid] = tree
        self.refs[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass(frozen=True)
class Request:
    """One line of the Hub's log."""

    server: str
    method: str
    path: str
    authorization: str | None


class LoopbackHub:
    """The Hub and its storage server, running until `close`.

    Attributes:
        endpoint: what HF_ENDPOINT is to be.
        token: the one token with the right to write, and to read what is private or gated.
        repositories: id -> Repository; tests may put some there or change them.
        requests: the log.
    """

    token = "hf_loopback"

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self._hub = _serve(_HubHandler, self)
        self._storage = _serve(_StorageHandler, self)
        self.endpoint = _address(self._hub)
        self.storage_endpoint = _address(self._storage)

    def close(self) -> None:
        """Stops both servers; whoever calls them from now on finds the connection refused."""
        for server in (self._hub, self._storage):
            server.shutdown()
            server.server_close()

    def add(self, repo_id: str, files: dict[str, bytes], **options: bool) -> str:
        """Puts a repository with `files` on the Hub, past HTTP, and returns its commit."""
        tree = {path: Blob(content, path.endswith(LFS_SUFFIXES)) for path, content in files.items()}
        repository = self.repositories.setdefault(repo_id, Repository(**options))
        self.stored.update({blob.oid: blob.content for blob in tree.values() if blob.lfs})
        return repository.commit(tree, "main")

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """path -> content of the files at `revision`."""
        repository = self.repositories[repo_id]
        return {path: blob.content for path, blob in repository.commits[repository.resolve(revision)].items()}

    def environment(self, home: Path, *, token: str | None = token, **extra: str) -> dict[str, str]:
        """The environment of a client process of this Hub with its own, at first empty, HF_HOME; its PATH finds the
        commands that are installed beside this Python, as an activated virtual environment's does."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        client = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        return inherited | client | ({"HF_TOKEN": token} if token else {}) | extra


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """A Hub of the test's own, empty."""
    with closing(LoopbackHub()) as server:
        yield server


class _Refusal(Exception):
    """An HTTP error with the headers by which the Hub client recognises it."""

    def __init__(self, status: HTTPStatus, code: str | None = None, message: str = ""):
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    routes: tuple[tuple[str, str, str], ...] = ()
    hub: LoopbackHub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        server = type(self).__name__.strip("_").removesuffix("Handler").lower()
        self.hub.requests.append(Request(server, self.command, url.path, self.headers.get("Authorization")))
        method = "GET" if self.command == "HEAD" else self.command
        try:
            for verb, pattern, name in self.routes:
                if verb == method and (match := re.fullmatch(pattern, url.path)):
                    getattr(self, name)(**{key: unquote(value) for key, value in match.groupdict().items() if value})
                    return
            raise _Refusal(HTTPStatus.NOT_FOUND, message=f"no such route: {method} {url.path}")
        except _Refusal as refusal:
            self.answer(refusal.status, json.dumps({"error": str(refusal)}).encode(), refusal.headers)

    do_HEAD = do_POST = do_PUT = do_GET

    def answer(self, status: HTTPStatus, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer_file(self, content: bytes, headers: dict[str, str]) -> None:
        """The whole of `content`, or the part that the Range header asks for."""
        headers = {"Accept-Ranges": "bytes", **headers}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            self.answer(HTTPStatus.OK, content, headers)
            return
        start, end = int(asked[1]), int(asked[2] or len(content) - 1)
        part = content[start : end + 1]
        headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        self.answer(HTTPStatus.PARTIAL_CONTENT, part, headers)


class _HubHandler(_Handler):
    routes = (
        ("POST", "/api/repos/create", "create"),
        ("POST", "/api/validate-yaml", "validate_yaml"),
        ("GET", f"/api/models/{REPO}/tree/(?P<revision>[^/]+)", "tree"),
        ("POST", f"/api/models/{REPO}/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", f"/api/models/{REPO}/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", f"/{REPO}\\.git/info/lfs/objects/batch", "lfs_batch"),
        ("GET", f"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def create(self) -> None:
        self._require_token()
        asked = json.loads(self.body)
        repo = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.hub.endpoint}/{repo}"}
        if repo in self.hub.repositories:
            self.answer_json({"error": "You already created this model repo", **url}, HTTPStatus.CONFLICT)
            return
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.repositories[repo] = Repository(private=bool(private))
        self.answer_json(url)

    def validate_yaml(self) -> None:
        content = json.loads(self.body)["content"]
        if not (content.startswith("---\n") and "\n---\n" in content[4:]):
            raise _Refusal(HTTPStatus.BAD_REQUEST, message="the card has no front matter")
        self.answer_json({"errors": [], "warnings": []})

    def tree(self, repo: str, revision: str) -> None:
        repository, oid = self._open(repo, revision)
        self.answer_json([_tree_entry(path, blob) for path, blob in sorted(repository.commits[oid].items())])

    def preupload(self, repo: str, revision: str) -> None:
        self._require_token()
        repository, oid = self._open(repo, revision)
        present = repository.commits[oid]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                "shouldIgnore": False,
                "oid": present[file["path"]].oid if file["path"] in present else None,
            }
            for file in json.loads(self.body)["files"]
        ]
        self.answer_json({"files": modes})

    def lfs_batch(self, repo: str) -> None:
        self._require_token()
        self._open(repo, "main")
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.stored:
                entry["actions"] = {"upload": {"href": f"{self.hub.storage_endpoint}/{wanted['oid']}"}}
            objects.append(entry)
        self.answer_json({"transfer": "basic", "objects": objects})

    def commit(self, repo: str, revision: str) -> None:
        self._require_token()
        repository, parent = self._open(repo, revision)
        tree = dict(repository.commits[parent])
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "file":
                    tree[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
                case "lfsFile":
                    tree[value["path"]] = Blob(self.hub.stored[value["oid"]], lfs=True)
        oid = repository.commit(tree, revision)
        url = f"{self.hub.endpoint}/{repo}/commit/{oid}"
        self.answer_json({"success": True, "commitOid": oid, "commitUrl": url})

    def resolve(self, repo: str, revision: str, path: str) -> None:
        repository, oid = self._open(repo, revision)
        blob = repository.commits[oid].get(path)
        if blob is None:
            refusal = _Refusal(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found")
            refusal.headers["X-Repo-Commit"] = oid
            raise refusal
        headers = {"X-Repo-Commit": oid, "ETag": f'"{blob.oid}"'}
        if not blob.lfs:
            self.answer_file(blob.content, headers)
            return
        headers |= {
            "X-Linked-Etag": f'"{blob.oid}"',
            "X-Linked-Size": str(len(blob.content)),
            "Location": f"{self.hub.storage_endpoint}/{blob.oid}",
        }
        self.answer(HTTPStatus.FOUND, b"", headers)

    def _open(self, repo: str, revision: str) -> tuple[Repository, str]:
        """The repository and its commit, if this client may see them."""
        entitled = self._has_token()
        repository = self.hub.repositories.get(repo)
        if repository is None or (repository.private and not entitled):
            status = HTTPStatus.NOT_FOUND if entitled else HTTPStatus.UNAUTHORIZED
            raise _Refusal(status, "RepoNotFound", "Repository not found")
        if repository.gated and not entitled:
            raise _Refusal(HTTPStatus.UNAUTHORIZED, "GatedRepo", f"Access to model {repo} is restricted")
        oid = repository.resolve(revision)
        if oid is None:
            raise _Refusal(HTTPStatus.NOT_FOUND, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, oid

    def _has_token(self) -> bool:
        authorization = self.headers.get("Authorization")
        if authorization not in (None, f"Bearer {self.hub.token}"):
            raise _Refusal(HTTPStatus.UNAUTHORIZED, message="Invalid credentials in Authorization header")
        return authorization is not None

    def _require_token(self) -> None:
        if not self._has_token():
            raise _Refusal(HTTPStatus.UNAUTHORIZED, message="Invalid username or password.")


class _StorageHandler(_Handler):
    routes = (("PUT", "/(?P<oid>[0-9a-f]{64})", "upload"), ("GET", "/(?P<oid>[0-9a-f]{64})", "download"))

    def upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refusal(HTTPStatus.BAD_REQUEST, message="the content does not have this sha256")
        self.hub.stored[oid] = self.body
        self.answer(HTTPStatus.OK, headers={"ETag": f'"{oid}"'})

    def download(self, oid: str) -> None:
        self.answer_file(self.hub.stored[oid], {"ETag": f'"{oid}"'})


def _tree_entry(path: str, blob: Blob) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.oid}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.oid, "size": len(blob.content), "pointerSize": 134}
    return entry


def _serve(handler: type[_Handler], hub: LoopbackHub) -> ThreadingHTTPServer:
    bound = type(handler.__name__, (handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


def _address(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"
