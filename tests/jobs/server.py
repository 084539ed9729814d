"""Hugging Face Jobs on the loopback: the Hub of `tests.export.hub_server`, and beside it the calls of a job.

A job really runs: its script is fetched from the repository with the job's secret, as uv does, and executed.

Example:
    >>> with serving() as hub:
    ...     hub.jobs
    {}
"""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.export import hub_server
from tests.jobs import machines

OVER = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
OURS = (
    ("hardware", "GET", r"/api/jobs/hardware"),
    ("run_job", "POST", r"/api/jobs/([\w-]+)"),
    ("list_jobs", "GET", r"/api/jobs/([\w-]+)"),
    ("inspect", "GET", r"/api/jobs/([\w-]+)/(\w+)"),
    ("logs", "GET", r"/api/jobs/([\w-]+)/(\w+)/logs"),
    ("cancel", "POST", r"/api/jobs/([\w-]+)/(\w+)/cancel"),
    ("delete", "DELETE", r"/api/repos/delete"),
    ("about", "GET", r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?"),
    ("paths", "POST", r"/api/models/([^/]+/[^/]+)/paths-info/([^/]+)"),
    ("files", "GET", r"/api/models/([^/]+/[^/]+)/tree/([^/]+)"),
    ("file", "GET", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)"),
    ("file", "HEAD", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)"),
)


@dataclass
class Job:
    """A job: what was asked for, its stage, its log, and its process once it has a machine."""

    id: str
    asked: dict[str, Any]
    stage: str = "SCHEDULING"
    message: str | None = None
    lines: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    folder: Path = field(default_factory=lambda: Path(mkdtemp(prefix="job-")))
    began: float = 0.0


class Hub(hub_server.Hub):
    """`machine` is when a job gets one; `grace` how many seconds a cancelled job has, and `late` how many more than
    its limit one that is too slow; `away`: no request is answered.

    `lose` names lines of the log that are not sent the first time they are asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Job] = {}
        self.machine, self.away, self.over = threading.Event(), threading.Event(), threading.Event()
        self.machine.set()
        self.grace, self.late = 0.0, 0.0
        self.lose: set[int] = set()
        self.public: set[str] = set()
        self.port = 0

    def add_model(self, name: str, folder: Path) -> None:
        """A public model with the files of a folder."""
        self.add(name, private=False, files={file.name: file.read_bytes() for file in folder.iterdir()})
        self.public.add(name)

    def end(self, job: Job) -> None:
        """Pull a job's plug."""
        if job.process:
            machines.kill(job.process)

    def execute(self, job: Job) -> None:
        """A job's life, in a thread."""
        if not self.machine.wait(60) or job.stage != "SCHEDULING" or self.over.is_set():
            return
        job.stage, job.began = "RUNNING", time.time()
        try:
            code = self._script(job)
        except Exception as error:  # noqa: BLE001 - as a container that cannot start
            job.lines.append(f"{type(error).__name__}: {error}")
            code = 1
        if job.stage == "RUNNING":
            job.stage = "COMPLETED" if code == 0 else "ERROR"

    def _script(self, job: Job) -> int:
        secrets, [uv, run, url] = job.asked["secrets"], job.asked["command"]
        assert (uv, run) == ("uv", "run")
        repo, revision, name = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", urlsplit(url).path).groups()  # type: ignore[union-attr]
        assert secrets["HF_TOKEN"] == self.token, "uv reads a private script with the job's own secret"
        script = job.folder / name
        script.write_bytes(self.trees[repo][int(revision, 16)][name])
        told = {"HF_ENDPOINT": self.address, "HF_HUB_DISABLE_XET": "1"}
        told |= {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}
        job.process = machines.start(script, told | job.asked["environment"] | secrets, job.folder)
        timer = threading.Timer(job.asked["timeoutSeconds"] + self.late, self.time_is_up, (job,))
        timer.daemon = True
        timer.start()
        assert job.process.stdout
        for line in job.process.stdout:
            job.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
        timer.cancel()
        return job.process.wait()

    def time_is_up(self, job: Job) -> None:
        job.stage, job.message = "ERROR", "Job timeout"
        self.end(job)

    def cancel(self, job: Job) -> None:
        """As the platform: the process is told, and killed when it does not listen in time."""
        if job.stage in OVER:
            return
        if job.process and self.grace:
            job.process.send_signal(signal.SIGTERM)
            give_up = time.monotonic() + self.grace
            while job.process.poll() is None and time.monotonic() < give_up:
                time.sleep(0.05)
        job.stage = "CANCELED"
        self.end(job)


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one small method a call
    class Handler(hub_server.handler(hub)):  # type: ignore[misc]
        def _answer(self) -> None:
            if hub.away.is_set():
                self.close_connection = True
                return None
            path = unquote(urlsplit(self.path).path)
            for name, method, pattern in OURS:
                if method == self.command and (match := re.fullmatch(pattern, path)):
                    hub.asked.append((name, self.headers.get("Authorization")))
                    return self._ours(name, match.groups())
            return super()._answer()

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer

        def _ours(self, name: str, groups: tuple[str, ...]) -> None:
            body = self._body()
            known = self.headers.get("Authorization") == f"Bearer {hub.token}"
            if failing := hub.fail.get(name):
                return self._send(failing, {"error": hub.message or "no"})
            if not known and name in ("about", "files", "file", "paths") and groups[0] in hub.public:
                known = True
            if not known:
                return self._send(401, {"error": "Invalid credentials in Authorization header"})
            return getattr(self, f"_{name}")(body, *groups)

        def _missing(self, code: str) -> None:
            self._send(404, {"error": "not found"}, **{"X-Error-Code": code})

        # Files

        def _delete(self, body: bytes) -> None:
            asked = json.loads(body)
            hub.repos.pop(f"{asked['organization'] or hub.who['name']}/{asked['name']}", None)
            self._send(200, {})

        def _tree_at(self, repo: str, revision: str) -> dict[str, bytes] | None:
            if repo not in hub.repos:
                return self._missing("RepoNotFound")
            trees = hub.trees[repo]
            return trees[-1] if revision == "main" else trees[int(revision, 16)]

        def _entries(self, files: dict[str, bytes]) -> list[dict[str, Any]]:
            return [{"type": "file", "path": n, "size": len(data), "oid": "0" * 40} for n, data in files.items()]

        def _about(self, body: bytes, repo: str) -> None:
            if (files := self._tree_at(repo, "main")) is None:
                return
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            head = f"{len(hub.trees[repo]) - 1:040x}"
            facts = {"id": repo, "sha": head, "siblings": siblings, "private": repo not in hub.public, "gated": False}
            self._send(200, facts | {"tags": []})

        def _paths(self, body: bytes, repo: str, revision: str) -> None:
            if (files := self._tree_at(repo, revision)) is None:
                return
            text = body.decode()
            wanted = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
            self._send(200, [one for one in self._entries(files) if one["path"] in wanted])

        def _files(self, body: bytes, repo: str, revision: str) -> None:
            if (files := self._tree_at(repo, revision)) is not None:
                self._send(200, self._entries(files))

        def _file(self, body: bytes, repo: str, revision: str, name: str) -> None:
            if (files := self._tree_at(repo, revision)) is None:
                return
            if name not in files:
                self._missing("EntryNotFound")
                return
            data = files[name]
            self.send_response(200)
            head = len(hub.trees[repo]) - 1 if revision == "main" else int(revision, 16)
            told = {"X-Repo-Commit": f"{head:040x}", "ETag": f'"{hash(data) & (2**64 - 1):x}"'}
            for key, value in {**told, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        # Jobs

        def _hardware(self, body: bytes) -> None:
            self._send(200, machines.hardware())

        def _run_job(self, body: bytes, account: str) -> None:
            asked = json.loads(body)
            if asked["flavor"] not in machines.PRICES:
                return self._send(400, {"error": "Invalid flavor"})
            job = Job(f"{len(hub.jobs):024x}", asked)
            hub.jobs[job.id] = job
            threading.Thread(target=hub.execute, args=(job,), daemon=True).start()
            if hub.fail.get("answer") == "lost":
                hub.fail.pop("answer")
                self.close_connection = True
                return None
            return self._send(200, self._info(job))

        def _info(self, job: Job) -> dict[str, Any]:
            running = round(time.time() - job.began) if job.began else None
            return {
                "id": job.id,
                "createdAt": "2026-01-01T00:00:00.000Z",
                "dockerImage": job.asked.get("dockerImage"),
                "command": job.asked["command"],
                "environment": job.asked["environment"],
                "flavor": job.asked["flavor"],
                "labels": job.asked.get("labels"),
                "status": {"stage": job.stage, "message": job.message},
                "durations": {"schedulingSecs": 0, "runningSecs": running, "totalSecs": running},
                "owner": {"id": "1", "name": hub.who["name"], "type": "user"},
            }

        def _job(self, job_id: str) -> Job | None:
            return hub.jobs[job_id] if job_id in hub.jobs else self._missing("")

        def _list_jobs(self, body: bytes, account: str) -> None:
            wanted = parse_qs(urlsplit(self.path).query).get("label", [])
            found = [
                job
                for job in hub.jobs.values()
                if {f"{key}={value}" for key, value in job.asked["labels"].items()} >= set(wanted)
            ]
            self._send(200, [self._info(job) for job in found])

        def _inspect(self, body: bytes, account: str, job_id: str) -> None:
            if job := self._job(job_id):
                self._send(200, self._info(job))

        def _cancel(self, body: bytes, account: str, job_id: str) -> None:
            if job := self._job(job_id):
                threading.Thread(target=hub.cancel, args=(job,), daemon=True).start()
                self._send(200, self._info(job))

        def _logs(self, body: bytes, account: str, job_id: str) -> None:
            if not (job := self._job(job_id)):
                return
            self.close_connection = True
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            sent = 0
            while not hub.away.is_set():
                over = job.stage in OVER and (job.process is None or job.process.poll() is not None)
                while sent < len(job.lines):
                    sent += 1
                    if sent in hub.lose:
                        hub.lose.discard(sent)
                        continue
                    told = json.dumps({"data": job.lines[sent - 1], "timestamp": "2026-01-01T00:00:00.000Z"})
                    self.wfile.write(f"data: {told}\n\n".encode())
                    self.wfile.flush()
                if over and sent == len(job.lines):
                    return
                time.sleep(0.02)

    return Handler


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who hung up was killed or cancelled on purpose."""


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = Server(("127.0.0.1", 0), handler(hub))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        hub.over.set()
        for job in hub.jobs.values():
            hub.end(job)
            shutil.rmtree(job.folder, ignore_errors=True)
        server.shutdown()
        server.server_close()
