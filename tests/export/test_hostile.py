"""Bundles by somebody who means harm: each is refused with a sentence, and nothing of it stays."""

import hashlib
import json
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from finetune import evaluate
from finetune.errors import DataError
from finetune.evaluate import worksheet
from finetune.export.bundle import archive, read_bundle, strict_json
from finetune.export.card import card
from finetune.export.formats import format_of
from finetune.export.subject import gather
from finetune.store import Store
from finetune.ui.results import verdict
from tests.examples import examples
from tests.export.trained import world

Files = dict[str, bytes]


def taken(bundle: Path) -> Files:
    with zipfile.ZipFile(bundle) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def sealed(files: Files) -> Files:
    """With a manifest that is true of these files."""
    rest = {name: held for name, held in files.items() if name != "manifest.json"}
    told = {name: {"bytes": len(held), "sha256": hashlib.sha256(held).hexdigest()} for name, held in rest.items()}
    manifest = {"format": "before-and-after-run", "version": 1, "files": told}
    return {"manifest.json": json.dumps(manifest).encode(), **rest}


def zipped(files: Files, place: Path, change: Callable[[zipfile.ZipInfo], Any] = lambda info: None) -> Path:
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, held in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            bundle.writestr(info, held)
    return place


def refused(store: Store, bundle: Path, says: str) -> None:
    home = store.path.parent
    before = {file for file in home.rglob("*") if "finetune.db" not in file.name}
    with pytest.raises(DataError, match=says) as caught:
        read_bundle(store, bundle)
    assert caught.value.code == "bundle_refused"
    assert str(home) not in str(caught.value)
    assert str(bundle.parent) not in str(caught.value)
    left = {file for file in home.rglob("*") if "finetune.db" not in file.name} - before
    assert left <= {home / "imports", home / "runs", home / "datasets"}
    assert store.runs() == []


@pytest.fixture
def files(tiny: Path) -> Files:
    return taken(world(tiny).full)


def test_the_same_bundle_untouched_is_accepted(store: Store, files: Files, tmp_path: Path) -> None:
    assert read_bundle(store, zipped(sealed(files), tmp_path / "b.zip")).state == "succeeded"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../evil.json", "points outside"),
        ("adapter/../../evil.json", "points outside"),
        ("/etc/evil.json", "points outside"),
        ("C:/evil.json", "points outside"),
        ("C:evil.json", "points outside"),
        ("adapter\\..\\evil.json", "points outside"),
        ("./run.json", "points outside"),
        ("adapter/./x.json", "points outside"),
        ("adapter/adapter_model.bin", "does not belong in a bundle"),
        ("adapter/evil.pkl", "does not belong in a bundle"),
        ("adapter/model.pt", "does not belong in a bundle"),
        ("adapter/modeling_evil.py", "does not belong in a bundle"),
        ("adapter/other.safetensors", "does not belong in a bundle"),
        ("adapter/deep/x.json", "does not belong in a bundle"),
        ("adapter/.hidden.json", "does not belong in a bundle"),
        ("adapter/config.json", "does not belong in a bundle"),
        ("adapter/x.json", "does not belong in a bundle"),
        ("adapter/x.txt", "does not belong in a bundle"),
        ("evaluations/short/answers.jsonl", "does not belong in a bundle"),
        ("data/original/train.jsonl", "does not belong in a bundle"),
        ("finetune.db", "does not belong in a bundle"),
        ("", "does not belong in a bundle"),
        ("adapter/", "does not belong in a bundle|Links, folders"),
        ("adapter/new\nline.json", "does not belong in a bundle"),
    ],
)
def test_names_that_no_bundle_has(store: Store, files: Files, tmp_path: Path, name: str, says: str) -> None:
    refused(store, zipped(sealed({**files, name: b"{}"}), tmp_path / "b.zip"), says)


def test_a_name_with_a_nul_is_not_cut_short(store: Store, files: Files, tmp_path: Path) -> None:
    place = zipped(sealed({**files, "adapter/aXb.json": b"{}"}), tmp_path / "b.zip")
    place.write_bytes(place.read_bytes().replace(b"adapter/aXb.json", b"adapter/a\0b.json"))
    refused(store, place, "points outside")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_special_files(store: Store, files: Files, tmp_path: Path, kind: int) -> None:
    def change(info: zipfile.ZipInfo) -> None:
        if info.filename == "adapter/chat_template.jinja":
            info.external_attr = (kind | 0o777) << 16

    refused(store, zipped(sealed({**files}), tmp_path / "b.zip", change), "Links, folders and special files")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["run.json", "adapter/ADAPTER_config.json"])
def test_two_files_of_one_name(store: Store, files: Files, tmp_path: Path, second: str) -> None:
    place = zipped(sealed(files), tmp_path / "b.zip")
    with zipfile.ZipFile(place, "a") as bundle:
        bundle.writestr(second, b"{}")
    refused(store, place, "two files of this name|does not belong in a bundle")


def test_encrypted_and_oddly_compressed_files(store: Store, files: Files, tmp_path: Path) -> None:
    place = zipped(sealed(files), tmp_path / "b.zip")
    held = bytearray(place.read_bytes())
    entry = held.index(b"PK\x01\x02")
    held[entry + 8] |= 1
    place.write_bytes(bytes(held))
    refused(store, place, "encrypted")

    def change(info: zipfile.ZipInfo) -> None:
        info.compress_type = zipfile.ZIP_LZMA

    refused(store, zipped(sealed(files), tmp_path / "c.zip", change), "compression method")


def test_bombs(store: Store, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = sealed({**files, "run.json": b" " * (2 * 2**20)})
    refused(store, zipped(bomb, tmp_path / "a.zip"), "at most 1 are accepted")
    many = {f"evaluations/{count:016x}/task.json": b"" for count in range(501)}
    refused(store, zipped(sealed({**files, **many}), tmp_path / "b.zip"), "more than 500 files")
    monkeypatch.setattr(archive, "MOST_DIRECTORY", 10)
    refused(store, zipped(sealed(files), tmp_path / "c.zip"), "more than 500 files")
    monkeypatch.undo()
    zeros = {f"evaluations/{count:016x}/answers.jsonl": b" " * 10**7 for count in range(6)}
    refused(store, zipped(sealed({**files, **zeros}), tmp_path / "d.zip"), "zip bomb")
    monkeypatch.undo()
    monkeypatch.setenv("FINETUNE_HOME", str(store.path.parent))
    monkeypatch.setenv("FINETUNE_MAX_UPLOAD_MB", "1")
    refused(
        store,
        zipped(sealed({**files, "adapter/merges.txt": b" " * (5 * 2**20)}), tmp_path / "e.zip"),
        "at most 4 MB are",
    )


@pytest.mark.parametrize("name", ["adapter/tokenizer.json", "adapter/tokenizer_config.json", "run.json"])
@pytest.mark.parametrize("unit", [b"[],", b"{},", b"0,", b'"ab",'])
def test_json_that_would_fill_the_memory(store: Store, files: Files, tmp_path: Path, name: str, unit: bytes) -> None:
    """A small text of many small values; it is counted, and nothing is made of it."""
    count = {"adapter/tokenizer.json": 4_100_000, "run.json": 201_000}.get(name, 1_500_000)
    bomb = b'{"a": [' + unit * count + b"0]}"
    held = zipped(sealed({**files, name: bomb}), tmp_path / "b.zip")
    tracemalloc.start()
    try:
        refused(store, held, "values|at most 1 are accepted")
        assert tracemalloc.get_traced_memory()[1] < len(bomb) + 30 * 2**20
    finally:
        tracemalloc.stop()


def test_a_small_zip_bomb(store: Store, tmp_path: Path) -> None:
    held = sealed({"events.jsonl": b" " * (2 * 2**20)})
    refused(store, zipped(held, tmp_path / "b.zip"), "zip bomb")


def test_sizes_that_are_not_true(store: Store, files: Files, tmp_path: Path) -> None:
    """The table of contents says less than there is: what is read ends there, and the checksum tells."""
    place = zipped(sealed(files), tmp_path / "b.zip")
    held = bytearray(place.read_bytes())
    entry = held.index(b"PK\x01\x02")
    size = struct.unpack_from("<I", held, entry + 24)[0]
    struct.pack_into("<I", held, entry + 24, size - 10)
    place.write_bytes(bytes(held))
    refused(store, place, "not a valid zip|not as long")
    struct.pack_into("<I", held, entry + 24, size + 10)
    place.write_bytes(bytes(held))
    refused(store, place, "not a valid zip|not as long")


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("offset", [2**40, 2**63 - 1, 2**64 - 1])
def test_places_that_no_file_has(store: Store, files: Files, tmp_path: Path, place: int, offset: int) -> None:
    """The table of contents says, in zip64, that a file begins where the system cannot even look."""
    held = zipped(sealed(files), tmp_path / "b.zip")
    with zipfile.ZipFile(held, "a") as bundle:
        bundle.infolist()[place].header_offset = offset
        bundle._didModify = True  # so that the table is written again
    refused(store, held, "b.zip: This is not a valid zip file")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_torn_and_other_files(store: Store, tiny: Path, tmp_path: Path, kept: float) -> None:
    whole = world(tiny).full.read_bytes()
    place = tmp_path / "b.zip"
    place.write_bytes(whole[: int(kept * len(whole))])
    refused(store, place, "not a valid zip file")


def test_no_zip_no_manifest_no_file(store: Store, files: Files, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04 this was never a zip")
    refused(store, tmp_path / "b.zip", "b.zip: This is not a valid zip file")
    refused(store, tmp_path / "none.zip", "There is no such file")
    refused(store, tmp_path, "There is no such file")
    del files["manifest.json"]
    refused(store, zipped(files, tmp_path / "c.zip"), "no manifest")


def test_what_the_manifest_does_not_bear_out(store: Store, files: Files, tmp_path: Path) -> None:
    votes = files["votes.jsonl"]
    refused(store, zipped({**files, "votes.jsonl": votes.replace(b"own", b"OWN")}, tmp_path / "a.zip"), "SHA-256")
    refused(store, zipped({**files, "votes.jsonl": votes + b"\n"}, tmp_path / "b.zip"), "SHA-256")
    refused(store, zipped({**files, "adapter/merges.txt": b""}, tmp_path / "c.zip"), "manifest does not name")
    refused(store, zipped({k: v for k, v in files.items() if k != "votes.jsonl"}, tmp_path / "d.zip"), "missing")
    for needed in ("run.json", "adapter/adapter_model.safetensors", "events.jsonl", "votes.jsonl"):
        left = sealed({name: held for name, held in files.items() if name != needed})
        refused(store, zipped(left, tmp_path / "e.zip"), f"{needed}: This file is missing")
    manifest = json.loads(files["manifest.json"])
    for wrong in ({"version": 2}, {"format": "other"}, {"files": {}}, {"more": 1}):
        held = {**files, "manifest.json": json.dumps(manifest | wrong).encode()}
        refused(store, zipped(held, tmp_path / "f.zip"), "manifest|field")


def changed(files: Files, member: str, values: dict[str, Any]) -> Files:
    return {**files, member: json.dumps(json.loads(files[member]) | values).encode()}


DEEP = b'{"a":' * 60 + b"1" + b"}" * 60


@pytest.mark.parametrize(
    ("name", "held", "says"),
    [
        ("run.json", b"[1]", "not a JSON object"),
        ("run.json", b"{", "not valid JSON"),
        ("run.json", b"\xff", "not valid JSON"),
        ("run.json", b'{"a": NaN}', "not valid JSON"),
        ("run.json", b'{"a": 1e999}', "not finite"),
        ("run.json", b'{"a": -Infinity}', "not valid JSON"),
        ("run.json", DEEP, "levels deep"),
        ("run.json", b'{"a":' * 100_000, "not valid JSON"),
        ("run.json", b'{"a": ' + b"9" * 5000 + b"}", "not valid"),
        ("environment.json", b"{}", "field"),
        ("adapter/tokenizer_config.json", DEEP, "levels deep"),
        ("adapter/tokenizer.json", b"[]", "not a JSON object"),
        ("adapter/chat_template.jinja", b"\x80\x04", "not a text"),
        ("adapter/chat_template.jinja", b"a\0b", "not a text"),
        ("events.jsonl", b"{}\n", "field"),
        ("events.jsonl", b"\n", "not valid JSON"),
        ("votes.jsonl", b'{"choice": "me"}', "field"),
        ("data/train.jsonl", b"", "rows"),
        ("data/train.jsonl", b"\x80\x04K\x01.", "rows"),
        ("report.json", b'{"verdict": "fine"}', "field"),
        ("evaluations/0123456789abcdef/task.json", b'{"limit": 5}', "answers.jsonl: This file is missing"),
    ],
)
def test_records_that_are_none(store: Store, files: Files, tmp_path: Path, name: str, held: bytes, says: str) -> None:
    refused(store, zipped(sealed({**files, name: held}), tmp_path / "b.zip"), says)


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("run.json", {"owner": "root"}, "'owner'"),
        ("run.json", {"state": "running"}, "'state'"),
        ("run.json", {"name": "x" * 301}, "'name'"),
        ("run.json", {"name": ""}, "'name'"),
        ("run.json", {"created": 1e12}, "'created'"),
        ("run.json", {"step": -1}, "'step'"),
        ("run.json", {"step": True}, "'step'"),
        ("run.json", {"seconds": "1"}, "'seconds'"),
        ("run.json", {"result": {"source": "elsewhere"}}, "source"),
        ("run.json", {"result": {"adapter": "x"}}, "adapter"),
        ("adapter/adapter_config.json", {"auto_mapping": {"base_model_class": "X"}}, "refers to code"),
        ("adapter/adapter_config.json", {"peft_type": "IA3"}, "not a plain LoRA"),
        ("adapter/adapter_config.json", {"peft_type": None}, "not a plain LoRA"),
        ("adapter/adapter_config.json", {"use_dora": True}, "not a plain LoRA"),
        ("adapter/adapter_config.json", {"bias": "all"}, "not a plain LoRA"),
        ("adapter/adapter_config.json", {"modules_to_save": ["lm_head"]}, "not a plain LoRA"),
        ("adapter/adapter_config.json", {"init_lora_weights": "pissa"}, "not a plain LoRA"),
        ("adapter/adapter_config.json", {"megatron_core": "os"}, "not a plain LoRA"),
        ("adapter/adapter_config.json", {"something": "new"}, "not a plain LoRA"),
        ("adapter/adapter_config.json", {"base_model_name_or_path": "/etc"}, "different base"),
        ("adapter/adapter_config.json", {"r": 8}, "rank"),
        ("adapter/adapter_config.json", {"lora_alpha": 1}, "rank"),
        ("adapter/adapter_config.json", {"target_modules": "(a+)+$"}, "target modules"),
        ("adapter/adapter_config.json", {"target_modules": ["(a+)+$"]}, "target modules"),
        ("adapter/adapter_config.json", {"target_modules": []}, "target modules"),
        ("adapter/adapter_config.json", {"layers_to_transform": [1]}, "layers are not those"),
        ("adapter/adapter_config.json", {"layers_to_transform": 1}, "type"),
        ("adapter/adapter_config.json", {"layers_pattern": "(a+)+$"}, "not a plain LoRA"),
        ("adapter/adapter_config.json", {"lora_dropout": "boom"}, "type"),
        ("adapter/adapter_config.json", {"lora_dropout": 1.5}, "dropout"),
        ("adapter/adapter_config.json", {"inference_mode": "no"}, "type"),
        ("adapter/adapter_config.json", {"fan_in_fan_out": 1}, "type"),
        ("adapter/adapter_config.json", {"peft_version": ["x"]}, "type"),
        ("adapter/adapter_config.json", {"revision": "main"}, "not a plain LoRA"),
        ("run.json", {"result": {"eval_loss": -1e308}}, "eval_loss"),
        ("adapter/tokenizer_config.json", {"auto_map": {"AutoTokenizer": "evil.Tokenizer"}}, "refers to code"),
        ("adapter/tokenizer_config.json", {"a": [{"b": {"trust_remote_code": True}}]}, "refers to code"),
        ("data.json", {"included": False}, "or the reverse"),
        ("data.json", {"train": 50}, "not those"),
        ("data.json", {"sha256": "0" * 64}, "not those"),
        ("data.json", {"files": {"/etc/passwd": {}}}, "files"),
    ],
)
def test_records_that_say_too_much(
    store: Store, files: Files, tmp_path: Path, name: str, values: dict[str, Any], says: str
) -> None:
    refused(store, zipped(sealed(changed(files, name, values)), tmp_path / "b.zip"), says)


def test_settings_and_bases_that_cannot_be(store: Store, files: Files, tmp_path: Path) -> None:
    config = json.loads(files["run.json"])["config"]
    for wrong, says in (
        ({"lerning_rate": 1}, "no such setting"),
        ({"epochs": -1}, "not allowed"),
        ({"model": "other"}, "different base"),
    ):
        bad = sealed(changed(files, "run.json", {"config": config | wrong}))
        refused(store, zipped(bad, tmp_path / "b.zip"), says)
    paths = ("/etc", "../up", "~/x", "C:\\x", "a/b/c", "..", ".", "a/..", "/", "a\0b", "~", "https://x/y")
    for name in paths:
        for local in (True, False):
            base = {"name": name, "local": local, "weights": None}
            bad = sealed(changed(files, "run.json", {"config": config | {"model": name}, "base": base}))
            bad = sealed(changed(bad, "adapter/adapter_config.json", {"base_model_name_or_path": name}))
            refused(store, zipped(bad, tmp_path / "b.zip"), "named by a path")


def test_a_code_file_that_a_config_does_not_need(store: Store, files: Files, tmp_path: Path) -> None:
    bad = {**files, "adapter/generation_config.json": json.dumps({"auto_map": {"AutoModel": "evil.Model"}}).encode()}
    refused(store, zipped(sealed(bad), tmp_path / "b.zip"), "refers to code")


@pytest.mark.parametrize("arm", ["base", "tuned"])
def test_reports_that_compare_nothing(store: Store, tiny: Path, tmp_path: Path, arm: str) -> None:
    files = taken(world(tiny).bare)
    report = json.loads(files["report.json"])
    scoreless = {**report["arms"], arm: report["arms"][arm] | {"score": None}}
    for arms in ({name: held for name, held in report["arms"].items() if name != arm}, scoreless):
        bad = changed(files, "report.json", {"arms": arms})
        refused(store, zipped(sealed(bad), tmp_path / "b.zip"), "need a score")


def test_reports_whose_words_are_not_ours(store: Store, tiny: Path, tmp_path: Path) -> None:
    files = taken(world(tiny).bare)
    bad = changed(files, "report.json", {"metric": "<img src=x onerror=alert(1)>"})
    refused(store, zipped(sealed(bad), tmp_path / "b.zip"), "'metric'")


OPTIONAL = ("confusion", "empty", "over_long", "too_long", "fewer_examples", "seconds_ci", "answer_tokens")


@pytest.mark.parametrize("field", OPTIONAL)
def test_pages_stand_without_what_a_report_may_leave_out(store: Store, tiny: Path, tmp_path: Path, field: str) -> None:
    files = taken(world(tiny).bare)
    report = json.loads(files["report.json"])
    arms = {name: {key: held for key, held in arm.items() if key != field} for name, arm in report["arms"].items()}
    bundle = zipped(sealed(changed(files, "report.json", {"arms": arms})), tmp_path / "b.zip")
    if field == "answer_tokens":
        refused(store, bundle, "needs answer_tokens")
        return
    run = read_bundle(store, bundle)
    found = evaluate.known(run)
    assert found is not None
    assert verdict.arms(found) + verdict.verdict(found) + card(gather(store, run), format_of("adapter"))
    assert worksheet.sheet(worksheet.gather(store.dataset(run.dataset), run.config["model"], [run])).items


def weights(files: Files, change: Callable[[dict[str, torch.Tensor]], Any]) -> Files:
    tensors = load(files["adapter/adapter_model.safetensors"])
    change(tensors)
    return sealed({**files, "adapter/adapter_model.safetensors": save(tensors)})


def test_weights_that_are_none(store: Store, files: Files, tmp_path: Path) -> None:
    name = next(iter(load(files["adapter/adapter_model.safetensors"])))
    cases: list[tuple[Files, str]] = [
        (weights(files, lambda held: held[name].fill_(float("nan"))), "not finite"),
        (weights(files, lambda held: held[name][0].fill_(float("inf"))), "not finite"),
        (weights(files, lambda held: held.update({name: torch.zeros(3, 64)})), "fit the rank"),
        (weights(files, lambda held: held.update({name: torch.zeros(16, 64, dtype=torch.int64)})), "something other"),
        (weights(files, lambda held: held.update({"model.embed_tokens.weight": torch.zeros(2, 2)})), "something other"),
        (weights(files, lambda held: held.clear()), "no weights"),
    ]
    real = files["adapter/adapter_model.safetensors"]
    length = struct.unpack("<Q", real[:8])[0]
    header = json.loads(real[8 : 8 + length])
    header[name]["data_offsets"] = [0, 10**9]
    lying = json.dumps(header).encode()
    for held in (
        real[:-10],
        real + b"x" * 10,
        b"\x80\x04K\x01.",
        b"",
        struct.pack("<Q", 2**60) + real[8:],
        struct.pack("<Q", len(lying)) + lying + real[8 + length :],
    ):
        cases.append((sealed({**files, "adapter/adapter_model.safetensors": held}), "not a valid safetensors"))
    for case, says in cases:
        refused(store, zipped(case, tmp_path / "b.zip"), says)


def test_histories_that_cannot_be(store: Store, files: Files, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in files["events.jsonl"].splitlines()]

    def written(events: list[Any]) -> Files:
        return sealed({**files, "events.jsonl": "".join(f"{json.dumps(one)}\n" for one in events).encode()})

    step = next(place for place, one in enumerate(lines) if one["kind"] == "step")
    for wrong, says in (
        (lines[1:], "numbered"),
        ([*lines, lines[-1]], "numbered"),
        ([one | ({"kind": "exec"} if place == step else {}) for place, one in enumerate(lines)], "kind"),
        ([one | ({"data": {"step": 1}} if place == step else {}) for place, one in enumerate(lines)], "field"),
        (
            [
                one | ({"data": one["data"] | {"loss": 1e308}} if place == step else {})
                for place, one in enumerate(lines)
            ],
            "loss",
        ),
        ([one | ({"run": "r1"} if place == step else {}) for place, one in enumerate(lines)], "run"),
    ):
        refused(store, zipped(written(wrong), tmp_path / "b.zip"), says)


@pytest.mark.parametrize("name", ["events.jsonl", "votes.jsonl"])
def test_histories_without_end(
    store: Store, files: Files, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = files[name].splitlines()
    monkeypatch.setattr(strict_json, "MOST_LINES", len(events) - 1)
    refused(store, zipped(sealed(files), tmp_path / "b.zip"), "more than .* lines")


def test_answers_to_rows_that_there_are_not(store: Store, files: Files, tmp_path: Path) -> None:
    name = next(name for name in files if name.endswith("answers.jsonl"))
    lines = files[name].splitlines()
    beyond = json.dumps(json.loads(lines[0]) | {"row": 9}).encode()
    long = json.dumps(json.loads(lines[0]) | {"text": "a " * 50_001}).encode()
    for held, says in (
        ([*lines, beyond], "a row that does not exist"),
        ([*lines, lines[0]], "answered twice"),
        ([*lines, b'{"row": 1}'], "field"),
        ([long, *lines[1:]], "'text'"),
    ):
        refused(store, zipped(sealed({**files, name: b"\n".join(held) + b"\n"}), tmp_path / "b.zip"), says)


@examples(150)
@given(st.data())
def test_whatever_is_damaged_is_refused_or_harmless(
    store: Store, tiny: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """Bytes changed anywhere: a refusal, or (in what zip does not check, such as times) the very same run."""
    held = bytearray(world(tiny).bare.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(held) - 1), min_size=1, max_size=4)):
        held[place] ^= data.draw(st.integers(1, 255))
    bundle = tmp_path / "b.zip"
    bundle.write_bytes(bytes(held))
    known = {run.id for run in store.runs()}
    code, run = "", None
    try:
        run = read_bundle(store, bundle)
    except DataError as error:
        code = error.code
    assert (code == "bundle_refused") == (run is None)
    assert {one.id for one in store.runs()} == known | ({run.id} if run else set())
    if run:
        assert len(store.events(run.id)) == len(taken(world(tiny).bare)["events.jsonl"].splitlines())
    assert list((store.path.parent / "imports").iterdir()) == []
