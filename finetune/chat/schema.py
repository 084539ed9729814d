"""Answers that keep to a JSON Schema: before each token, those that would break it are ruled out.

Which tokens may follow is computed by llguidance; here its masks are laid over the model's scores.
"""

import weakref
from typing import TYPE_CHECKING, Any

from finetune.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

_vocabularies: "weakref.WeakKeyDictionary[Any, dict[int, Any]]" = weakref.WeakKeyDictionary()
"""llguidance's view of each tokenizer, by the size of the model's vocabulary; making one takes about a second."""


class Keeper:
    """What may follow in one answer.

    Raises:
        ConfigError: the schema makes no sense, or has parts that cannot be kept to.

    Example:
        >>> keeper = Keeper('{"type": "object"}', tokenizer, ends={2}, vocabulary=49152)
        >>> scores = keeper.masked(scores)
        >>> keeper.add(token)
    """

    def __init__(self, schema: str, tokenizer: "PreTrainedTokenizerBase", ends: set[int], vocabulary: int):
        from llguidance import LLMatcher

        made = _vocabularies.setdefault(tokenizer, {})
        if vocabulary not in made:
            made[vocabulary] = _view(tokenizer, ends, vocabulary)
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": r"[ \n]?"})
        except ValueError as error:
            raise _refused(str(error)) from error
        self._matcher = LLMatcher(made[vocabulary], grammar, log_level=0)
        self._size = vocabulary
        self._see()

    def masked(self, scores: "torch.Tensor") -> "torch.Tensor":
        """The scores (1, vocabulary), -inf for tokens that would break the schema."""
        from llguidance import torch as masks

        mask = masks.allocate_token_bitmask(1, self._size)
        masks.fill_next_token_bitmask(self._matcher, mask)
        self._see()
        kept = scores.cpu()
        masks.apply_token_bitmask_inplace(kept, mask)
        return kept

    def add(self, token: int) -> None:
        """Go on behind this token."""
        self._matcher.consume_token(token)
        self._see()

    def _see(self) -> None:
        if self._matcher.is_error():
            raise _refused(self._matcher.get_error())


def _view(tokenizer: "PreTrainedTokenizerBase", ends: set[int], vocabulary: int) -> Any:
    from llguidance import hf

    try:
        return hf.from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=sorted(ends))  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigError(
            f"This model's tokenizer cannot keep to a JSON Schema ({str(error)[:100]}).", where="schema"
        ) from error


def _refused(why: str) -> ConfigError:
    first = (why.strip().splitlines() or ["it is invalid"])[0][:200]
    return ConfigError(f"The JSON Schema cannot be kept to: {first}.", where="schema")
