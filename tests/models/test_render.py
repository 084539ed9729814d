"""What is trained is the assistant's text and the token that ends its turn, in every family of templates."""

import pytest

from finetune.errors import ModelError
from finetune.models import IGNORED, Rendered, prompt_ids, render, thinks
from tests.models.families import FAMILIES, Family, tokenizer_of

TURNS = [
    {"role": "user", "content": "What is 2+2?"},
    {"role": "assistant", "content": "The answer is four."},
    {"role": "user", "content": "And 3+3? Zwölf? 東京?"},
    {"role": "assistant", "content": "Six, of course.\n\nNot zwölf 🙂"},
]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALLED = [
    {"role": "user", "content": "Weather in Oslo?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}],
    },
    {"role": "tool", "content": "4 degrees", "name": "weather"},
    {"role": "assistant", "content": "It is 4 degrees."},
]


def family(name: str) -> Family:
    return next(known for known in FAMILIES if known.name == name)


def trained_text(rendered: Rendered, tokenizer) -> str:
    assert all(label in (IGNORED, token) for label, token in zip(rendered.labels, rendered.input_ids, strict=True))
    return tokenizer.decode([label for label in rendered.labels if label != IGNORED])


each_family = pytest.mark.parametrize("known", FAMILIES, ids=lambda known: known.name)


@each_family
def test_one_turn_trains_the_answer_and_its_end(known: Family) -> None:
    tokenizer = tokenizer_of(known)
    rendered = render(TURNS[:2], tokenizer)
    assert trained_text(rendered, tokenizer) == f"{known.before}The answer is four.{known.end}"
    assert not rendered.last_only
    first = rendered.labels.index(next(label for label in rendered.labels if label != IGNORED))
    assert rendered.input_ids[:first] == prompt_ids(TURNS[:1], tokenizer)


@each_family
def test_several_turns_are_each_trained_where_the_template_keeps_them(known: Family) -> None:
    tokenizer = tokenizer_of(known)
    rendered = render(TURNS, tokenizer)
    answers = [TURNS[3]] if known.rewrites else [TURNS[1], TURNS[3]]
    assert trained_text(rendered, tokenizer) == "".join(f"{known.before}{m['content']}{known.end}" for m in answers)
    assert rendered.last_only == known.rewrites
    last = prompt_ids(TURNS[:3], tokenizer)
    assert rendered.input_ids[: len(last)] == last


@each_family
def test_the_beginning_stands_once(known: Family) -> None:
    tokenizer = tokenizer_of(known)
    ids = render(TURNS, tokenizer).input_ids
    if known.bos:
        assert ids.count(tokenizer.bos_token_id) == 1
        assert ids[0] == tokenizer.bos_token_id


@each_family
def test_control_tokens_typed_by_people_stay_text(known: Family) -> None:
    tokenizer = tokenizer_of(known)
    typed = [{"role": "user", "content": f"a{known.end}b"}, {"role": "assistant", "content": f"c{known.end}d"}]
    rendered = render(typed, tokenizer)
    end = tokenizer.convert_tokens_to_ids(known.end)
    assert [label for label in rendered.labels if label != IGNORED].count(end) == 1
    assert trained_text(rendered, tokenizer) == f"{known.before}c{known.end}d{known.end}"


@each_family
def test_the_spans_cover_all_tokens(known: Family) -> None:
    rendered = render(TURNS, tokenizer_of(known))
    assert [span.start for span in rendered.spans[1:]] == [span.end for span in rendered.spans[:-1]]
    assert (rendered.spans[0].start, rendered.spans[-1].end) == (0, len(rendered.input_ids))
    assert sum(span.end - span.start for span in rendered.spans if span.trained) == rendered.trained


@each_family
def test_weight_zero_is_read_and_not_learned(known: Family) -> None:
    tokenizer = tokenizer_of(known)
    weighed = [TURNS[0], {**TURNS[1], "weight": 0}, TURNS[2], {**TURNS[3], "weight": 1}]
    rendered = render(weighed, tokenizer)
    assert trained_text(rendered, tokenizer) == f"{known.before}{TURNS[3]['content']}{known.end}"
    assert not rendered.last_only
    assert "answer is four" in tokenizer.decode(rendered.input_ids)
    late = render([*TURNS[:2], TURNS[2], {**TURNS[3], "weight": 0}], tokenizer)
    assert late == render(TURNS[:2], tokenizer)


@each_family
def test_a_system_prompt_is_masked_or_refused(known: Family) -> None:
    messages, tokenizer = [{"role": "system", "content": "Be brief."}, *TURNS[:2]], tokenizer_of(known)
    if known.system:
        rendered = render(messages, tokenizer)
        assert trained_text(rendered, tokenizer) == f"The answer is four.{known.end}"
        assert "Be brief." in tokenizer.decode(rendered.input_ids)
    else:
        with pytest.raises(ModelError) as caught:
            render(messages, tokenizer)
        assert caught.value.code == "template_refuses"


@each_family
def test_a_whole_text_is_learned_after_a_bare_opening(known: Family) -> None:
    tokenizer = tokenizer_of(known)
    rendered = render([{"role": "assistant", "content": "The tide came in."}], tokenizer)
    assert trained_text(rendered, tokenizer) == f"The tide came in.{known.end}"
    opening = prompt_ids([], tokenizer)
    assert rendered.input_ids[: len(opening)] == opening
    assert rendered.labels[: len(opening)] == [IGNORED] * len(opening)
    assert not known.bos or opening.count(tokenizer.bos_token_id) == 1


def test_a_greeting_nobody_asked_for_is_read_and_not_learned() -> None:
    tokenizer = tokenizer_of(family("llama3"))
    rendered = render([{"role": "assistant", "content": "Welcome!"}, *TURNS[:2]], tokenizer)
    assert trained_text(rendered, tokenizer) == "The answer is four.<|eot_id|>"
    assert "Welcome!" in tokenizer.decode(rendered.input_ids)


def test_what_follows_the_last_answer_is_dropped() -> None:
    tokenizer = tokenizer_of(family("smollm2"))
    assert render(TURNS[:3], tokenizer) == render(TURNS[:2], tokenizer)


@pytest.mark.parametrize("length", [1, 5, 30])
def test_a_long_example_is_cut_at_the_end(length: int) -> None:
    tokenizer = tokenizer_of(family("smollm2"))
    whole, cut = render(TURNS, tokenizer), render(TURNS, tokenizer, max_length=length)
    assert (cut.input_ids, cut.labels) == (whole.input_ids[:length], whole.labels[:length])
    assert cut.cut == len(whole.input_ids) - length
    assert cut.spans[-1].end == length


def test_qwen3_answers_without_thinking_unless_the_data_thinks() -> None:
    tokenizer = tokenizer_of(family("qwen3"))
    assert tokenizer.decode(prompt_ids(TURNS[:1], tokenizer)).endswith("<think>\n\n</think>\n\n")
    aloud = [TURNS[0], {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\nFour."}]
    assert thinks(aloud)
    assert not thinks(TURNS)
    rendered = render(aloud, tokenizer)
    assert trained_text(rendered, tokenizer) == "<think>\nTwo and two.\n</think>\n\nFour.<|im_end|>"
    asked = prompt_ids(aloud[:1], tokenizer, thinking=True)
    assert rendered.input_ids[: len(asked)] == asked


def test_qwen3_with_several_thinking_turns_learns_the_last() -> None:
    tokenizer = tokenizer_of(family("qwen3"))
    thought = "<think>\nHm.\n</think>\n\n"
    messages = [{**m, "content": thought + m["content"]} if m["role"] == "assistant" else m for m in TURNS]
    rendered = render(messages, tokenizer)
    assert rendered.last_only
    assert trained_text(rendered, tokenizer) == f"{thought}{TURNS[3]['content']}<|im_end|>"
    assert tokenizer.decode(rendered.input_ids).count("Hm.") == 1


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3"])
def test_tools_are_shown_and_calls_are_learned(name: str) -> None:
    tokenizer = tokenizer_of(family(name))
    rendered = render(CALLED, tokenizer, tools=[WEATHER])
    text = tokenizer.decode(rendered.input_ids)
    assert "# Tools" in text
    assert "4 degrees\n</tool_response>" in text
    learned = trained_text(rendered, tokenizer)
    assert learned.endswith("It is 4 degrees.<|im_end|>")
    assert ('{"name": "weather", "arguments": {"city": "Oslo"}}' in learned) != rendered.last_only


@pytest.mark.parametrize("name", ["smollm2", "llama3", "gemma", "gemma3", "mistral"])
def test_a_template_without_tools_says_so(name: str) -> None:
    for messages, tools in ((CALLED, ()), (TURNS, [WEATHER]), ([*CALLED[:1], *CALLED[2:]], ())):
        with pytest.raises(ModelError) as caught:
            render(messages, tokenizer_of(family(name)), tools=tools)
        assert caught.value.code in ("template_without_tools", "template_refuses")


def with_template(template: str):
    import copy

    tokenizer = copy.deepcopy(tokenizer_of(family("smollm2")))
    tokenizer.chat_template = template
    return tokenizer


def test_a_template_without_an_end_is_refused() -> None:
    endless = (
        "{% for m in messages %}<|im_start|>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    with pytest.raises(ModelError) as caught:
        render(TURNS[:2], with_template(endless))
    assert caught.value.code == "no_end_of_turn"


def test_a_template_that_denies_its_own_prompt_is_refused() -> None:
    odd = (
        "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>THINK{% endif %}"
    )
    with pytest.raises(ModelError) as caught:
        render(TURNS[:2], with_template(odd))
    assert caught.value.code == "template_rewrites"


def test_nothing_to_learn_is_an_error() -> None:
    with pytest.raises(ModelError) as caught:
        render([TURNS[0], {**TURNS[1], "weight": 0}], tokenizer_of(family("smollm2")))
    assert caught.value.code == "no_trained_token"


def test_an_answer_that_begins_with_a_line_break_is_trained_as_chat_will_see_it() -> None:
    tokenizer = tokenizer_of(family("smollm2"))
    rendered = render([TURNS[0], {"role": "assistant", "content": "\n\nfour"}], tokenizer)
    assert trained_text(rendered, tokenizer) == "\n\nfour<|im_end|>"
    prompt = prompt_ids(TURNS[:1], tokenizer)
    assert rendered.input_ids[: len(prompt)] == prompt
