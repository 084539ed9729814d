"""What an adapter on the upper layers saves, and what it costs: ``python -m benchmarks.quick [--data NAME] [--json]``.

Trains the default model on a sample for some steps, once with each share of the layers (`--shares`) and each learning
rate (`--rates`), all else as the app has it: the held-out loss before and after, the seconds of the whole training
with what is read once, and the median of a step of the first and of later passes over the data.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from finetune import data, models
from finetune.export import facts
from finetune.train.build import adapted, arguments
from finetune.train.config import TrainConfig
from finetune.train.rate import fitting
from finetune.train.tokenized import Rows, render_rows


def parts(path: Path) -> Rows:
    """The sample's rows, as a run with the default settings splits and renders them."""
    with tempfile.TemporaryDirectory() as folder:
        data.write_examples(data.load(path), Path(folder))
        split = data.choose_split(Path(folder), TrainConfig().held_out, TrainConfig().seed)
        train, held_out = data.read_split(Path(folder), split)
    tokenizer = models.load_tokenizer(models.find(models.DEFAULT))
    return render_rows(train, held_out, tokenizer, TrainConfig(), lambda line: None)


def trained(rows: Rows, config: TrainConfig, steps: int, folder: str) -> dict[str, Any]:
    """The figures of one run."""
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback, set_seed

    from finetune.train.trainer import SupervisedTrainer

    class Clock(TrainerCallback):
        ends = [0.0]

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.ends.append(time.perf_counter())

    found, clock = models.find(models.DEFAULT), Clock()
    set_seed(config.seed)
    model = adapted(models.load_model(found), config)
    rate = config.learning_rate or fitting(model.config)
    trainer = SupervisedTrainer(
        model=model,
        args=arguments(config.model_copy(update={"learning_rate": rate}), steps, Path(folder)),
        train_dataset=Dataset.from_list(rows.train),
        eval_dataset=Dataset.from_list(rows.held_out),
        processing_class=models.load_tokenizer(found),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    before = trainer.evaluate()
    began = time.perf_counter()
    clock.ends[0] = began
    trainer.train()
    seconds = time.perf_counter() - began
    after = trainer.evaluate()
    each = [end - start for start, end in zip(clock.ends, clock.ends[1:], strict=False)]
    a_pass = trainer.order().steps
    return {
        "top_layers": config.top_layers,
        "learning_rate": config.learning_rate,
        "steps": steps,
        "held_out_loss": [round(one["eval_loss"], 4) for one in (before, after)],
        "evaluation_seconds": [round(one["eval_seconds"], 2) for one in (before, after)],
        "training_seconds": round(seconds, 1),
        "step_seconds": [round(statistics.median(some), 2) for some in (each[1:a_pass], each[a_pass:]) if some],
    }


def main() -> None:
    """Train each in turn and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="tickets", help="a sample by name")
    parser.add_argument("--shares", type=float, nargs="+", default=[1, 0.67, 0.5, 0.33])
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-4, 1e-3])
    parser.add_argument("--steps", type=int, help="default: one pass over the data")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = parts(next(sample.path for sample in data.samples() if sample.path.name == options.data))
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for share in options.shares:
            for rate in options.rates:
                config = TrainConfig(top_layers=share, learning_rate=rate, r=8, alpha=16, epochs=1)
                figures.append(trained(rows, config, options.steps or config.steps_for(len(rows.train)), folder))
                if not options.json:
                    print(figures[-1], flush=True)
    if options.json:
        machine = {name: facts.environment()[name] for name in ("cpu", "cores", "packages")}
        print(json.dumps({"machine": machine, "data": options.data, "rows": len(rows.train), "runs": figures}))


if __name__ == "__main__":
    main()
