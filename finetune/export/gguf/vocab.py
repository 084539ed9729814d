"""A Hugging Face tokenizer as llama.cpp reads one: tokens, merges or scores, what splits text, what ends a turn.

Two kinds are known. Byte-level BPE (GPT-2's and its heirs) keeps its merges, and llama.cpp is told by
name which rule splits text into words; the rule is found in tokenizer.json, never guessed from the
model's name. BPE with byte fallback (Gemma, Llama 2: SentencePiece's) becomes scores, where a token
that is merged earlier scores higher. llama.cpp normalises no text: a tokenizer that composes
characters (NFC, as Qwen's) cuts text that is not composed differently there.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import models
from finetune.errors import ModelError
from finetune.export.gguf.tensors import COMMAND

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
"""llama.cpp's names of the rules that split text, by rule and whether a whole word in the vocabulary is never cut."""

SPACE = "▁"


def add_vocabulary(writer: "GGUFWriter", folder: Path, rows: int) -> None:
    """Write the tokenizer of a transformers folder; `rows` is how many embeddings the model has.

    Raises:
        ModelError: llama.cpp has no way to cut text as this tokenizer does, or there is no end of turn.

    Example:
        >>> add_vocabulary(gguf.GGUFWriter("model.gguf", "llama"), folder, 49152)
    """
    tokenizer = models.load_tokenizer(models.Found(folder.name, folder, "local"))
    told = _read(folder)
    merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in told["model"]["merges"]]
    if told["model"].get("byte_fallback"):
        _add_scored(writer, told, merges, rows)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(split_name(told))
        tokens, types = _tokens(told, rows, spaces=False)
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges([" ".join(merge) for merge in merges])
    _add_special(writer, tokenizer, folder)
    writer.add_chat_template(tokenizer.get_chat_template())


def split_name(told: dict[str, Any]) -> str:
    """llama.cpp's name for how a byte-level tokenizer.json (`told`) splits text into words.

    Raises:
        ModelError: it knows no such rule.

    Example:
        >>> split_name(json.loads(Path("tokenizer.json").read_text()))
        'smollm'
    """
    steps = _steps(told.get("pre_tokenizer"), "pretokenizers")
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
    name = SPLITS.get((str(rule), bool(told["model"].get("ignore_merges"))))
    normal = {step["type"] for step in _steps(told.get("normalizer"), "normalizers")} - {"NFC"}
    if name is None or normal:
        raise _unknown("a way to split text that llama.cpp is not known to share")
    return name


def _add_scored(writer: "GGUFWriter", told: dict[str, Any], merges: list[list[str]], rows: int) -> None:
    """SentencePiece's kind: whichever two neighbours make the best token are joined first."""
    normal = _steps(told.get("normalizer"), "normalizers")
    pre = _steps(told.get("pre_tokenizer"), "pretokenizers")
    known = {"Prepend", "Replace", "Metaspace", "Split"}
    if {step["type"] for step in normal + pre} - known:
        raise _unknown("a normalizer that llama.cpp does not have")
    prefix = any(step["type"] == "Prepend" or step.get("prepend_scheme", "never") != "never" for step in normal + pre)
    tokens, types = _tokens(told, rows, spaces=True)
    ranks: dict[str, int] = {}
    for left, right in merges:
        ranks.setdefault(left + right, len(ranks))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(ranks.get(token, 0)) for token in tokens])
    writer.add_token_types(types)
    writer.add_add_space_prefix(prefix)


def _tokens(told: dict[str, Any], rows: int, spaces: bool) -> tuple[list[str], list[int]]:
    """A token and its type for each of the model's rows; with `spaces`, text that was typed has no ▁ in it."""
    from gguf import TokenType

    added = {token["id"]: token for token in told["added_tokens"]}
    known = {index: text for text, index in told["model"]["vocab"].items()}
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
        elif spaces and text == told["model"].get("unk_token"):
            kind = TokenType.UNKNOWN
        elif spaces and len(text) == 6 and text.startswith("<0x"):
            kind = TokenType.BYTE
        tokens.append(text)
        types.append(int(kind))
    return tokens, types


def _add_special(writer: "GGUFWriter", tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """The tokens with a role. An answer ends at the end of text, at the end of turn, and at a third if there is one.

    llama.cpp puts the beginning of text before a chat too, so it is told to only where the chat template
    does: what a chat was trained with is what counts here.
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


def _read(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        if told["model"]["type"] == "BPE":
            return dict(told)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "There is no tokenizer.json that can be read.", fix="Export the merged model again."
        ) from error
    raise _unknown(f"a vocabulary of the kind {told['model']['type']}")


def _steps(step: dict[str, Any] | None, within: str) -> list[dict[str, Any]]:
    """The steps of a part of tokenizer.json, taken out of their sequences."""
    if step is None:
        return []
    return list(_flat(step, within))


def _flat(step: dict[str, Any], within: str) -> Iterator[dict[str, Any]]:
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
