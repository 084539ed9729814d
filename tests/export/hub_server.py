"""A Hub on the loopback: the calls that huggingface_hub makes for a push and for a Space, answered from memory.

A Space is kept under ``spaces/owner/name``, a model under ``owner/name``.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"
PART = 50_000
"""Bytes of a part: larger files are asked for in parts."""

ATTRIBUTES = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
"""What the Hub itself puts into a new repository."""


class Hub:
    """What it holds, what it was asked, and how it is to fail: ``fail["commit"] = 403`` or ``"silence"``.

    An event there is waited for, and then all is well.
    """

    def __init__(self) -> None:
        self.who: dict[str, Any] = {"type": "user", "name": "me", "orgs": [{"name": "my-team"}]}
        self.token = "hf_visitor"
        self.repos: dict[str, dict[str, Any]] = {}
        self.trees: dict[str, list[dict[str, bytes]]] = {}
        self.store: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.fail: dict[str, Any] = {}
        self.message = ""
        self.address = ""

    def add(
        self,
        repo: str,
        private: bool = True,
        titles: tuple[str, ...] = ("initial commit",),
        files: dict[str, bytes] = ATTRIBUTES,
    ) -> None:
        """A repository whose commits have these titles, oldest first, all of them with these files."""
        self.trees[repo] = [dict(files) for _ in titles]
        self.repos[repo] = {"private": private, "titles": list(titles), "files": dict(files)}


REPO = r"(?:models/|(?=spaces/))(.+/.+)"
"""Of a path: the name that a repository is kept under."""

PRICES = [
    {"name": "cpu-basic", "prettyName": "CPU Basic", "cpu": "2 vCPU", "ram": "16 GB", "unitCostMicroUSD": 0},
    {"name": "t4-small", "prettyName": "Nvidia T4 - small", "cpu": "4 vCPU", "ram": "15 GB", "unitCostMicroUSD": 6667},
]
"""What hardware costs a minute here, in millionths of a dollar."""

ROUTES = (
    ("whoami", "GET", r"/api/whoami-v2"),
    ("create", "POST", r"/api/repos/create"),
    ("yaml", "POST", r"/api/validate-yaml"),
    ("preupload", "POST", rf"/api/{REPO}/preupload/main"),
    ("commit", "POST", rf"/api/{REPO}/commit/main"),
    ("commits", "GET", rf"/api/{REPO}/commits/main"),
    ("tree", "GET", rf"/api/{REPO}/tree/([0-9a-f]{{40}})"),
    ("prices", "GET", r"/api/spaces/hardware"),
    ("hardware", "POST", r"/api/(spaces/[^/]+/[^/]+)/hardware"),
    ("info", "GET", r"/api/(?:models/|(?=spaces/))((?:spaces/)?[^/]+/[^/]+)"),
    ("batch", "POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch"),
    ("put", "PUT", r"/store/(\w+)/(\d+)"),
    ("complete", "POST", r"/complete/(\w+)"),
    ("verify", "POST", r"/verify"),
)


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one small method a call
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self._body()
            path = urlsplit(self.path).path
            for name, method, pattern in ROUTES:
                if method == self.command and (match := re.fullmatch(pattern, path)):
                    hub.asked.append((name, self.headers.get("Authorization")))
                    return self._route(name, match.groups(), body)
            return self._send(404, {"error": f"no such call: {self.command} {path}"})

        do_GET = do_POST = do_PUT = _answer

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _route(self, name: str, groups: tuple[str, ...], body: bytes) -> None:
            failing = hub.fail.get(name)
            if isinstance(failing, threading.Event):
                failing = not failing.wait(20)
            if failing == "silence":
                threading.Event().wait(20)
            elif failing == "hang up":
                self.close_connection = True
            elif failing:
                self._send(failing, {"error": hub.message or f"no {self.headers.get('Authorization')}"})
            elif name not in ("put", "complete") and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._send(401, {"error": "Invalid credentials in Authorization header"})
            else:
                getattr(self, f"_{name}")(body, *groups)

        def _send(self, status: int, answer: Any, **more: str) -> None:
            data = json.dumps(answer).encode()
            self.send_response(status)
            for key, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **more}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(data)

        def _whoami(self, body: bytes) -> None:
            self._send(200, hub.who)

        def _create(self, body: bytes) -> None:
            asked = json.loads(body)
            repo = f"{asked['organization'] or hub.who['name']}/{asked['name']}"
            repo = f"spaces/{repo}" if asked.get("type") == "space" else repo
            if repo in hub.repos:
                return self._send(409, {"error": "You already created this repo"})
            hub.add(repo, private=asked.get("visibility") == "private")
            if asked.get("type") == "space":
                hub.repos[repo] |= {"sdk": asked["sdk"], "hardware": asked.get("hardware")}
            return self._send(200, {"url": f"{hub.address}/{repo}"})

        def _prices(self, body: bytes) -> None:
            rest = {"ephemeralStorage": "50 GB", "accelerator": None, "unitLabel": "minute"}
            self._send(200, [one | rest | {"unitCostUSD": one["unitCostMicroUSD"] / 1e6} for one in PRICES])

        def _hardware(self, body: bytes, repo: str) -> None:
            hub.repos[repo]["hardware"] = json.loads(body)["flavor"]
            self._send(200, _runtime(hub.repos[repo]))

        def _yaml(self, body: bytes) -> None:
            self._send(200, {"warnings": [], "errors": []})

        def _info(self, body: bytes, repo: str) -> None:
            if repo not in hub.repos:
                return self._send(404, {"error": "Repository not found"}, **{"X-Error-Code": "RepoNotFound"})
            there = hub.repos[repo]
            siblings = [{"rfilename": name} for name in there["files"]]
            head = f"{len(there['titles']) - 1:040x}"
            found = {"id": repo, "sha": head, "private": there["private"], "siblings": siblings}
            if repo.startswith("spaces/"):
                found |= {"id": repo.removeprefix("spaces/"), "sdk": there["sdk"], "runtime": _runtime(there)}
            return self._send(200, found)

        def _commits(self, body: bytes, repo: str) -> None:
            plain = {"authors": [{"user": "me"}], "date": "2026-01-01T00:00:00.000Z", "message": ""}
            titles = list(enumerate(hub.repos[repo]["titles"]))
            self._send(200, [plain | {"id": f"{place:040x}", "title": title} for place, title in reversed(titles)])

        def _tree(self, body: bytes, repo: str, revision: str) -> None:
            files = hub.trees[repo][int(revision, 16)]
            self._send(200, [{"type": "file", "path": name, "size": 1, "oid": SHA} for name in files])

        def _preupload(self, body: bytes, repo: str) -> None:
            files = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith((".safetensors", ".gguf")) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for f in json.loads(body)["files"]
            ]
            self._send(200, {"files": files})

        def _batch(self, body: bytes, repo: str) -> None:
            objects = []
            for one in json.loads(body)["objects"]:
                oid, size = one["oid"], one["size"]
                signed = f"{hub.address}/store/{oid}"
                upload: dict[str, Any] = {"href": f"{signed}/0?X-Signature=signed-secret"}
                if size > PART:
                    urls = {str(i + 1): f"{signed}/{i}?X-Signature=signed-secret" for i in range(-(-size // PART))}
                    upload = {"href": f"{hub.address}/complete/{oid}", "header": {"chunk_size": str(PART), **urls}}
                verify = {"href": f"{hub.address}/verify"}
                objects.append({"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}})
            self._send(200, {"transfer": "basic", "objects": objects})

        def _put(self, body: bytes, oid: str, part: str) -> None:
            hub.store[f"{oid}/{part}"] = body
            self._send(200, {}, ETag=f'"{part}"')

        def _complete(self, body: bytes, oid: str) -> None:
            self._send(200, {})

        def _verify(self, body: bytes) -> None:
            self._send(200, {})

        def _commit(self, body: bytes, repo: str) -> None:
            files, title = dict(hub.repos[repo]["files"]), ""
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    title, head = value["summary"], len(hub.repos[repo]["titles"]) - 1
                    if int(value.get("parentCommit") or f"{head:x}", 16) != head:
                        return self._send(412, {"error": "A commit has happened since. Please refresh and try again."})
                elif line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    parts = sorted((int(key.split("/")[1]), key) for key in hub.store if key.startswith(value["oid"]))
                    files[value["path"]] = b"".join(hub.store[key] for _, key in parts)
                    assert hashlib.sha256(files[value["path"]]).hexdigest() == value["oid"]
                elif line["key"] == "deletedFile" and files.pop(value["path"], None) is None:
                    return self._send(
                        404, {"error": "A file with this name doesn't exist"}, **{"X-Error-Code": "EntryNotFound"}
                    )
                elif line["key"] == "deletedFolder":
                    files = {name: data for name, data in files.items() if not name.startswith(value["path"])}
            hub.repos[repo]["files"] = files
            hub.repos[repo]["titles"].append(title)
            hub.trees[repo].append(dict(files))
            head = f"{len(hub.repos[repo]['titles']) - 1:040x}"
            return self._send(200, {"commitUrl": f"{hub.address}/{repo}/commit/{head}", "commitOid": head})

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


def _runtime(space: dict[str, Any]) -> dict[str, Any]:
    return {"stage": "RUNNING", "hardware": {"current": space["hardware"], "requested": space["hardware"]}}


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    yield hub
    server.shutdown()
