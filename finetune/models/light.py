"""The tokens of plain conversations without importing transformers, whose AutoTokenizer brings PyTorch along.

`counting_tokenizer` serves whoever only counts tokens, as ``check`` does: importing PyTorch takes seconds, counting a
small file's tokens a fraction of one. The ids are those of `load_tokenizer`, token for token. Only what is plain is
done here: a folder that is a tokenizer.json and a simple chat template, and messages of role and content without
control tokens. Everything else goes to transformers' tokenizer, which is then loaded after all.
"""

import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.models.load import load_tokenizer
from finetune.models.source import Found
from finetune.records import Json

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerBase

NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")

SETTINGS = {*NAMED, "backend", "is_local", "local_files_only", "model_max_length", "tokenizer_class", "chat_template"}
"""Settings in a tokenizer_config.json that we know how to read, or know to have no effect on the tokens."""

CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""The classes that use tokenizer.json as it is. Others rebuild parts of it in code (GPT2Tokenizer, Qwen2Tokenizer)."""

MODEL_TYPE = "llama"
"""For some other model types AutoTokenizer ignores the class that the files name."""

MORE_FILES = ("special_tokens_map.json", "added_tokens.json", "additional_chat_templates")
"""Older files and further templates, which transformers reads too."""

MOST_TOKENS = 100_000
"""Above this size, transformers looks for Mistral tokenizers with a wrong rule, and replaces it."""

VARIABLES = {*NAMED, "messages", "tools", "documents", "add_generation_prompt", "enable_thinking"}
"""What a simple template may use. Others call functions that transformers adds or replaces, such as today's date."""

MARKS = ("\U000f0000", "\U000f0001")
"""The characters with which transformers marks control tokens that were typed into a message."""


def counting_tokenizer(found: Found) -> "PreTrainedTokenizerBase | LightTokenizer":
    """The model's tokenizer for `render`, without PyTorch where its files are plain.

    Raises:
        ModelError: the files cannot be read, or the tokenizer has no chat template.

    Example:
        >>> tokenizer = counting_tokenizer(find(DEFAULT))
        >>> len(render(example.messages, tokenizer).input_ids)
        68
    """
    return _plain(found) or load_tokenizer(found)


class LightTokenizer:
    """What `render` needs of transformers' tokenizer, with the same answers.

    `named` holds the special tokens by the names that templates use: ``{"eos_token": "<|im_end|>"}``.

    Example:
        >>> tokenizer.encode("Hello there", add_special_tokens=False, split_special_tokens=True)
        [19556, 665]
    """

    def __init__(self, found: Found, backend: "Tokenizer", source: str, template: "Template", named: dict[str, str]):
        self._found, self._backend, self._template, self._named = found, backend, template, named
        self.chat_template = source
        self.added_tokens_decoder: dict[int, AddedToken] = backend.get_added_tokens_decoder()
        ids = map(backend.token_to_id, named.values())
        self.all_special_ids = [index for index in ids if index is not None]
        self.bos_token_id = backend.token_to_id(named["bos_token"]) if "bos_token" in named else None
        unusual = (*MARKS, *(token.content for token in self.added_tokens_decoder.values()))
        self._unusual = re.compile("|".join(map(re.escape, unusual)))

    @cached_property
    def _whole(self) -> "PreTrainedTokenizerBase":
        """Transformers' own, for the conversations that are not plain."""
        return load_tokenizer(self._found)

    def get_chat_template(self, chat_template: None = None, tools: list[Json] | None = None) -> str:
        """The source of the only chat template."""
        return self.chat_template

    def apply_chat_template(
        self, conversation: Sequence[Json], tools: list[Json] | None = None, **options: Any
    ) -> dict[str, list[int]]:
        """The ids of a rendered conversation, as ``{"input_ids": [...]}``.

        Raises:
            jinja2.TemplateError: the template rejects the conversation.
        """
        if tools or not all(map(self._is_plain, conversation)):
            whole: Any = self._whole
            encoded = whole.apply_chat_template(list(conversation), tools=tools, **options)
            return {"input_ids": list(encoded["input_ids"])}
        shown = {name: value for name, value in options.items() if name != "sanitize_control_tokens"}
        text = self._template.render(messages=list(conversation), tools=None, documents=None, **self._named, **shown)
        return {"input_ids": self.encode(text, add_special_tokens=False)}

    def _is_plain(self, message: Json) -> bool:
        """Text by role and content alone; transformers encodes control tokens in it differently."""
        return message.keys() == {"role", "content"} and all(
            type(value) is str and not self._unusual.search(value) for value in message.values()
        )

    def encode(self, text: str, add_special_tokens: bool = False, split_special_tokens: bool = False) -> list[int]:
        """The ids of a text; with `split_special_tokens`, control tokens in it are ordinary characters."""
        self._backend.encode_special_tokens = split_special_tokens
        return self._backend.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: list[int]) -> str:
        """The text of ids, control tokens included."""
        return self._backend.decode(ids, skip_special_tokens=False)


def _plain(found: Found) -> LightTokenizer | None:
    """The light tokenizer of a folder, or None where transformers would do more than we know."""
    folder = found.folder
    try:
        config, model = (
            json.loads((folder / name).read_text(encoding="utf-8")) for name in ("tokenizer_config.json", "config.json")
        )
        own = folder / "chat_template.jinja"
        source = own.read_text(encoding="utf-8") if own.is_file() else config["chat_template"]
        named = {name: config[name] for name in NAMED if config.get(name) is not None}
        named.setdefault("pad_token", named["eos_token"])  # as in `load_tokenizer`
        usual = (
            config.keys() <= SETTINGS
            and config["tokenizer_class"] in CLASSES
            and model["model_type"] == MODEL_TYPE
            and not any((folder / name).exists() for name in MORE_FILES)
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # absent, or not of the usual form
        return None
    template = _compiled(source) if usual and isinstance(source, str) else None
    backend = _backend(folder / "tokenizer.json", list(named.values())) if template else None
    return LightTokenizer(found, backend, source, template, named) if backend and template else None


def _backend(file: Path, named: list[Any]) -> "Tokenizer | None":
    """The tokenizer in a file, or None if transformers would change it after reading it."""
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_file(str(file))
    except Exception:  # noqa: BLE001 - it raises nothing narrower; `load_tokenizer` says what is wrong
        return None
    special = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
    usual = (
        backend.truncation is backend.padding is None
        and type(backend.model).__name__ == "BPE"
        and backend.get_vocab_size() < MOST_TOKENS
        and all(token in special for token in named)
    )
    return backend if usual else None


def _compiled(source: str) -> "Template | None":
    """The template as transformers compiles it, or None if it uses what transformers adds to Jinja."""
    from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    # of Jinja's own functions only the one that transformers leaves as it is
    environment.globals = {"range": environment.globals["range"], "raise_exception": raise_exception}
    try:
        parsed = environment.parse(source)
        filters = {node.name for node in parsed.find_all(nodes.Filter)}
        if "tojson" in filters or not meta.find_undeclared_variables(parsed) <= VARIABLES:
            return None
        return environment.from_string(source)
    except TemplateSyntaxError:  # wrong, or a tag of an extension
        return None
