"""How fast columns and visitors are answered: ``python -m benchmarks.chat RUN [--tokens 48] [--json]``.

Contestants in processes of their own take turns, each with the default model or a run's base, and the run's adapter:

    app            the app's engine, its queue and its batch; every second column is tuned
    llama          the same with llama.cpp as its second engine, once that has passed its check
    transformers   `generate`, one column after the other
    peft           `generate` on PEFT's batch of several adapters

Answers are greedy, warm, and have exactly so many tokens: nobody stops at the end of a turn, for then the speed would
be that of reading prompts. Each prompt, from the run's held-out rows, is asked once. `visitors` are requests of two
columns that come at the same time. Tokens per second count all columns.

At last the same answers: every held-out prompt of `--parity`, both columns, as the app and as the plain engine
(transformers, one after the other) answers it, to its own end.
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.machine import machine
from benchmarks.turns import Contestant, Said, listen, say
from finetune import chat, models, settings, train
from finetune.chat.adapters import Adapter
from finetune.chat.prompts import Messages
from finetune.store import Run, Store

KINDS = ("app", "llama", "transformers", "peft")
NOT_AN_END = {0}
"""For `end_tokens`: a token that the default model never says."""

END_TOKENS = models.end_tokens


class App:
    """The app's engine."""

    def __init__(self, store: Store, run: Run, llama: bool):
        second = None
        if llama:
            from finetune.export.chat_engine import LlamaCpp

            second = LlamaCpp(store)
        self.engine, self.run, self.said = chat.Engine(second), run, ""
        if second:
            self.said = second.prepare(run, self.engine).sentence

    def answer(self, prompt: Messages, columns: int, tokens: int) -> Said:
        """Tokens of all columns, seconds to the first of each, and in all; one column is the tuned one."""
        asks = ([chat.Ask(prompt), chat.Ask(prompt, self.run)] * columns)[:columns] if columns > 1 else []
        began, first, replies = time.monotonic(), 0.0, []
        model, sampling = self.run.config["model"], chat.Sampling(max_tokens=tokens)
        for replies in self.engine.stream(asks or [chat.Ask(prompt, self.run)], model, sampling):
            if not first and all(reply.tokens for reply in replies):
                first = time.monotonic() - began
        return {
            "tokens": sum(reply.tokens for reply in replies),
            "first": first,
            "seconds": time.monotonic() - began,
            "texts": [reply.text for reply in replies],
            "by": sorted({reply.by or "PyTorch" for reply in replies}),
        }


class Peft:
    """Transformers and PEFT as they come: all columns in one batch, or one after the other."""

    def __init__(self, run: Run, batched: bool):
        from peft import PeftModel

        found = models.find(run.config["model"], source=run.result.source)
        self.tokenizer, self.batched, self.said = models.load_tokenizer(found), batched, ""
        self.model = PeftModel.from_pretrained(models.load_model(found), Adapter(run).folder(), adapter_name="tuned")
        self.model.eval()

    def answer(self, prompt: Messages, columns: int, tokens: int) -> Said:
        """As the app's; when the first token came is not known while `generate` runs, so one is asked for alone."""
        names = (["__base__", "tuned"] * columns)[:columns] if columns > 1 else ["tuned"]
        parts = [names] if self.batched else [[name] for name in names]
        began = time.monotonic()
        for part in parts:
            self._generate(prompt, part, 1)
        first, began, texts, said = time.monotonic() - began, time.monotonic(), [], 0
        for part in parts:
            answers = self._generate(prompt, part, tokens)
            said += sum(map(len, answers))
            texts += [str(self.tokenizer.decode(answer, skip_special_tokens=True)) for answer in answers]
        return {"tokens": said, "first": first, "seconds": time.monotonic() - began, "texts": texts, "by": []}

    def _generate(self, prompt: Messages, names: list[str], tokens: int) -> list[list[int]]:
        import torch

        ids = torch.tensor([models.prompt_ids([dict(one) for one in prompt], self.tokenizer)] * len(names))
        ends = sorted(models.end_tokens(self.model, self.tokenizer))
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                do_sample=False,
                eos_token_id=ends,
                pad_token_id=ends[0],
                adapter_names=names,
            )
        answers = out[:, ids.shape[1] :].tolist()
        return [row[: next((n + 1 for n, token in enumerate(row) if token in ends), len(row))] for row in answers]


def contestant(kind: str, name: str) -> None:
    """Answer as this contestant until nobody asks any more."""
    asked, answer = listen()
    store = Store(settings.read().home)
    run = store.run(name)
    one: App | Peft = App(store, run, kind == "llama") if kind in ("app", "llama") else Peft(run, kind == "peft")
    for what in asked:
        to_the_end = what.pop("to_the_end", False)
        if kind == "llama":
            _ends(to_the_end)
        models.end_tokens = END_TOKENS if to_the_end else lambda model, tokenizer: NOT_AN_END
        if "visitors" in what:
            answer(visitors(one, what["visitors"], what["tokens"]))
        else:
            answer({**one.answer(**what), "said": one.said})


def _ends(to_the_end: bool) -> None:
    """Let llama.cpp end with the turn, or go on after it as the others do."""
    from http.client import HTTPConnection

    from finetune.chat import llama

    class Endless(HTTPConnection):
        def request(self, method: str, url: str, body: Any = None, headers: Any = None, **more: Any) -> None:
            body = json.dumps({**json.loads(body), "ignore_eos": True}) if body else body
            super().request(method, url, body, headers or {}, **more)

    llama.HTTPConnection = HTTPConnection if to_the_end else Endless  # type: ignore[misc]


def visitors(one: App | Peft, prompts: list[Messages], tokens: int) -> Said:
    """Requests of two columns at the same time, one for each prompt."""
    taken: list[Said] = []
    threads = [threading.Thread(target=lambda p=p: taken.append(one.answer(p, 2, tokens))) for p in prompts]  # type: ignore[misc]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(taken) < len(prompts):
        raise RuntimeError("A visitor got no answer.")
    return {
        "tokens_per_second_each": round(statistics.mean(one["tokens"] / one["seconds"] for one in taken), 1),
        "tokens_per_second": round(sum(one["tokens"] for one in taken) / (time.monotonic() - began), 1),
        "first": round(statistics.median(one["first"] for one in taken), 2),
        "first_longest": round(max(one["first"] for one in taken), 2),
    }


def compared(all_of_them: dict[str, Contestant], prompts: list[Messages], options: argparse.Namespace) -> Said:
    """Each number of columns, then of visitors: every contestant in turn, on the same prompts."""
    found: Said = {}
    left = iter(prompts * 3)
    for columns in options.columns:
        taken: dict[str, list[Said]] = {name: [] for name in all_of_them}
        for _ in range(options.rounds):
            prompt = next(left)
            for name, one in all_of_them.items():
                said = one.ask(prompt=prompt, columns=columns, tokens=options.tokens)
                taken[name].append(said)
                say(
                    f"{columns} columns, {name}: {said['tokens'] / said['seconds']:.1f} tokens/s, {said['first']:.2f} s"
                )
        found[f"{columns} columns"] = {
            name: {
                "tokens_per_second": round(statistics.median(one["tokens"] / one["seconds"] for one in each), 1),
                "first": round(statistics.median(one["first"] for one in each), 2),
                "by": each[-1]["by"],
            }
            for name, each in taken.items()
        }
    for count in options.visitors:
        found[f"{count} visitors"] = {}
        asks = [next(left) for _ in range(count)]
        for name in [name for name in all_of_them if name in ("app", "llama")]:
            found[f"{count} visitors"][name] = all_of_them[name].ask(visitors=asks, tokens=options.tokens)
            say(f"{count} visitors, {name}: {found[f'{count} visitors'][name]}")
    return found


def parity(all_of_them: dict[str, Contestant], prompts: list[Messages], plain: str, most: int) -> Said:
    """How many prompts each contestant answers as the plain engine does, word for word in both columns."""
    same = {name: 0 for name in all_of_them if name != plain}
    for number, prompt in enumerate(prompts):
        said = {
            name: one.ask(prompt=prompt, columns=2, tokens=most, to_the_end=True)["texts"]
            for name, one in all_of_them.items()
        }
        for name in same:
            same[name] += said[name] == said[plain]
        say(f"prompt {number + 1} of {len(prompts)}: the same {same}")
    return {"prompts": len(prompts), "as": plain, "same": same}


def beside_training(store: Store, run: Run, measure: Callable[[], Said]) -> Said:
    """The same while another run trains on this machine."""
    supervisor = train.Supervisor(store)
    config = train.TrainConfig.parse({"max_steps": 1000, "samples": 0})
    busy = train.start(store, config, store.dataset(run.dataset))
    while store.run(busy.id).step < 1:
        supervisor.tick()
        time.sleep(0.5)
    found = measure()
    train.stop(store, busy.id)
    while store.run(busy.id).state == "running":
        supervisor.tick()
        time.sleep(0.5)
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--columns", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--visitors", type=int, nargs="*", default=[1, 5])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["app", "transformers", "peft"])
    parser.add_argument("--parity", type=int, default=40, help="prompts on which answers are compared")
    parser.add_argument("--parity-tokens", type=int, default=16, help="most tokens of those answers")
    parser.add_argument("--while-training", action="store_true", help="again while another run trains")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--contestant", choices=KINDS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print the figures, as JSON or as Markdown tables."""
    options = _options()
    if options.contestant:
        contestant(options.contestant, options.run)
        return
    store = Store(settings.read().home)
    run = store.run(options.run)
    prompts: list[Messages] = [list(row.prompt) for row in train.rows_of_run(store, run)[1]]
    figures: Said = {"machine": machine()}
    say(figures["machine"])
    all_of_them = {kind: Contestant("benchmarks.chat", kind, run.id) for kind in options.kinds}
    try:
        for name, one in all_of_them.items():  # loads, and warms up
            say(f"{name} is ready. {one.ask(prompt=prompts[0], columns=2, tokens=4)['said']}")
        figures |= compared(all_of_them, prompts[1:], options)
        if options.while_training:
            figures["while a run trains"] = beside_training(
                store, run, lambda: compared({"app": all_of_them["app"]}, prompts[::-1], options)
            )
        if options.parity and "transformers" in all_of_them:
            some = {name: one for name, one in all_of_them.items() if name != "peft"}
            figures["parity"] = parity(some, prompts[: options.parity], "transformers", options.parity_tokens)
    finally:
        for one in all_of_them.values():
            one.close()
    if options.json:
        print(json.dumps(figures))
        return
    for name, values in figures.items():
        print(f"\n{name}\n" + "\n".join(f"| {key} | {value} |" for key, value in values.items()))


if __name__ == "__main__":
    main()
