"""A small server of the Hub's HTTP interface: repositories in memory, and failures on request."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_right"
FIRST_FILE = ".gitattributes"
"""The Hub creates a repository with a commit of this file."""

Files = dict[str, bytes]


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """The state of the server.

    Attributes:
        commits: by "models/owner/name" or "spaces/owner/name": the files of each commit.
        private: the repositories that were created as private.
        objects: uploaded large files, by SHA-256.
        fail: for each request "METHOD /path", a status that it gets, or None.
        spoil: changes what is sent for a download.
        card_errors: what is wrong with every card.
        requests: all requests so far.
    """

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, Files]] = {}
        self.tags: dict[str, str] = {}
        self.private: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.reset()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        self.fail: Callable[[str], int | None] = lambda request: None
        self.spoil: Callable[[bytes], bytes] = lambda content: content
        self.card_errors: list[str] = []

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def newest(self, repository: str) -> str:
        return list(self.commits[repository])[-1]

    def files(self, repository: str) -> Files:
        files = self.commits[repository][self.newest(repository)]
        return {path: content for path, content in files.items() if path != FIRST_FILE}

    def pushes(self, repository: str) -> int:
        """Commits after the first one."""
        return len(self.commits.get(repository, "1")) - 1

    def commit(self, repository: str, changes: Files, removed: Sequence[str] = ()) -> str:
        history = self.commits[repository]
        files = {**(self.files(repository) if history else {}), **changes}
        for path in removed:
            del files[path]
        oid = hashlib.sha1(json.dumps([len(history), *sorted(files)]).encode()).hexdigest()
        history[oid] = files
        return oid

    def resolve(self, repository: str, revision: str) -> str | None:
        history = self.commits[repository]
        revision = self.tags.get(revision, revision)
        if revision == "main" and history:
            return self.newest(repository)
        return revision if revision in history else None

    def handler(hub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def reply(self, status: int, content: Any = b"", **headers: str) -> None:
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                if "Content_Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def missing(self, code: str, status: int = 404) -> None:
                self.reply(status, {"error": code}, X_Error_Code=code)

            def handle_request(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = f"{self.command} {self.path.partition('?')[0]}"
                hub.requests.append(request)
                status = hub.fail(request)
                if status is not None:
                    self.reply(status, {"error": "as asked"}, Retry_After="0")
                    return
                for pattern, answer in ROUTES:
                    if found := re.fullmatch(pattern, request):
                        answer(self, body, **found.groupdict())
                        return
                self.reply(404, {"error": request})

            do_GET = do_HEAD = do_POST = do_PUT = handle_request

            def allowed(self) -> bool:
                if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                    return True
                self.reply(401, {"error": "Invalid username or password."})
                return False

            def whoami(self, body: bytes) -> None:
                if self.allowed():
                    self.reply(200, {"name": "owner", "type": "user", "orgs": []})

            def create(self, body: bytes) -> None:
                asked = json.loads(body)
                if not self.allowed():
                    return
                kind = f"{asked.get('type') or 'model'}s"
                name = f"{asked.get('organization') or 'owner'}/{asked['name']}"
                url = {"url": f"{hub.endpoint}/{'' if kind == 'models' else kind + '/'}{name}"}
                if f"{kind}/{name}" in hub.commits:
                    self.reply(409, url)
                    return
                hub.commits[f"{kind}/{name}"] = {}
                hub.commit(f"{kind}/{name}", {FIRST_FILE: b""})
                if asked.get("private") or asked.get("visibility") == "private":
                    hub.private.add(f"{kind}/{name}")
                self.reply(200, url)

            def validate(self, body: bytes) -> None:
                errors = [{"message": one} for one in hub.card_errors]
                self.reply(400 if errors else 200, {"errors": errors, "warnings": []})

            def preupload(self, body: bytes, kind: str, name: str) -> None:
                files = json.loads(body)["files"]
                modes = [
                    {"path": one["path"], "shouldIgnore": False,
                     "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular"}
                    for one in files
                ]  # fmt: skip
                self.reply(200, {"files": modes})

            def batch(self, body: bytes, name: str) -> None:
                objects = [
                    {**one, "actions": {"upload": {"href": f"{hub.endpoint}/put/{one['oid']}"}}}
                    for one in json.loads(body)["objects"]
                ]
                self.reply(200, {"transfer": "basic", "objects": objects})

            def put(self, body: bytes, oid: str) -> None:
                assert hashlib.sha256(body).hexdigest() == oid
                hub.objects[oid] = body
                self.reply(200)

            def add_commit(self, body: bytes, kind: str, name: str) -> None:
                if not self.allowed():
                    return
                changes, removed = {}, []
                for line in body.splitlines():
                    entry = json.loads(line)
                    value = entry["value"]
                    if entry["key"] == "file":
                        changes[value["path"]] = base64.b64decode(value["content"])
                    elif entry["key"] == "deletedFile":
                        removed.append(value["path"])
                    elif entry["key"] == "lfsFile":
                        changes[value["path"]] = hub.objects[value["oid"]]
                oid = hub.commit(f"{kind}/{name}", changes, removed)
                url = f"{hub.endpoint}/{name}/commit/{oid}"
                self.reply(200, {"commitUrl": url, "commitOid": oid, "pullRequestUrl": None,
                                 "hookOutput": "", "success": True})  # fmt: skip

            def find(self, kind: str, name: str, revision: str) -> str | None:
                """The commit; answers with an error if there is none."""
                repository = f"{kind}/{name}"
                right = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                if repository not in hub.commits or (repository in hub.private and not right):
                    self.missing("RepoNotFound", 401 if not right else 404)
                    return None
                commit = hub.resolve(repository, revision)
                if commit is None:
                    self.missing("RevisionNotFound")
                return commit

            def info(self, body: bytes, kind: str, name: str, revision: str = "main") -> None:
                if commit := self.find(kind, name, revision):
                    names = [{"rfilename": path} for path in hub.commits[f"{kind}/{name}"][commit]]
                    about = {"id": name, "modelId": name, "sha": commit, "siblings": names}
                    self.reply(200, {**about, "private": f"{kind}/{name}" in hub.private})

            def tree(self, body: bytes, kind: str, name: str, revision: str) -> None:
                if commit := self.find(kind, name, revision):
                    self.reply(200, [
                        {"type": "file", "path": path, "size": len(content),
                         "oid": git_digest(content), **large(path, content)}
                        for path, content in hub.commits[f"{kind}/{name}"][commit].items()
                    ])  # fmt: skip

            def download(self, body: bytes, name: str, revision: str, path: str) -> None:
                if not (commit := self.find("models", name, revision)):
                    return
                content = hub.commits[f"models/{name}"][commit].get(path)
                if content is None:
                    self.missing("EntryNotFound")
                    return
                lfs = large(path, content)
                etag = lfs["lfs"]["oid"] if lfs else git_digest(content)
                headers = {"ETag": f'"{etag}"', "X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
                sent = content if self.command == "HEAD" else hub.spoil(content)
                self.reply(200, sent, Content_Length=str(len(content)), **headers)
                if len(sent) < len(content):
                    self.close_connection = True

        def large(path: str, content: bytes) -> dict[str, Any]:
            if not path.endswith(".safetensors"):
                return {}
            digest = hashlib.sha256(content).hexdigest()
            return {"lfs": {"oid": digest, "sha256": digest, "size": len(content),
                            "pointerSize": 130}}  # fmt: skip

        name, kind = r"(?P<name>[\w.-]+/[\w.-]+)", r"(?P<kind>models|spaces)"
        ROUTES: list[tuple[str, Callable[..., None]]] = [
            (r"GET /api/whoami-v2", Handler.whoami),
            (r"POST /api/repos/create", Handler.create),
            (r"POST /api/validate-yaml", Handler.validate),
            (rf"POST /api/{kind}/{name}/preupload/main", Handler.preupload),
            (rf"POST /{name}\.git/info/lfs/objects/batch", Handler.batch),
            (r"PUT /put/(?P<oid>\w+)", Handler.put),
            (rf"POST /api/{kind}/{name}/commit/main", Handler.add_commit),
            (rf"GET /api/{kind}/{name}/tree/(?P<revision>[\w.-]+)", Handler.tree),
            (rf"GET /api/{kind}/{name}/revision/(?P<revision>[\w.-]+)", Handler.info),
            (rf"GET /api/{kind}/{name}", Handler.info),
            (rf"(?:GET|HEAD) /{name}/resolve/(?P<revision>[\w.-]+)/(?P<path>.+)", Handler.download),
        ]
        return Handler
