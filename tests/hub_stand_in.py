"""A Hub on the loopback with models and datasets, some of them private or gated: who asked for what, with which login.

Example:
    >>> with serving() as hub:
    ...     hub.add("models", "some/tiny", {"config.json": b"{}"})
    ...     hub.asked
    []
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"
ABOUT = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(?:revision/[^/]+|(tree|paths-info)/[^/]+))?(?:/.*)?")
FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)")


@dataclass
class Repo:
    """`readers` are the tokens that may see it (None: everybody); `claims` are sizes other than the files' own."""

    files: dict[str, bytes]
    readers: set[str] | None = None
    gated: bool = False
    claims: dict[str, int | None] = field(default_factory=dict)

    def size(self, name: str) -> int | None:
        return self.claims[name] if name in self.claims else len(self.files[name])


@dataclass
class Hub:
    """`asked` holds (method, path, token or None) of every request."""

    address: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def add(self, kind: str, name: str, files: dict[str, bytes], **more: object) -> Repo:
        self.repos[kind, name] = Repo(files, **more)  # type: ignore[arg-type]
        return self.repos[kind, name]

    def tokens(self, part: str = "") -> set[str | None]:
        """The logins that came with requests for a path with this part."""
        return {token for _, path, token in self.asked if part in path}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def rows(count: int, word: str = "sum") -> bytes:
    return b"".join(
        json.dumps({"prompt": f"{word} {i} + {i}?", "completion": f"{2 * i}"}).encode() + b"\n" for i in range(count)
    )


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one small method a call
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            hub.asked.append((self.command, path, self.token))
            if about := ABOUT.fullmatch(path):
                self._about(about[1], about[2], about[3])
            elif file := FILE.fullmatch(path):
                self._file("datasets" if file[1] else "models", file[2], file[3])
            else:
                self._send(b"{}", 404)

        do_HEAD = do_POST = do_GET

        def _repo(self, kind: str, name: str) -> Repo | None:
            repo = hub.repos.get((kind, name))
            if repo is None or (repo.readers is not None and not repo.gated and self.token not in repo.readers):
                self._send(b"{}", 401, {"X-Error-Code": "RepoNotFound"})
                return None
            return repo

        def _about(self, kind: str, name: str, what: str | None) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not (repo := self._repo(kind, name)):
                return
            sizes = "blobs" in parse_qs(urlsplit(self.path).query)
            entries = [{"type": "file", "path": n, "size": len(b), "oid": "0" * 40} for n, b in repo.files.items()]
            if what == "tree":
                self._send(json.dumps(entries).encode())
            elif what:
                wanted = json.loads(body or b"{}").get("paths", [])
                self._send(json.dumps([entry for entry in entries if entry["path"] in wanted]).encode())
            else:
                siblings = [{"rfilename": n, **({"size": repo.size(n)} if sizes else {})} for n in repo.files]
                facts = {"id": name, "sha": SHA, "siblings": siblings, "tags": [], "private": repo.readers is not None}
                self._send(json.dumps(facts | {"gated": "auto" if repo.gated else False}).encode())

        def _file(self, kind: str, name: str, file: str) -> None:
            if not (repo := self._repo(kind, name)):
                return
            if repo.gated and self.token not in (repo.readers or set()):
                self._send(b"{}", 401, {"X-Error-Code": "GatedRepo"})
            elif file not in repo.files:
                self._send(b"{}", 404, {"X-Error-Code": "EntryNotFound"})
            else:
                self._send(repo.files[file], kind="application/octet-stream")

        def _send(
            self, body: bytes, status: int = 200, more: dict | None = None, kind: str = "application/json"
        ) -> None:
            self.send_response(status)
            headers = {"Content-Type": kind, "Content-Length": len(body), "X-Repo-Commit": SHA}
            headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()}"'
            for name, value in {**headers, **(more or {})}.items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


@contextmanager
def serving(port: int = 0) -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", port), handler(hub))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    yield hub
    server.shutdown()
    server.server_close()
