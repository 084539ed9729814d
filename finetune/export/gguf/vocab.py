"""A Hugging Face tokenizer as llama.cpp reads one: tokens, merges or scores, pre-tokenizer, special tokens.

Two kinds are supported. Byte-level BPE (GPT-2's and its successors) keeps its merges, and names one of llama.cpp's
pre-tokenizers; which one is read from tokenizer.json, never guessed from the model's name. BPE with byte fallback
(SentencePiece's, as in Gemma and Llama 2) becomes scores, where an earlier merge scores higher. llama.cpp does not
normalise text: where the tokenizer composes characters (NFC, as Qwen's does), decomposed text is tokenized differently.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from finetune import models
from finetune.errors import ModelError
from finetune.export.gguf.tensors import COMMAND
from finetune.records import Json

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedTokenizerBase

QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

SPLITS = {
    ("GPT-2", False): "gpt-2",
    ("digits, GPT-2", False): "smollm",
    (QWEN, False): "qwen2",
    (LLAMA, True): "llama-bpe",
    (LLAMA, False): "smaug-bpe",
}
"""llama.cpp's names of pre-tokenizers, by rule and `ignore_merges`: whether words in the vocabulary stay whole."""

SPACE = "▁"

"""tokenizer.json, or a part of it."""


def add_vocabulary(writer: "GGUFWriter", folder: Path, rows: int) -> None:
    """Write the tokenizer of a transformers folder; `rows` is how many embeddings the model has.

    Raises:
        ModelError: llama.cpp cannot tokenize as this tokenizer does, or there is no end of turn.

    Example:
        >>> add_vocabulary(gguf.GGUFWriter("model.gguf", "llama"), folder, 49152)
    """
    tokenizer = models.load_tokenizer(models.Found(folder.name, folder, "local"))
    data = _read(folder)
    merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in data["model"]["merges"]]
    if data["model"].get("byte_fallback"):
        _add_scored(writer, data, merges, rows)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(split_name(data))
        tokens, types = _tokens(data, rows, spaces=False)
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges([" ".join(merge) for merge in merges])
    _add_special(writer, tokenizer, folder)
    writer.add_chat_template(tokenizer.get_chat_template())


def split_name(data: Json) -> str:
    """llama.cpp's name of the pre-tokenizer in a byte-level tokenizer.json (`data`).

    Raises:
        ModelError: it has no such pre-tokenizer.

    Example:
        >>> split_name(json.loads(Path("tokenizer.json").read_text()))
        'smollm'
    """
    steps = _steps(data.get("pre_tokenizer"), "pretokenizers")
    kinds = [step["type"] for step in steps]
    last = steps[-1] if steps else {}
    rule = None
    if kinds[-1:] == ["ByteLevel"] and not last["add_prefix_space"]:
        before = steps[:-1]
        digits = [step["type"] == "Digits" and step["individual_digits"] for step in before]
        if last["use_regex"] and all(digits) and len(digits) < 2:
            rule = "digits, GPT-2" if digits else "GPT-2"
        elif not last["use_regex"] and kinds == ["Split", "ByteLevel"] and before[0]["behavior"] == "Isolated":
            rule = before[0]["pattern"].get("Regex")
    name = SPLITS.get((str(rule), bool(data["model"].get("ignore_merges"))))
    normal = {step["type"] for step in _steps(data.get("normalizer"), "normalizers")} - {"NFC"}
    if name is None or normal:
        raise _unknown("a way to split text that llama.cpp is not known to share")
    return name


def _add_scored(writer: "GGUFWriter", data: Json, merges: list[list[str]], rows: int) -> None:
    """SentencePiece's kind: the two neighbours that make the best-scoring token are merged first."""
    normal = _steps(data.get("normalizer"), "normalizers")
    pre = _steps(data.get("pre_tokenizer"), "pretokenizers")
    known = {"Prepend", "Replace", "Metaspace", "Split"}
    if {step["type"] for step in normal + pre} - known:
        raise _unknown("a normalizer that llama.cpp does not have")
    prefix = any(step["type"] == "Prepend" or step.get("prepend_scheme", "never") != "never" for step in normal + pre)
    tokens, types = _tokens(data, rows, spaces=True)
    ranks: dict[str, int] = {}
    for left, right in merges:
        ranks.setdefault(left + right, len(ranks))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(ranks.get(token, 0)) for token in tokens])
    writer.add_token_types(types)
    writer.add_add_space_prefix(prefix)


def _tokens(data: Json, rows: int, spaces: bool) -> tuple[list[str], list[int]]:
    """A token and its type for each of the model's embeddings; with `spaces`, ▁ in added tokens becomes a space."""
    from gguf import TokenType

    added = {token["id"]: token for token in data["added_tokens"]}
    known = {index: text for text, index in data["model"]["vocab"].items()}
    tokens, types = [], []
    for index in range(rows):
        text, kind = known.get(index, f"[PAD{index}]"), TokenType.NORMAL
        if token := added.get(index):
            text = token["content"]
            kind = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
            if spaces and not token["special"]:
                text = text.replace(SPACE, " ")
        elif index not in known:
            kind = TokenType.UNUSED
        elif spaces and text == data["model"].get("unk_token"):
            kind = TokenType.UNKNOWN
        elif spaces and len(text) == 6 and text.startswith("<0x"):
            kind = TokenType.BYTE
        tokens.append(text)
        types.append(int(kind))
    return tokens, types


def _add_special(writer: "GGUFWriter", tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """The tokens with a role. Answers end at end of text, end of turn, and one more token if the model names one.

    llama.cpp would add the beginning of text to a chat as well, so that is turned on only if the chat template has it:
    the model must see what it was trained with.
    """
    end = models.end_of_turn(tokenizer)
    text = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else end
    writer.add_eos_token_id(text)
    writer.add_eot_token_id(end)
    for other in sorted(_named_ends(folder) - {text, end})[:1]:
        writer.add_eom_token_id(other)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    begin = tokenizer.bos_token_id
    if begin is not None:
        writer.add_bos_token_id(begin)
    prompt = models.prompt_ids([{"role": "user", "content": "?"}], tokenizer)
    plain = tokenizer.encode("?")
    writer.add_add_bos_token(begin is not None and prompt[0] == begin == plain[0])
    writer.add_add_eos_token(False)


def _named_ends(folder: Path) -> set[int]:
    file = folder / "generation_config.json"
    named = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
    return set(named) if isinstance(named, list) else set() if named is None else {int(named)}


def _read(folder: Path) -> Json:
    try:
        data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        if data["model"]["type"] == "BPE":
            return dict(data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "Its tokenizer.json is missing or cannot be read.", fix="Export the merged model again."
        ) from error
    raise _unknown(f"a vocabulary of the kind {data['model']['type']}")


def _steps(step: Json | None, within: str) -> list[Json]:
    """The steps of a part of tokenizer.json, sequences flattened."""
    if step is None:
        return []
    return list(_flat(step, within))


def _flat(step: Json, within: str) -> Iterator[Json]:
    if step["type"] == "Sequence":
        for inner in step[within]:
            yield from _flat(inner, within)
    else:
        yield step


def _unknown(what: str) -> ModelError:
    return ModelError(
        f"This tokenizer has {what}.",
        fix=f"Export the merged model and use llama.cpp's own converter: {COMMAND}",
        code="gguf_unsupported",
    )
