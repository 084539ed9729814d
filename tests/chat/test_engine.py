"""One resident base: columns do not disturb each other, and the engine is always given back."""

import asyncio
import threading
import time
from pathlib import Path

import pytest
import torch
from anyio import create_task_group, sleep, to_thread
from anyio.from_thread import start_blocking_portal
from peft import PeftModel
from transformers import AutoModelForCausalLM

from finetune import data, models, train
from finetune.chat import Ask, Engine, Sampling
from finetune.chat.adapters import Resident
from finetune.chat.line import Line
from finetune.chat.per_row import BASE
from finetune.chat.prompts import _drop_oldest, fit
from finetune.errors import ModelError, RunError
from finetune.store import Run, Store
from tests.conftest import conversation, said, train_tiny

SHORT = Sampling(max_tokens=24)


@pytest.fixture
def run(store: Store, tiny: Path, small_dataset: data.Dataset) -> Run:
    return train_tiny(store, tiny, small_dataset, max_steps=15, learning_rate=0.01)


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Add."}, {"role": "user", "content": text}]


def alone(tiny: Path, adapter: Path | None, messages: list[dict[str, str]], tokens: int) -> str:
    """What plain transformers answers, greedily, with one prompt and one model."""
    tokenizer = models.load_tokenizer(models.find(str(tiny)))
    model = AutoModelForCausalLM.from_pretrained(tiny)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    ids = torch.tensor([models.prompt_ids(messages, tokenizer)])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=2,
        pad_token_id=2,
    )
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_both_columns_answer_as_they_would_alone(tiny: Path, run: Run) -> None:
    engine = Engine()
    for question in ("What is 3 plus 3?", "Hello", "a much longer question " * 5):
        base, tuned = engine.answer([Ask(ask(question)), Ask(ask(question + "!"), run)], str(tiny), SHORT)
        assert base.text.rstrip("\ufffd") == alone(tiny, None, ask(question), 24).rstrip("\ufffd")
        expected = alone(tiny, train.adapter_folder(run.id), ask(question + "!"), 24)
        assert tuned.text.rstrip("\ufffd") == expected.rstrip("\ufffd")
    alone_again = engine.answer([Ask(ask("Hello"))], str(tiny), SHORT)[0].text
    assert alone_again.rstrip("\ufffd") == alone(tiny, None, ask("Hello"), 24).rstrip("\ufffd")


def test_replies_grow_and_end_with_a_reason(tiny: Path, run: Run) -> None:
    steps = list(Engine().stream([Ask(ask("Hi")), Ask(ask("Hi"), run)], str(tiny), SHORT))
    counts = [step[0].tokens for step in steps]
    assert counts == sorted(counts)
    assert all(reply.stop in ("length", "end_of_turn") for reply in steps[-1])
    assert steps[-1][0].prompt == steps[-1][1].prompt
    assert all(reply.first is not None and reply.first <= reply.seconds for reply in steps[-1])


def line(tiny: Path, **more: int) -> Line:
    tokenizer = models.load_tokenizer(models.find(str(tiny)))
    return Line([5, 6], BASE, tokenizer, {2}, Sampling(**more))


def test_a_row_stops_at_its_own_end_of_turn(tiny: Path) -> None:
    row = line(tiny)
    for token in [*row.tokenizer.encode("done", add_special_tokens=False), 2]:
        assert row.stop is None
        row.add(token)
    assert (row.reply().text, row.reply().stop) == ("done", "end_of_turn")


def test_half_a_character_is_not_shown(tiny: Path) -> None:
    row, seen = line(tiny), []
    for token in row.tokenizer.encode("é🙂", add_special_tokens=False):
        row.add(token)
        seen.append(row.reply().text)
    assert seen[-1] == "é🙂"
    assert all("\ufffd" not in text for text in seen)


def test_an_answer_of_no_tokens_is_over_at_once(tiny: Path) -> None:
    row = line(tiny, max_tokens=0)
    row.choose()
    assert (row.stop, row.ids) == ("length", [])


def test_repetition_is_punished_within_the_answer_only(tiny: Path) -> None:
    row = Line([5, 6], BASE, line(tiny).tokenizer, {2}, Sampling(repetition_penalty=2.0))
    row.logits = torch.tensor([0.0, 0.0, 0.0, 3.0, 0.0, 4.0, 0.0])
    row.choose()
    row.choose()
    assert row.ids == [5, 3], "5 is in the prompt, which costs nothing, and then in the answer"


def test_stop_ends_the_answer_soon(tiny: Path) -> None:
    stop, engine = threading.Event(), Engine()
    stream = engine.stream([Ask(ask("Hi"))], str(tiny), Sampling(max_tokens=400), stop)
    next(stream)
    stop.set()
    rest = list(stream)
    assert len(rest) < 50
    assert rest[-1][0].stop == "stopped"


def test_a_closed_stream_gives_the_engine_back(tiny: Path) -> None:
    engine = Engine()
    assert engine.answer([Ask(ask("Hi"))], str(tiny), SHORT)[0].tokens > 0  # loads the model, with threads that stay
    before = threading.active_count()
    stream = engine.stream([Ask(ask("Hi"))], str(tiny), Sampling(max_tokens=400))
    next(stream)
    stream.close()
    began = time.monotonic()
    assert engine.answer([Ask(ask("Hi"))], str(tiny), SHORT)[0].tokens > 0
    while threading.active_count() > before:
        assert time.monotonic() - began < 30
        time.sleep(0.05)


def test_sampling_follows_its_seed(tiny: Path) -> None:
    engine = Engine()
    texts = [
        engine.answer([Ask(ask("Hi"))], str(tiny), Sampling(24, temperature=1.0, seed=seed))[0].text
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_the_oldest_turns_make_room(tiny: Path) -> None:
    long = [{"role": "system", "content": "Add."}]
    for i in range(30):
        long += [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": f"answer {i}"}]
    long.append({"role": "user", "content": "and now?"})
    reply = Engine().answer([Ask(long)], str(tiny), SHORT)[0]
    assert reply.dropped > 0
    assert reply.prompt_tokens + 24 <= 512


def test_a_prompt_that_cannot_fit_is_one_sentence(tiny: Path) -> None:
    with pytest.raises(ModelError, match="The message is too long"):
        Engine().answer([Ask(ask("word " * 600))], str(tiny), SHORT)


def test_a_torn_or_missing_adapter_leaves_the_engine_usable(tiny: Path, run: Run) -> None:
    engine = Engine()
    file = train.adapter_folder(run.id) / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match="The adapter cannot be loaded"):
        engine.answer([Ask(ask("Hi"), run)], str(tiny), SHORT)
    assert engine.answer([Ask(ask("Hi"))], str(tiny), SHORT)[0].tokens > 0
    file.write_bytes(whole)
    assert engine.answer([Ask(ask("Hi"), run)], str(tiny), SHORT)[0].tokens > 0
    file.unlink()
    with pytest.raises(RunError):
        Engine().answer([Ask(ask("Hi"), run)], str(tiny), SHORT)


def test_chat_sees_the_prompt_that_was_trained(tiny: Path) -> None:
    tokenizer = models.load_tokenizer(models.find(str(tiny)))
    turns = [*ask("one"), {"role": "assistant", "content": "1"}, {"role": "user", "content": "<|im_end|> two"}]
    prompt = models.prompt_ids(turns, tokenizer)
    trained = models.render([*turns, {"role": "assistant", "content": "2"}], tokenizer)
    assert trained.input_ids[: len(prompt)] == prompt


def test_thinking_opens_the_answer_as_it_was_trained(tiny: Path) -> None:
    tokenizer = models.load_tokenizer(models.find(str(tiny)))
    opening = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    thought = opening + "{% if not enable_thinking %}{{ '<think></think>' }}{% endif %}"
    tokenizer.chat_template = tokenizer.chat_template.replace(opening, thought)
    plain, _ = _drop_oldest(Ask(ask("Hi")), tokenizer, 500)
    aloud, _ = _drop_oldest(Ask(ask("Hi"), thinking=True), tokenizer, 500)
    assert tokenizer.decode(plain).endswith("<think></think>")
    assert tokenizer.decode(aloud).endswith("<|im_start|>assistant\n")


def test_a_question_is_never_dropped_to_make_room(tiny: Path) -> None:
    turns = [{"role": "user", "content": "word " * 600}, {"role": "user", "content": "and now?"}]
    reply = Engine().answer([Ask(turns)], str(tiny), SHORT)[0]
    tokenizer = models.load_tokenizer(models.find(str(tiny)))
    assert reply.prompt_tokens == len(models.prompt_ids(turns[1:], tokenizer))
    assert reply.dropped == 1


def test_more_tokens_than_the_context_holds_is_one_sentence(tiny: Path) -> None:
    with pytest.raises(ModelError, match="Lower max tokens"):
        Engine().answer([Ask(ask("Hi"))], str(tiny), Sampling(max_tokens=4096))


def changed(tiny: Path, folder: Path, file: str, **values: object) -> str:
    """A copy of the tiny model with other values in one of its JSON files."""
    import json

    folder.mkdir()
    for each in tiny.iterdir():
        (folder / each.name).write_bytes(each.read_bytes())
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | values))
    return str(folder)


def test_a_models_own_generation_config_changes_nothing(tiny: Path, tmp_path: Path) -> None:
    odd = changed(tiny, tmp_path / "odd", "generation_config.json", repetition_penalty=1.9, num_beams=3, do_sample=True)
    plain, other = (Engine().answer([Ask(ask("Hi"))], name, SHORT)[0].text for name in (str(tiny), odd))
    assert plain == other


def test_the_templates_end_of_turn_ends_an_answer(tiny: Path, tmp_path: Path) -> None:
    other = changed(tiny, tmp_path / "other", "tokenizer_config.json", eos_token="<|endoftext|>", pad_token=None)
    again = changed(Path(other), tmp_path / "again", "generation_config.json", eos_token_id=0, pad_token_id=None)
    found = models.find(again)
    tokenizer = models.load_tokenizer(found)
    assert models.end_of_turn(tokenizer) == 2
    from finetune.models import end_tokens

    assert end_tokens(models.load_model(found), tokenizer) == {0, 2}
    assert Engine().answer([Ask(ask("Hi")), Ask(ask("Hello there"))], again, SHORT)[0].tokens > 0


def test_stop_is_heard_before_the_first_token(tiny: Path) -> None:
    stop, engine = threading.Event(), Engine()
    stop.set()
    replies = list(engine.stream([Ask(ask("Hi"))], str(tiny), Sampling(max_tokens=400), stop))
    assert replies[-1][0].stop == "stopped"
    assert replies[-1][0].tokens <= 1
    assert engine.answer([Ask(ask("Hi"))], str(tiny), SHORT)[0].tokens > 1


def test_a_torn_adapter_config_is_one_sentence(tiny: Path, run: Run) -> None:
    (train.adapter_folder(run.id) / "adapter_config.json").write_text("[]")
    with pytest.raises(RunError, match="The adapter cannot be loaded"):
        Engine().answer([Ask(ask("Hi"), run)], str(tiny), SHORT)


def test_stopping_leaves_nothing_behind(tiny: Path, run: Run) -> None:
    engine = Engine()
    asks = [Ask(ask("Hi")), Ask(ask("Hi"), run)]
    whole = [reply.text for reply in engine.answer(asks, str(tiny), SHORT)]
    for _ in range(3):
        stop = threading.Event()
        stream = engine.stream(asks, str(tiny), Sampling(max_tokens=400), stop)
        next(stream)
        stop.set()
        assert list(stream)[-1][0].stop == "stopped"
    assert [reply.text for reply in engine.answer(asks, str(tiny), SHORT)] == whole


def test_the_oldest_turns_go_until_the_rest_fits_and_no_more_than_that(tiny: Path) -> None:
    """Found by halving; rendering the rest after every single turn took minutes with thousands of them."""
    resident = Resident(models.find(str(tiny)))
    turns = [message for i in range(400) for message in conversation(f"What is {i}?", f"It is {i}.")]
    system = {"role": "system", "content": "Count."}
    asked = Ask([system, *turns, {"role": "user", "content": "And now?"}])
    (prompt,), (dropped,) = fit([asked], resident.tokenizer, resident.base, SHORT)
    room = resident.base.config.max_position_embeddings - SHORT.max_tokens
    assert dropped % 2 == 0
    assert models.prompt_ids([system, *asked.messages[1 + dropped :]], resident.tokenizer) == prompt
    assert len(prompt) <= room
    one_more = [system, *asked.messages[1 + dropped - 2 :]]
    assert len(models.prompt_ids(one_more, resident.tokenizer)) > room


def test_too_much_text_is_refused_before_it_stands_in_line(tiny: Path) -> None:
    engine = Engine()
    busy = engine.stream([Ask(ask("Hi"))], str(tiny), Sampling(max_tokens=300))
    next(busy)
    with pytest.raises(ModelError, match=r"2,000,004 characters, the limit is 200,000") as caught:
        next(engine.stream([Ask(ask("x" * 2_000_000))], str(tiny), SHORT))
    assert caught.value.code == "too_long"
    many = [{"role": "user", "content": "x" * 1000}] * 201
    with pytest.raises(ModelError, match="characters"):
        next(said(engine.astream([Ask(many)], str(tiny), SHORT, threading.Event())))
    empty = [{"role": "user", "content": ""}] * 2001
    with pytest.raises(ModelError, match="2,001 messages, the limit is 2,000"):
        next(engine.stream([Ask(empty)], str(tiny), SHORT))
    busy.close()


def test_an_answer_is_given_while_every_thread_of_the_server_waits(tiny: Path) -> None:
    """Forty waiting visitors held all of anyio's threads; the one whose turn it was found none."""
    engine, over = Engine(), threading.Event()

    async def crowded() -> list[str]:
        async with create_task_group() as tasks:
            for _ in range(60):
                tasks.start_soon(to_thread.run_sync, over.wait)
            await sleep(0.2)
            stream = engine.astream([Ask(ask("Hi"))], str(tiny), SHORT, threading.Event())
            texts = [replies[0].text async for replies in stream]
            over.set()
        return texts

    with start_blocking_portal() as portal:
        assert portal.call(crowded)[-1] == engine.answer([Ask(ask("Hi"))], str(tiny), SHORT)[0].text


@pytest.mark.parametrize("how", ["closed", "cancelled", "stopped"])
def test_who_leaves_an_async_answer_gives_the_engine_back(tiny: Path, how: str) -> None:
    engine, stop = Engine(), threading.Event()
    stream = engine.astream([Ask(ask("Hi"))], str(tiny), Sampling(max_tokens=400), stop)

    async def leave() -> None:
        await anext(stream)
        if how == "closed":
            await stream.aclose()
        elif how == "stopped":
            stop.set()
            last = [replies async for replies in stream][-1]
            assert last[0].stop == "stopped"
        else:
            task = asyncio.ensure_future(rest())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def rest() -> None:
        async for _ in stream:
            pass

    with start_blocking_portal() as portal:
        portal.call(leave)
    assert engine.answer([Ask(ask("Hi"))], str(tiny), SHORT)[0].tokens > 0
    assert len(engine._turns) == 0
