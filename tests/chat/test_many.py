"""Many visitors, one model: answers are never crossed, and nobody waits for ever."""

import random
import threading
from collections.abc import Callable
from pathlib import Path

from finetune.chat import Ask, Engine, Sampling
from finetune.chat.queue import Turns
from finetune.store import Store
from tests.chat.test_base import drawn

SHORT = Sampling(max_tokens=10)
CLIENTS, REQUESTS = 5, 20


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def together(work: Callable[[int], None], count: int) -> None:
    """Run it in so many threads at once; an error in any is ours."""
    errors: list[BaseException] = []

    def guarded(place: int) -> None:
        try:
            work(place)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_a_hundred_interleaved_requests_are_never_crossed(store: Store, tiny: Path) -> None:
    runs = [drawn(store, tiny, seed) for seed in range(3)]
    prompts = ["What is 3 plus 3?", "Hello", "a longer question " * 4, "9"]
    alone = {(text, None): Engine().answer([Ask(asked(text))], str(tiny), SHORT)[0].text for text in prompts}
    for run in runs:
        single = Engine()
        for text in prompts:
            alone[text, run.id] = single.answer([Ask(asked(text), run)], str(tiny), SHORT)[0].text
    assert len(set(alone.values())) > len(prompts), "the adapters make a difference"
    engine, wrong = Engine(), []

    def client(place: int) -> None:
        chance = random.Random(place)
        for _ in range(REQUESTS):
            text, run = chance.choice(prompts), chance.choice(runs)
            columns = [Ask(asked(text)), Ask(asked(text), run)]
            if chance.random() < 0.2:  # somebody closes the tab
                stream = engine.stream(columns, str(tiny), SHORT)
                next(stream)
                stream.close()
                continue
            base, tuned = engine.answer(columns, str(tiny), SHORT)
            if (base.text, tuned.text) != (alone[text, None], alone[text, run.id]):
                wrong.append((text, run.id, base.text, tuned.text))

    together(client, CLIENTS)
    assert wrong == []


def test_turns_come_in_order_and_those_who_leave_are_passed_over() -> None:
    turns = Turns()
    first, second, third = (turns.join() for _ in range(3))
    assert [turn.ahead for turn in (first, second, third)] == [0, 1, 2]
    second.leave()
    assert third.ahead == 1
    first.leave()
    first.leave()
    assert third.ahead == 0


def test_a_line_may_serve_several_at_once() -> None:
    turns = Turns(at_once=2)
    first, second, third, fourth = (turns.join() for _ in range(4))
    assert [turn.ahead for turn in (first, second, third, fourth)] == [0, 0, 1, 2]
    second.leave()
    assert (third.ahead, fourth.ahead) == (0, 1)


def test_one_who_waits_is_told_how_many_are_ahead_and_can_leave(tiny: Path) -> None:
    engine, stop = Engine(), threading.Event()
    engine._turns = Turns(at_once=1)
    busy = engine.stream([Ask(asked("Hi"))], str(tiny), Sampling(max_tokens=300))
    next(busy)
    waiting = engine.stream([Ask(asked("Hi"))], str(tiny), SHORT, stop)
    assert next(waiting)[0].ahead == 1
    stop.set()
    assert [reply.stop for reply in list(waiting)[-1]] == ["stopped"]
    third = engine.stream([Ask(asked("Hi"))], str(tiny), SHORT)
    assert next(third)[0].ahead == 1
    busy.close()
    assert list(third)[-1][0].tokens > 0
