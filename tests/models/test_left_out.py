"""Nothing that stands in a row is lost in silence: it is in the rendering, or a problem names it.

The oracle is written out here and knows nothing of `left_out`: texts are looked for in what the tokens say, and what is
trained must be the answers, each with one end of turn.
"""

import copy
import re
from pathlib import Path

import pytest
import trl
from hypothesis import given
from hypothesis import strategies as st

from finetune import models
from finetune.data import Dataset, Example, TokenStats, apply, fixes, token_stats
from finetune.errors import ModelError
from finetune.models import IGNORED, Rendered, left_out, prompt_ids, render, sequences
from finetune.models.template import CLOSE, OPEN, special_ids
from tests.examples import examples
from tests.models.families import FAMILIES, ODD_FAMILIES, Family, tokenizer_of
from tests.models.test_render import CALLED, TURNS, WEATHER, family

EVERY_FAMILY = (*FAMILIES, *ODD_FAMILIES)
REFUSED = {"template_refuses", "template_without_tools", "template_rewrites", "no_end_of_turn"}
NAMES_TEXT = {"template_drops_text", "earlier_thought", "after_last_answer", "last_turn_only", "last_call_only"}
SYSTEM = {"role": "system", "content": "Be brief, and rhyme."}
THOUGHT = "<think>\nTwo and two.\n</think>\n\n"
FOUR = [TURNS[0], {"role": "assistant", "content": f"{THOUGHT}Four."}]

each_family = pytest.mark.parametrize("known", EVERY_FAMILY, ids=lambda known: known.name)


def odd(name: str) -> Family:
    return next(known for known in ODD_FAMILIES if known.name == name)


def with_template(template: str):
    tokenizer = copy.deepcopy(tokenizer_of(family("smollm2")))
    tokenizer.chat_template = template
    return tokenizer


def dataset(*rows: Example) -> Dataset:
    return Dataset("rows", Path("rows.jsonl"), "chat_jsonl", list(rows), [], [])


def stats_of(messages: list[dict], tokenizer, tools: tuple = (), **more) -> TokenStats:
    return token_stats(dataset(Example(tuple(messages), 3, tools)), tokenizer, **more)


def codes(stats: TokenStats) -> set[str]:
    return {problem.code for problem in stats.problems}


def said(one: Rendered, tokenizer) -> str:
    return tokenizer.decode([label for label in one.labels if label != IGNORED])


def squeezed(text: str) -> str:
    return "".join(text.split())


# What is trained


def assert_trained(messages: list[dict], tokenizer, tools: tuple, every_answer: bool) -> None:
    """Each sequence teaches answers as they were written, and ends each with the end of turn, once."""
    end = tokenizer.decode([models.end_of_turn(tokenizer)])
    learned = [m["content"] for i, m in enumerate(messages) if i and m["role"] == "assistant" and m.get("weight") != 0]
    made = sequences(messages, tokenizer, tools, every_answer)
    if len(made) > 1:
        assert len(made) == len(learned)
    elif made[0].last_only:
        learned = learned[-1:]
    parts = [learned] if len(made) == 1 else [[answer] for answer in learned]
    for one, answers in zip(made, parts, strict=True):
        opened = tokenizer.decode(one.input_ids[: one.spans[0].end]).rstrip().endswith(OPEN)
        expected = "".join(_as_learned(answer, opened, one.empty_thought) + end for answer in answers)
        assert squeezed(said(one, tokenizer)) == squeezed(expected)


def _as_learned(answer: str, opened: bool, empty_thought: bool) -> str:
    """Of a thought that the prompt has begun, the rest is learned; an answer without a thought may get an empty one."""
    if empty_thought and CLOSE not in answer:
        answer = OPEN + CLOSE + answer
    return answer.split(OPEN, 1)[1] if opened and OPEN in answer else answer


WORD = st.sampled_from(["apple", "Zwölf", "東京", "x\n\ny", " 4", "a.", '"q"', "{}", "<|im_end|>", "</s>", "é́", "tool"])
TEXT = st.lists(WORD | st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=5), min_size=1)
SAID = TEXT.map(" ".join).filter(lambda text: bool(text.strip()) and "think>" not in text and "\0" not in text)
THOUGHTS = st.just("") | SAID.map(lambda text: f"<think>\n{text}\n</think>\n\n")


@st.composite
def conversations(draw: st.DrawFn) -> list[dict]:
    """Questions and answers, some with a system prompt, thoughts, and answers that are only read."""
    messages = [{"role": "system", "content": draw(SAID)}] if draw(st.booleans()) else []
    thinking = draw(st.booleans())
    for _ in range(draw(st.integers(1, 3))):
        thought = draw(THOUGHTS) if thinking else ""
        answer = {"role": "assistant", "content": thought + draw(SAID)}
        messages += [{"role": "user", "content": draw(SAID)}, answer | draw(st.sampled_from([{}, {}, {"weight": 0}]))]
    messages[-1].pop("weight", None)
    return messages


@each_family
@examples(100)
@given(messages=conversations(), every_answer=st.booleans())
def test_every_text_is_rendered_or_named_and_the_answers_are_what_is_trained(
    known: Family, messages: list[dict], every_answer: bool
) -> None:
    tokenizer = tokenizer_of(known)
    stats = stats_of(messages, tokenizer, every_answer=every_answer)
    if codes(stats) & REFUSED:
        assert stats.will_train.rows == 0
        return
    assert stats.will_train.rows == 1
    made = sequences(messages, tokenizer, (), every_answer)
    shown = squeezed("".join(tokenizer.decode(one.input_ids) for one in made))
    pieces = [piece for message in messages for piece in re.split("</?think>", message["content"])]
    if any(squeezed(piece) not in shown for piece in pieces):
        assert codes(stats) & NAMES_TEXT
    assert_trained(messages, tokenizer, (), every_answer)


SHIPPED = sorted(
    file for file in (Path(trl.__file__).parent / "chat_templates").glob("*.jinja") if "_training" not in file.stem
)
TOKENS = re.compile(
    r"<[|｜][^<>{}'\" ]+>|<[^<>{}'\" ]+[|｜]>|\[/?[A-Z_]{4,}\]|"
    r"<(?:bos|eos|start_of_turn|end_of_turn|end_of_utterance|s|/s|/?think)>"
)
ROWS = {
    "system": [SYSTEM, *TURNS],
    "turns": TURNS,
    "thoughts": [*FOUR, TURNS[2], {**TURNS[3], "content": THOUGHT + "6"}],
    "one thought": [SYSTEM, *FOUR],
    "read": [TURNS[0], {**TURNS[1], "weight": 0}, *TURNS[2:]],
    "calls": CALLED,
    "text beside a call": [CALLED[0], {**CALLED[1], "content": "Let me look that up."}, *CALLED[2:]],
}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
@pytest.mark.parametrize("messages", ROWS.values(), ids=ROWS)
def test_of_every_template_at_hand_it_holds_too(file: Path, messages: list[dict]) -> None:
    """TRL ships the templates of dozens of models. Whatever they do, it is trained right, or said."""
    source = file.read_text(encoding="utf-8")
    tokens = tuple(dict.fromkeys([*TOKENS.findall(source), "<eos>", "<bos>"]))
    tokenizer = tokenizer_of(Family(file.stem, file.stem, tokens, "<bos>", "<eos>", eos="<eos>"))
    tools = (WEATHER,) if "tool_calls" in str(messages) else ()
    for every_answer in (False, True):
        stats = stats_of(messages, tokenizer, tools, every_answer=every_answer)
        if codes(stats) & REFUSED:
            continue
        made = sequences(messages, tokenizer, tools, every_answer)
        shown = squeezed("".join(tokenizer.decode(one.input_ids) for one in made))
        texts = [piece for message in messages for piece in re.split("</?think>", message["content"])]
        texts += ["weather", "Oslo"] if tools else []
        if any(squeezed(text) not in shown for text in texts):
            assert codes(stats) & NAMES_TEXT
        learned = [m for m in messages if m["role"] == "assistant" and m.get("weight") != 0]
        for one in made:
            trained = [span for span in one.spans if span.trained]
            assert len(trained) == (1 if len(made) > 1 or one.last_only else len(learned))
            # a call may end with a token of its own (GLM's <|observation|>)
            assert all(one.input_ids[span.end - 1] in special_ids(tokenizer) for span in trained)
            if "tool_calls" not in learned[-1] and "template_drops_text" not in codes(stats):
                assert squeezed(learned[-1]["content"].split(CLOSE)[-1]) in squeezed(said(made[-1], tokenizer))


# A token at the very end (Phi-3)

ENDED = "{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
ASKING = "{% if add_generation_prompt %}<|im_start|>{% else %}LAST{% endif %}"
LAST = ["{{ eos_token }}", "\n<|endoftext|>", "<|endoftext|><|endoftext|>\n", "<|endoftext|>THE END"]


@pytest.mark.parametrize("last", [*LAST, "phi3", "phi3_5"])
def test_a_token_at_the_very_end_costs_no_answer_and_is_not_learned(last: str) -> None:
    own = last.startswith("phi")
    ended = ENDED + ASKING.replace("LAST", last)
    tokenizer = tokenizer_of(odd(last.replace("_", "."))) if own else with_template(ended)
    rendered = render(TURNS, tokenizer)
    end = "<|end|>" if own else "<|im_end|>"
    assert said(rendered, tokenizer) == f"{TURNS[1]['content']}{end}{TURNS[3]['content']}{end}"
    assert not rendered.last_only
    prompt = prompt_ids(TURNS[:3], tokenizer)
    assert rendered.input_ids[: len(prompt)] == prompt
    assert models.end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids(end)
    assert codes(stats_of(TURNS, tokenizer)) == set()


def test_a_text_of_phi_3_begins_as_its_turns_do() -> None:
    tokenizer = tokenizer_of(odd("phi3"))
    rendered = render([{"role": "assistant", "content": "The tide came in."}], tokenizer)
    assert tokenizer.decode(rendered.input_ids) == "<|assistant|>\nThe tide came in.<|end|>"


# Rewritten history (Qwen3)

REWRITERS = ["qwen3", "deepseek r1", "deepseek r1 before", "mistral v0.3"]


@pytest.mark.parametrize("name", REWRITERS)
def test_each_answer_is_learned_as_chat_will_ask_for_it(name: str) -> None:
    tokenizer = tokenizer_of(next(known for known in EVERY_FAMILY if known.name == name))
    thoughts = [{**m, "content": THOUGHT + m["content"]} if m["role"] == "assistant" else m for m in TURNS]
    messages = [SYSTEM, *TURNS] if name == "mistral v0.3" else thoughts
    assert "last_turn_only" in codes(stats_of(messages, tokenizer))
    made = sequences(messages, tokenizer, every_answer=True)
    assert len(made) == 2
    for one, turn in zip(made, (i for i, m in enumerate(messages) if m["role"] == "assistant"), strict=True):
        prompt = prompt_ids(messages[:turn], tokenizer, thinking=models.thinks(messages))
        assert one.input_ids[: len(prompt)] == prompt
        assert set(one.labels[: len(prompt)]) == {IGNORED}
    assert codes(stats_of(messages, tokenizer, every_answer=True)) == set()
    assert_trained(messages, tokenizer, (), every_answer=True)


@pytest.mark.parametrize("name", ["smollm2", "llama3", "gemma3", "phi3"])
def test_a_template_that_keeps_history_makes_one_sequence_either_way(name: str) -> None:
    tokenizer = tokenizer_of(next(known for known in EVERY_FAMILY if known.name == name))
    assert sequences(TURNS, tokenizer, every_answer=True) == [render(TURNS, tokenizer)]


# Thoughts

ANSWERS = [f"{THOUGHT}Four.", "<think>Two and two.</think>Four.", "<think>\n\nTwo\n\nand two.\n\n</think>\nFour."]


@pytest.mark.parametrize("name", ["deepseek r1", "deepseek r1 before", "qwen3", "phi3", "chatml", "llama3.1"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_thought_is_learned_whatever_the_template_does_with_it(name: str, answer: str) -> None:
    tokenizer = tokenizer_of(next(known for known in EVERY_FAMILY if known.name == name))
    messages = [TURNS[0], {"role": "assistant", "content": answer}]
    assert codes(stats_of(messages, tokenizer)) == set()
    assert_trained(messages, tokenizer, (), every_answer=False)
    prompt = prompt_ids(messages[:1], tokenizer, thinking=True)
    assert render(messages, tokenizer).input_ids[: len(prompt)] == prompt


def test_tags_of_thoughts_are_the_tokens_they_are() -> None:
    tokenizer = tokenizer_of(odd("deepseek r1 before"))
    rendered = render([TURNS[0], {"role": "assistant", "content": ANSWERS[0]}], tokenizer)
    for tag in (OPEN, CLOSE):
        assert rendered.labels.count(tokenizer.convert_tokens_to_ids(tag)) == 1


@pytest.mark.parametrize("answer", ["Four.", "  Four.\n", "<b>4</b>"])
def test_where_a_thought_is_open_an_answer_without_one_learns_to_close_it(answer: str) -> None:
    tokenizer = tokenizer_of(odd("deepseek r1"))
    messages = [TURNS[0], {"role": "assistant", "content": answer}]
    rendered = render(messages, tokenizer)
    assert said(rendered, tokenizer) == f"\n</think>\n\n{answer}<｜end▁of▁sentence｜>"
    assert rendered.empty_thought
    assert codes(stats_of(messages, tokenizer)) == {"empty_thought"}


def test_thoughts_of_answers_that_are_only_read_are_named() -> None:
    messages = [TURNS[0], {**TURNS[1], "content": ANSWERS[0], "weight": 0}, *TURNS[2:]]
    assert codes(stats_of(messages, tokenizer_of(family("qwen3")))) == {"earlier_thought", "empty_thought"}
    assert codes(stats_of(messages, tokenizer_of(odd("chatml")))) == set()


# Text that is left out

SILENT = {
    "no role for it": "{% if m['role'] != 'system' %}CONTENT{% endif %}",
    "the first only": "{% if not (loop.first and m['role'] == 'system') %}CONTENT{% endif %}",
    "its length only": "{% if m['role'] == 'system' %}{{ m['content']|length }}{% else %}CONTENT{% endif %}",
    "its first letter": "{% if m['role'] == 'system' %}{{ m['content'][:1] }}{% else %}CONTENT{% endif %}",
}
CONTENT = "{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}"
WRAP = "{% for m in messages %}BODY{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"


@pytest.mark.parametrize("body", SILENT.values(), ids=SILENT)
def test_a_system_prompt_that_is_left_out_is_named_and_can_be_folded(body: str) -> None:
    tokenizer = with_template(WRAP.replace("BODY", body.replace("CONTENT", CONTENT)))
    quoting = [SYSTEM, {"role": "user", "content": f"Why “{SYSTEM['content']}”?"}, TURNS[1]]
    for messages in ([SYSTEM, *TURNS], quoting):
        rows = dataset(Example(tuple(messages), 3), Example(tuple(TURNS), 4))
        stats = token_stats(rows, tokenizer)
        assert [(p.code, p.severity, p.count, p.lines) for p in stats.problems] == [
            ("template_drops_text", "warning", 1, (3,))
        ]
        quoted = f"leaves out the system prompt. The first is in line 3: “{SYSTEM['content']}”"
        assert quoted in stats.problems[0].message
        assert stats.folds
        assert [(fix.code, fix.rows_changed) for fix in fixes(rows, fold=True)] == [("fold_system_prompt", 1)]
        fixed = apply(rows, ["fold_system_prompt"])
        assert token_stats(fixed, tokenizer).problems == ()
        assert fixed.examples[0].messages[0]["content"] == f"{SYSTEM['content']}\n\n{messages[1]['content']}"
        assert fixed.examples[1] == rows.examples[1]


@pytest.mark.parametrize("name", ["gemma", "gemma 2", "mistral"])
def test_a_system_prompt_that_is_refused_can_be_folded(name: str) -> None:
    tokenizer = tokenizer_of(next(known for known in EVERY_FAMILY if known.name == name))
    rows = dataset(Example((SYSTEM, *TURNS), 1))
    stats = token_stats(rows, tokenizer)
    assert codes(stats) == {"template_refuses"}
    assert stats.folds
    assert "into the first user turn" in stats.problems[0].hint
    assert stats.will_train.rows == 0
    fixed = token_stats(apply(rows, ["fold_system_prompt"]), tokenizer)
    assert (fixed.problems, fixed.folds, fixed.will_train.rows) == ((), False, 1)


def test_folding_is_not_offered_where_it_does_not_help() -> None:
    wrong_order = [SYSTEM, TURNS[0], TURNS[0], TURNS[1]]
    assert not stats_of(wrong_order, tokenizer_of(family("gemma"))).folds
    assert not stats_of(TURNS, tokenizer_of(family("gemma"))).folds
    text = [SYSTEM, {"role": "assistant", "content": "Once."}]
    assert apply(dataset(Example(tuple(text), 1)), ["fold_system_prompt"]).examples[0].messages == tuple(text)


@pytest.mark.parametrize(
    ("hidden", "what"),
    [
        ("{% if m['role'] != 'user' or loop.first %}CONTENT{% endif %}", "text of a question"),
        ("{% if m['role'] == 'user' %}{{ m['content'][:9] }}{% else %}CONTENT{% endif %}", "text of a question"),
        ("{% if m['weight'] is defined or not loop.first or loop.last %}CONTENT{% endif %}", "text of a question"),
        ("{% if not (m['role'] == 'assistant' and not loop.last) %}CONTENT{% endif %}", "text of an answer"),
    ],
)
def test_any_other_text_that_is_left_out_is_named(hidden: str, what: str) -> None:
    tokenizer = with_template(WRAP.replace("BODY", hidden.replace("CONTENT", CONTENT)))
    messages = [TURNS[0], {**TURNS[1], "weight": 0}, *TURNS[2:]]
    stats = stats_of(messages, tokenizer)
    assert codes(stats) == {"template_drops_text"}
    assert f"leaves out {what}." in stats.problems[0].message
    assert not stats.folds


@pytest.mark.parametrize("name", ["llama3.1", "llama3.2"])
def test_text_beside_a_tool_call_that_is_left_out_is_named(name: str) -> None:
    tokenizer = tokenizer_of(next(known for known in EVERY_FAMILY if known.name == name))
    stats = stats_of(ROWS["text beside a call"], tokenizer, (WEATHER,))
    assert "template_drops_text" in codes(stats)
    assert "“Let me look that up.”" in stats.problems[0].message
    assert "template_drops_text" not in codes(stats_of(CALLED, tokenizer, (WEATHER,)))


def test_a_template_that_takes_tools_and_shows_none_is_named() -> None:
    stats = stats_of(CALLED, tokenizer_of(odd("silent")), (WEATHER,))
    assert codes(stats) == {"template_drops_text"}
    for what in ("a part of a tool call", "the description of a tool", "a tool's result"):
        assert what in stats.problems[0].message


@pytest.mark.parametrize("name", ["qwen3", "qwen2.5", "mistral v0.3"])
def test_a_tool_call_is_trained_or_named(name: str) -> None:
    tokenizer = tokenizer_of(next(known for known in EVERY_FAMILY if known.name == name))
    stats = stats_of(CALLED, tokenizer, (WEATHER,))
    if name == "mistral v0.3":  # its calls need an id of nine characters
        assert codes(stats) == {"template_refuses"}
        return
    assert codes(stats) == ({"last_call_only"} if name == "qwen3" else set())
    assert all("the tool calls before it are not" in problem.message for problem in stats.problems)
    made = sequences(CALLED, tokenizer, (WEATHER,), every_answer=True)
    learned = "".join(said(one, tokenizer) for one in made)
    assert learned.count('{"name": "weather", "arguments": {"city": "Oslo"}}') == 1
    assert learned.count("It is 4 degrees.") == 1
    assert codes(stats_of(CALLED, tokenizer, (WEATHER,), every_answer=True)) == set()


def test_what_follows_the_last_answer_to_learn_is_named() -> None:
    messages = [*TURNS[:3], {**TURNS[3], "weight": 0}]
    assert codes(stats_of(messages, tokenizer_of(odd("chatml")))) == {"after_last_answer"}


# The comparison itself


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two  words\n", "<|x|>two words"),
        ("a\nb", "[a\n\n b ]"),
        ('say "hi"\n', '{"content": "say \\"hi\\""}'),
        ("Zwölf \\ 東京", '{"x": "Zw\\u00f6lf \\\\ \\u6771\\u4eac"}'),
        ("  ", ""),
    ],
)
def test_spacing_and_escapes_do_not_count(text: str, shown: str) -> None:
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]
    assert left_out(messages, f"{shown} yes", tokenizer_of(family("smollm2"))) == []


def test_each_text_needs_a_place_of_its_own() -> None:
    tokenizer = tokenizer_of(family("smollm2"))
    messages = [{"role": "system", "content": "Hi"}, {"role": "user", "content": "Hi you"}, TURNS[1]]
    shown = f"Hi you {TURNS[1]['content']}"
    assert [(one.what, one.text) for one in left_out(messages, shown, tokenizer)] == [("system", "Hi")]
    assert left_out(messages, f"Hi {shown}", tokenizer) == []


def test_a_tokenizer_that_changes_letters_loses_no_text() -> None:
    from tokenizers import normalizers

    tokenizer = copy.deepcopy(tokenizer_of(family("smollm2")))
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    messages = [{"role": "user", "content": "Ｗhat ﬁts?"}, {"role": "assistant", "content": "ALL ① of it"}]
    assert codes(stats_of(messages, tokenizer)) == set()


def test_refusals_keep_their_words() -> None:
    with pytest.raises(ModelError) as caught:
        sequences(CALLED, tokenizer_of(family("smollm2")))
    assert caught.value.code == "template_without_tools"
