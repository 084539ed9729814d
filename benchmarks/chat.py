"""How fast columns and visitors are answered: ``python -m benchmarks.chat RUN [--tokens 48] [--while-training]``.

Answers of exactly so many tokens to held-out prompts of a run, greedy, warm, each prompt asked once: by the app, by
transformers and PEFT with one column after the other, and by PEFT's own batch of several adapters. They take turns.
With ``--llama`` the app with llama.cpp takes part, once it has checked the run; what it may not answer is PyTorch's.
`visitors` asks the app with several requests of two columns at the same time. Tokens per second count all columns.
"""

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from finetune import chat, models, settings, train
from finetune.chat.adapters import Adapter
from finetune.export import facts
from finetune.export.chat_engine import LlamaCpp
from finetune.store import Run, Store

COLUMNS, VISITORS = (2, 4, 10), (1, 5, 20)
Messages = list[dict[str, str]]


class App:
    """The app's engine; its answers end where the others' do, after so many tokens."""

    def __init__(self, run: Run, tokens: int, second: LlamaCpp | None = None):
        self.engine, self.run, self.sampling = chat.Engine(second), run, chat.Sampling(max_tokens=tokens)

    def answer(self, prompt: Messages, columns: int) -> tuple[int, float, float]:
        """Tokens of all columns, seconds to the first of each, and in all."""
        asks = [chat.Ask(prompt), chat.Ask(prompt, self.run)] * (columns // 2)
        began, first, replies = time.monotonic(), 0.0, []
        for replies in self.engine.stream(asks, self.run.config["model"], self.sampling):
            if not first and all(reply.tokens for reply in replies):
                first = time.monotonic() - began
        return sum(reply.tokens for reply in replies), first, time.monotonic() - began


class Peft:
    """Transformers and PEFT as they come: all columns in one batch, or one after the other."""

    def __init__(self, run: Run, tokens: int, batched: bool):
        from peft import PeftModel

        found = models.find(run.config["model"])
        self.tokenizer, self.tokens, self.batched = models.load_tokenizer(found), tokens, batched
        self.model = PeftModel.from_pretrained(models.load_model(found), Adapter(run).folder(), adapter_name="tuned")
        self.model.eval()

    def answer(self, prompt: Messages, columns: int) -> tuple[int, float, float]:
        """As the app's; the first token's time is not known while `generate` runs."""
        names = ["__base__", "tuned"] * (columns // 2)
        began, said = time.monotonic(), 0
        for part in [names] if self.batched else [[name] for name in names]:
            said += self._generate(prompt, part)
        return said, float("nan"), time.monotonic() - began

    def _generate(self, prompt: Messages, names: list[str]) -> int:
        import torch

        ids = torch.tensor([models.prompt_ids(prompt, self.tokenizer)] * len(names))
        ends = sorted(models.end_tokens(self.model, self.tokenizer))
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self.tokens,
                do_sample=False,
                eos_token_id=ends,
                pad_token_id=ends[0],
                adapter_names=names,
            )
        answers = out[:, ids.shape[1] :].tolist()
        return sum(next((n + 1 for n, token in enumerate(row) if token in ends), len(row)) for row in answers)


def columns(contestants: dict[str, Any], prompts: list[Messages]) -> dict[str, Any]:
    """Each number of columns on prompts of its own, every contestant in turn."""
    found: dict[str, Any] = {}
    for count in COLUMNS:
        asked, prompts = prompts[:3], prompts[3:]
        taken: dict[str, list[tuple[int, float, float]]] = {name: [] for name in contestants}
        for prompt in asked:
            for name, contestant in contestants.items():
                taken[name].append(contestant.answer(prompt, count))
        for name, each in taken.items():
            speed = sum(tokens for tokens, _, _ in each) / sum(seconds for _, _, seconds in each)
            first = statistics.median(first for _, first, _ in each)
            found[f"{count} columns, {name}"] = {"tokens_per_second": round(speed, 1), "first": round(first, 2)}
    return found


def visitors(app: App, prompts: list[Messages]) -> dict[str, Any]:
    """Several requests of two columns at the same time."""
    found: dict[str, Any] = {}
    for count in VISITORS:
        taken: list[tuple[int, float, float]] = []
        asks = [prompts[n % len(prompts)] for n in range(count)]
        threads = [threading.Thread(target=_into, args=(taken, app, prompt)) for prompt in asks]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found[f"{count} visitors"] = {
            "tokens_per_second_each": round(statistics.mean(tokens / seconds for tokens, _, seconds in taken), 1),
            "tokens_per_second": round(sum(tokens for tokens, _, _ in taken) / (time.monotonic() - began), 1),
            "first_median": round(statistics.median(first for _, first, _ in taken), 2),
            "first_longest": round(max(first for _, first, _ in taken), 2),
        }
    return found


def _into(taken: list[tuple[int, float, float]], app: App, prompt: Messages) -> None:
    taken.append(app.answer(prompt, 2))


def beside_training(store: Store, run: Run, measure: Callable[[], Any]) -> Any:
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


def main() -> None:
    """Print the figures, as JSON or as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--while-training", action="store_true")
    parser.add_argument("--llama", action="store_true")
    options = parser.parse_args()
    store = Store(settings.read().home)
    run = store.run(options.run)
    prompts = [list(row.prompt) for row in train.rows_of_run(store, run)[1]]
    app = App(run, options.tokens)
    contestants: dict[str, Any] = {
        "app": app,
        "PEFT, one after the other": Peft(run, options.tokens, batched=False),
        "PEFT, one batch": Peft(run, options.tokens, batched=True),
    }
    if options.llama:
        second = LlamaCpp(store)
        print(second.prepare(run, app.engine).sentence, file=sys.stderr)
        contestants["app, llama.cpp"] = App(run, options.tokens, second)
    for contestant in contestants.values():
        contestant.answer(prompts[0], 2)  # loads, and warms up
    used = 1 + 3 * len(COLUMNS)
    figures = columns(contestants, prompts[1:used]) | visitors(app, prompts[used:])
    if options.while_training:
        later = beside_training(store, run, lambda: columns({"app, while a run trains": app}, prompts[-9:]))
        figures |= later
    if options.json:
        machine = {name: facts.environment()[name] for name in ("cpu", "cores", "packages")}
        print(json.dumps({"machine": machine, **figures}))
        return
    for name, values in figures.items():
        print(f"| {name} | {' | '.join(f'{key} {value}' for key, value in values.items())} |")


if __name__ == "__main__":
    main()
