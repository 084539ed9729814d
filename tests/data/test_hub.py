"""A dataset from the Hub: a loopback stand-in with two configs, one gated and one silent."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import datasets
import pyarrow
import pytest

from finetune import data, models
from finetune.data import hub
from finetune.errors import DataError

ROOT = Path(__file__).parents[2]
SHA = "0123456789abcdef0123456789abcdef01234567"
CARD = """---
configs:
- config_name: sums
  data_files: [{split: train, path: sums/train.jsonl}, {split: test, path: sums/test.jsonl}]
- config_name: odd
  data_files: odd.jsonl
---
"""


def rows(count: int) -> bytes:
    return b"".join(
        json.dumps({"prompt": f"{i} + {i}?", "completion": str(2 * i)}).encode() + b"\n" for i in range(count)
    )


FILES = {"README.md": CARD.encode(), "sums/train.jsonl": rows(30), "sums/test.jsonl": rows(5), "odd.jsonl": rows(3)}


class Hub(BaseHTTPRequestHandler):
    """The calls `datasets` makes for one public dataset; ``some/gated`` is gated, ``some/silent`` never answers."""

    asked: list[str] = []

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path}")
        if "some/silent" in path:
            threading.Event().wait(30)
        elif "some/gated" in path:
            self._send(b"{}", status=403, more={"X-Error-Code": "GatedRepo"})
        elif path.startswith(f"/api/datasets/some/sums/tree/{SHA}") or path.startswith(
            "/api/datasets/some/sums/tree/main"
        ):
            self._send(json.dumps(tree(path.split("/", 7)[-1] if path.count("/") > 6 else "")).encode())
        elif path.startswith("/api/datasets/some/sums/paths-info/"):
            self._paths_info()
        elif path.startswith("/api/datasets/some/sums"):
            siblings = [{"rfilename": name} for name in FILES]
            about = {"id": "some/sums", "sha": SHA, "siblings": siblings, "private": False, "gated": False, "tags": []}
            self._send(json.dumps(about).encode())
        elif path.startswith("/datasets/some/sums/resolve/") and path.split("/", 6)[-1] in FILES:
            self._send(FILES[path.split("/", 6)[-1]], "application/octet-stream")
        else:
            self._send(b"{}", status=404, more={"X-Error-Code": "RepoNotFound" if "other" in path else "EntryNotFound"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._paths_info() if "/paths-info/" in self.path else self._send(b"{}", status=404)

    def _paths_info(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        wanted = json.loads(body or b"{}").get("paths", [])
        self._send(json.dumps([entry for entry in tree("", deep=True) if entry["path"] in wanted]).encode())

    def _send(self, body: bytes, kind: str = "application/json", status: int = 200, more: dict | None = None) -> None:
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


def tree(folder: str, deep: bool = False) -> list[dict]:
    """The entries of a folder as the Hub lists them."""
    entries = [{"type": "file", "path": name, "size": len(body), "oid": "0" * 40} for name, body in FILES.items()]
    entries.append({"type": "directory", "path": "sums", "size": 0, "oid": "1" * 40})
    return entries if deep else [entry for entry in entries if str(Path(str(entry["path"])).parent) == (folder or ".")]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def check(where: str, tmp_path: Path, endpoint: str) -> tuple[int, dict]:
    """`check --json` in a fresh process: huggingface_hub reads its environment once."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "finetune", "check", where, "--json", "--model", "nowhere/none"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_config_and_a_split(address: str, tmp_path: Path) -> None:
    code, answer = check("hub:some/sums:sums:test", tmp_path, address)
    assert (code, answer.get("rows"), answer["name"]) == (0, 5, "some/sums"), (answer, Hub.asked)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("hub:some/sums", "several configs. Choose one of: sums, odd."),
        ("hub:some/sums:none", "There is no config 'none'. Choose one of: sums, odd."),
        ("hub:some/sums:sums:dev", "There is no split 'dev'. Choose one of: train, test."),
        ("hub:some/gated", "The dataset is gated"),
        ("hub:some/other", "The Hub has no such dataset"),
    ],
)
def test_what_is_missing_is_named(address: str, tmp_path: Path, where: str, said: str) -> None:
    code, answer = check(where, tmp_path, address)
    problem = answer["error"]
    assert code == 2
    assert said in f"{problem['message']} {problem['fix']}"


def test_no_hub_is_one_sentence(tmp_path: Path) -> None:
    code, answer = check("hub:some/sums", tmp_path, "http://127.0.0.1:9")
    assert (code, answer["error"]["message"]) == (2, "The Hub cannot be reached.")


def test_a_silent_hub_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.hub, "SECONDS", 0.05)
    monkeypatch.setattr(hub, "_ask", lambda wanted: threading.Event().wait(5))
    with pytest.raises(DataError, match=r"did not answer within 0\.05 s"):
        data.load_hub("some/silent")


def answered(monkeypatch: pytest.MonkeyPatch, lines: Iterable[dict]) -> None:
    """A Hub whose dataset has these rows."""
    monkeypatch.setattr(hub, "_ask", lambda wanted: None)
    monkeypatch.setattr(hub, "_config", lambda wanted, folder: "sums")
    monkeypatch.setattr(hub, "_stream", lambda wanted, config, folder: iter(lines))


@pytest.mark.parametrize("column", ["audio", "speech"])
def test_sound_is_not_decoded_so_that_the_text_beside_it_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, column: str
) -> None:
    """Decoding takes torchcodec, which is not installed with the app."""
    sound = {"bytes": b"RIFF\xff\xfe", "path": "1.wav"}
    table = pyarrow.table({"prompt": ["What is said?"], "completion": ["Good day."], column: [sound]})
    rows = datasets.Dataset(table).cast_column(column, datasets.Audio()).to_iterable_dataset()
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, config, **own: ["train"])
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, **own: rows)
    wanted = hub.Request("some/sounds", None, "train", None)
    monkeypatch.setattr(hub, "_ask", lambda wanted: None)
    monkeypatch.setattr(hub, "_config", lambda wanted, folder: "sounds")
    path, _ = hub.fetch(wanted, tmp_path)
    assert json.loads(path.read_text())[column] == {"bytes": "<6 bytes>", "path": "1.wav"}
    read = data.load(path)
    if column == "audio":
        assert [row.code for row in read.rejected] == ["image_or_audio"]
    else:
        assert [row.answer for row in read.examples] == ["Good day."]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("To support decoding audio data, please install 'torchcodec'."), "(ImportError: To support"),
        (TypeError("Couldn't cast array of type\nstring\nto\nint64"), "cast array of type string to int64)."),
        (KeyError("text"), "(KeyError: 'text')."),
        (EOFError("Compressed file ended"), "(EOFError: Compressed file ended)."),
        (zipfile.BadZipFile("File is not a zip file"), "(BadZipFile: File is not a zip file)."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_whatever_reading_ends_with_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, home: Path, error: Exception, said: str
) -> None:
    def broken() -> Iterator[dict]:
        yield {"prompt": "Hi", "completion": "Hello"}
        raise error

    answered(monkeypatch, broken())
    with pytest.raises(DataError) as told:
        data.load_hub("some/sums")
    assert told.value.code == "hub_unavailable"
    assert said in told.value.what
    assert told.value.fix


def test_too_many_rows_are_cut_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, [json.loads(line) for line in rows(30).splitlines()])
    whole = data.load("hub:some/sums")
    assert (whole.name, whole.rows) == ("some/sums", 30)
    cut = data.load_hub("some/sums", most=20)
    assert (cut.name, cut.rows) == ("some/sums (first 20 rows)", 20)
    assert "Only the first 20 rows were fetched." in {problem.message for problem in cut.problems}
    assert data.load_hub("some/sums", most=30).name == "some/sums"


@pytest.mark.parametrize("size", [300_000, 1_000, 3_000_000])
def test_no_more_is_written_than_may_be_uploaded(
    monkeypatch: pytest.MonkeyPatch, home: Path, size: int, tmp_path: Path
) -> None:
    """Rows without an end, wide or narrow, and one that is larger than all there is room for."""
    monkeypatch.setenv("FINETUNE_MAX_UPLOAD_MB", "1")
    taken: list[int] = []

    def endless() -> Iterator[dict]:
        while True:
            taken.append(1)
            yield {"prompt": f"{len(taken)}", "completion": "ä" * (size // 6)}  # six bytes each, escaped

    answered(monkeypatch, endless())
    if size > 2**20:
        with pytest.raises(DataError, match="first row exceeds the limit of 1 MB"):
            data.load_hub("some/sums", folder=tmp_path)
    else:
        cut = data.load_hub("some/sums", folder=tmp_path)
        assert f"first 1 MB ({cut.rows:,} rows)" in cut.name
        assert cut.rows == len(taken) - 1
    assert (tmp_path / "rows.jsonl").stat().st_size <= 2**20


def test_a_folder_of_a_fetch_goes_when_it_is_old(home: Path) -> None:
    old, young = home / "hub" / "left", home / "hub" / "young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    (home / "hub" / "owner--secrets----train.jsonl").write_text("one file for everybody, as it was before")
    os.utime(old, (0, 0))
    with data.own_folder() as own:
        assert {path.name for path in (home / "hub").iterdir()} == {"young", own.name}
    assert not own.exists()


@pytest.mark.parametrize("name", ["../etc", "a/b/c", "finetune/data", "hub:a:b:c:d", "/root"])
def test_names_that_are_no_dataset(name: str) -> None:
    with pytest.raises(DataError):
        data.load(name if name.startswith("hub:") else f"hub:{name}")
