"""Small tokenizers of several model families: their real chat templates and control tokens, a tiny vocabulary.

The templates are those TRL ships (it compares models' templates with them), but for Mistral's, which
it lacks: that one writes the documented format, ``<s>[INST] question[/INST] answer</s>``.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase

MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate, beginning with user.') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How Llama-3 and Qwen cut text into words: line breaks stay together."""

CHATML_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


@dataclass(frozen=True)
class Family:
    """`before` is what the template itself writes before an answer; `bos` the token that must stand once."""

    name: str
    template: str
    tokens: tuple[str, ...]
    bos: str | None
    end: str
    before: str = ""
    system: bool = True
    rewrites: bool = False
    eos: str | None = None


FAMILIES = (
    Family("smollm2", SMOLLM2, CHATML_TOKENS, None, "<|im_end|>"),
    Family("qwen2.5", "qwen2_5", CHATML_TOKENS, None, "<|im_end|>"),
    Family("qwen3", "qwen3", (*CHATML_TOKENS, "+<think>", "+</think>"), None, "<|im_end|>", rewrites=True),
    Family(
        "llama3",
        "llama3",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>",
        "<|eot_id|>",
    ),
    Family(
        "llama3.2",
        "llama3_2",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>",
        "<|eot_id|>",
    ),
    Family(
        "gemma", "gemma", ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<end_of_turn>", system=False
    ),
    Family("gemma3", "gemma3", ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<end_of_turn>"),
    Family("mistral", MISTRAL, ("<s>", "</s>", "[INST]", "[/INST]"), "<s>", "</s>", before=" ", system=False),
)

LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
PHI = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>")
DEEPSEEK = tuple(f"<｜{name}｜>" for name in ("User", "Assistant", "begin▁of▁sentence", "end▁of▁sentence"))
INST = ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[AVAILABLE_TOOLS]")
THINK = ("+<think>", "+</think>")

ODD_FAMILIES = (
    Family("chatml", "chatml", CHATML_TOKENS, None, "<|im_end|>"),
    Family("phi3", "phi3", PHI, None, "<|end|>", eos="<|endoftext|>"),
    Family("phi3.5", "phi3_5", PHI, None, "<|end|>", eos="<|endoftext|>"),
    Family("mistral v0.3", "mistral_v0.3", INST, "<s>", "</s>", before=" "),
    Family("deepseek r1", "deepseek_r1_distill", (*DEEPSEEK, *THINK), DEEPSEEK[2], DEEPSEEK[3], eos=DEEPSEEK[3]),
    Family(
        "deepseek r1 before",
        "deepseek_r1_distill_before",
        (*DEEPSEEK, *THINK),
        DEEPSEEK[2],
        DEEPSEEK[3],
        eos=DEEPSEEK[3],
    ),
    Family("llama3.1", "llama3_1", LLAMA, LLAMA[0], LLAMA[3]),
    Family("gemma 2", "gemma2", ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<end_of_turn>"),
    Family("silent", "no_place_for_system", CHATML_TOKENS, None, "<|im_end|>"),
)
"""Those that close a conversation with one more token, move the system text, cut thoughts, or drop what they are given.

Mistral's and what DeepSeek's was before its change lie in templates/, as published; so does one that shows questions
and answers only.
"""


@lru_cache
def tokenizer_of(family: Family) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer; ``+`` marks an added token that is not special."""
    import trl
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(BPE())
    words = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    text = ["user\n\n\nassistant\n\nsystem\nmodel\n the answer is four, of course", "\n\n \n\n", "What is 2+2?"] * 3
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(text, BpeTrainer(vocab_size=500, initial_alphabet=alphabet, special_tokens=[]))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in family.tokens if token[0] != "+"])
    tokenizer.add_tokens([AddedToken(token[1:], special=False) for token in family.tokens if token[0] == "+"])
    eos = family.eos or (family.end if family.end in ("<|im_end|>", "<|eot_id|>", "</s>") else "<eos>")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=family.bos, eos_token=eos, pad_token=eos)
    folders = (Path(__file__).parent / "templates", Path(trl.__file__).parent / "chat_templates")
    files = (folder / f"{family.template}.jinja" for folder in folders)
    fast.chat_template = (
        family.template
        if "{" in family.template
        else next(file for file in files if file.is_file()).read_text(encoding="utf-8")
    )
    return fast
