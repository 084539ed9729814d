"""The cells from which `finetune.export.script` makes script and notebook. It is read as text and never imported.

Cells begin with ``# %%``. Those marked ``when X`` or ``unless X`` are for runs of which X is or is not true
(`Recipe.conditions`); the settings replace their cell. Everything above the first cell is left out, so what only this
repository's checks need to know stands there too.
"""
# mypy: ignore-errors
# ruff: noqa: F811

# %% [markdown]
# # A fine-tune, step by step
#
# This repeats a LoRA fine-tune with plain transformers, PEFT and TRL: `pip install -r requirements.txt`, then run it.
# It reads the rows and their order from the files beside it, and writes `adapter/` and `losses.json`.

# %%
import argparse
import json
import math
import os
from pathlib import Path

import peft
import torch
import transformers
import trl
from datasets import Dataset

HERE = Path(__file__).parent if "__file__" in globals() else Path()  # a notebook runs in its own folder

# %% [markdown]
# ## Settings
#
# Every setting that shapes the result, as the run had it.

# %% settings
arguments = argparse.ArgumentParser()
arguments.add_argument("--model", default=os.environ.get("BASE_MODEL", "owner/model"))
MODEL, DATASET, SYSTEM = arguments.parse_args().model, "name", None
STEPS, LENGTH, END_OF_TURN, THINKS, MEASURED, STOP_AFTER = 87, 412, 2, False, {0: 1.0}, None
EVAL_EVERY, EARLY_STOPPING, BATCH_SIZE, MICRO_BATCH, SEED = None, None, 8, 8, 0
R, ALPHA, DROPOUT, RSLORA, TARGET_MODULES, GRADIENT_CHECKPOINTING = 16, 32, 0.0, False, "all-linear", False
TOP_LAYERS, LEARNING_RATE, SCHEDULE, WARMUP, WEIGHT_DECAY, NEFTUNE_ALPHA = 0.33, 1e-3, "cosine", 0.05, 0.0, None
BASE_KL = 0.5

# %% [markdown]
# ## The model
#
# On a CPU the weights are float32, on a GPU bfloat16. The tokenizer brings the model's own chat template.

# %%
gpu = torch.cuda.is_available()
tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
transformers.set_seed(SEED)  # the adapter's first weights are drawn at random

# %% unless 4bit
model = transformers.AutoModelForCausalLM.from_pretrained(
    MODEL, dtype=torch.bfloat16 if gpu else torch.float32, use_safetensors=True
)
model = model.to("cuda" if gpu else "cpu")

# %% when 4bit
nf4 = transformers.BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
)
model = transformers.AutoModelForCausalLM.from_pretrained(
    MODEL, dtype=torch.bfloat16, use_safetensors=True, quantization_config=nf4
)
model = peft.prepare_model_for_kbit_training(model, GRADIENT_CHECKPOINTING)

# %% [markdown]
# ## The adapter
#
# LoRA adds two small matrices to each layer, and only those are trained.

# %% when upper
LAYERS = model.config.num_hidden_layers
UPPER = list(range(LAYERS - max(1, round(TOP_LAYERS * LAYERS)), LAYERS))
if TARGET_MODULES == "all-linear":  # for some of the layers, PEFT wants names
    linear, output = (torch.nn.Linear, transformers.pytorch_utils.Conv1D), model.get_output_embeddings()
    inner = [name for name, one in model.named_modules() if isinstance(one, linear) and one is not output]
    TARGET_MODULES = sorted({name.split(".")[-1] for name in inner})

# %%
model = peft.get_peft_model(
    model,
    peft.LoraConfig(
        r=R,
        lora_alpha=ALPHA,
        lora_dropout=DROPOUT,
        use_rslora=RSLORA,
        target_modules=TARGET_MODULES,
        # %% + when upper
        layers_to_transform=UPPER,
        # %% +
        task_type="CAUSAL_LM",
    ),
)
model.print_trainable_parameters()

# %% when continues
# The run continued another and began with its adapter.
peft.set_peft_model_state_dict(model, peft.load_peft_weights(str(HERE / "start"), device="cpu"))

# %% [markdown]
# ## The rows
#
# `train.tokens.jsonl` holds the token ids that the model's chat template made of each conversation in `train.jsonl`.
# The loss is computed on what the assistant says and its end-of-turn token (`labels`), not on the rest (-100).

# %%


def read(name: str) -> list[dict]:
    """The rows of a JSONL file."""
    with (HERE / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


train_rows, held_out_rows = read("train.tokens.jsonl"), read("validation.tokens.jsonl")
print(f"{DATASET}: {len(train_rows)} rows to train on, {len(held_out_rows)} held out, at most {LENGTH} tokens each.")

# %% [markdown]
# This is a row as the model reads it, and what is learned of it.

# %%
example = (held_out_rows or train_rows)[0]
print(tokenizer.decode(example["input_ids"]))
print("Learned:", repr(tokenizer.decode([label for label in example["labels"] if label != -100])))

# %% [markdown] when packing
# ## Packing
#
# Short rows are joined up to `LENGTH`. Each row's positions begin at 0, by which the model keeps the rows apart.

# %% when packing


def positions(lengths: list[int], longest: int) -> list[int]:
    """Positions of packed rows; the padding behind them counts as one more row."""
    return [position for each in (*lengths, longest - sum(lengths)) for position in range(each)]


def packed_batch(rows: list[dict]) -> dict[str, torch.Tensor]:
    """A batch of packed rows, or of plain ones, padded on the right."""
    longest = max(len(row["input_ids"]) for row in rows)
    fillers = {"input_ids": tokenizer.pad_token_id, "labels": -100}
    batch = {
        name: [row[name] + [filler] * (longest - len(row[name])) for row in rows] for name, filler in fillers.items()
    }
    if "seq_lengths" in rows[0]:
        batch["position_ids"] = [positions(row["seq_lengths"], longest) for row in rows]
    else:
        batch["attention_mask"] = [[int(i < len(row["labels"])) for i in range(longest)] for row in rows]
    return {name: torch.tensor(values) for name, values in batch.items()}


unlearned_starts = [{**row, "labels": [-100, *row["labels"][1:]]} for row in train_rows]
train_rows = trl.pack_dataset(Dataset.from_list(unlearned_starts), LENGTH, "bfd").to_list()
print(f"Packed into {len(train_rows)} rows.")

# %% [markdown] when base_kl
# ## What the base knows
#
# `known.tokens.jsonl` holds general questions in the order in which the run read them, one beside every 16 rows. They
# are not learned: `BASE_KL` times the divergence from what the base says there, KL(base ‖ tuned), is lowered too.

# %% when base_kl


def answered(row: dict) -> torch.Tensor:
    """Log probabilities (tokens of the answer, vocabulary) that the model gives."""
    learned = torch.tensor(row["labels"][1:], device=model.device) != -100
    logits = model(input_ids=torch.tensor([row["input_ids"]], device=model.device), use_cache=False).logits
    return logits[0, :-1][learned].float().log_softmax(-1)


def divergence(row: dict) -> torch.Tensor:
    """KL(base ‖ tuned), a mean over the tokens of the answer."""
    model.eval()
    with torch.no_grad(), model.disable_adapter():
        base = answered(row)
    model.train()
    return torch.nn.functional.kl_div(answered(row), base, reduction="batchmean", log_target=True)


known = read("known.tokens.jsonl")
print(f"Held to what the base says on {len(known)} general questions.")

# %% [markdown]
# ## Training
#
# `order.json` lists the rows of each epoch as the run read them: rows of similar length share a batch.
# Losses match the run's on the same kind of machine with the same versions, up to rounding.

# %%
ORDER = json.loads((HERE / "order.json").read_text())
eval_every = EVAL_EVERY or max(1, math.ceil(STEPS / min(5, max(1, STEPS // 15))))


class Order(torch.utils.data.Sampler):
    """The rows of the epoch that begins."""

    def __init__(self, trainer: trl.SFTTrainer):
        self.trainer = trainer

    def __len__(self) -> int:
        return len(train_rows)

    def __iter__(self):
        return iter(ORDER[self.trainer.state.global_step // math.ceil(len(train_rows) / BATCH_SIZE)])


class Trainer(trl.SFTTrainer):
    """TRL's trainer with that order, and a warm-up whose first step learns. TRL's own has slightly different losses."""

    def _get_train_sampler(self, train_dataset=None) -> Order:
        return Order(self)

    # %% + when base_kl
    held = -1  # the step in which the divergence was last computed

    def training_step(self, model, inputs, num_items_in_batch=None):
        step = self.state.global_step
        numbers = range(step * BATCH_SIZE // 16, (step + 1) * BATCH_SIZE // 16)
        if step != self.held and numbers:
            self.held = step
            rows = [known[number % len(known)] for number in numbers]
            with self.compute_loss_context_manager():
                weighed = BASE_KL * torch.stack([divergence(row) for row in rows]).mean()
            weighed.backward()
        return super().training_step(model, inputs, num_items_in_batch)

    # %% +
    def create_scheduler(self, num_training_steps, optimizer=None):
        schedule = super().create_scheduler(num_training_steps, optimizer)
        warm, after = self.args.get_warmup_steps(num_training_steps), schedule.lr_lambdas[0]
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            schedule.optimizer, lambda step: (step + 1) / (warm + 1) if step < warm else after(step)
        )
        return self.lr_scheduler


def held_out_loss() -> float:
    """Mean loss of a learned token over the held-out rows (the Trainer's own figure is a mean over batches)."""
    model.eval()
    total, tokens = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(held_out_rows), 8):
            batch = trainer.data_collator(held_out_rows[start : start + 8])
            batch = {name: values.to(model.device) for name, values in batch.items()}
            tokens += int((batch["labels"][:, 1:] != -100).sum())
            total += float(trainer.compute_loss(model, batch, num_items_in_batch=1))  # 1: the sum, not a mean
    model.train()
    return total / tokens


class Watch(transformers.TrainerCallback):
    """Measures the held-out loss before training, now and then, and at the end."""

    def __init__(self):
        self.losses: dict[int, float] = {}
        self.best: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.measure(0)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        step = state.global_step
        if step == STOP_AFTER:  # where somebody stopped the run
            control.should_training_stop = True
        elif step % eval_every == 0 or step == STEPS:
            self.measure(step)

            # %% + when early_stopping
            losses = list(self.losses.values())
            if losses and len(losses) - 1 - losses.index(min(losses)) >= EARLY_STOPPING:
                control.should_training_stop = True  # so many measurements without a lower loss

    # %% + unless best
    def measure(self, step: int) -> None:
        """Measure and print."""
        if held_out_rows:
            self.losses[step] = held_out_loss()
            print(f"Step {step}: held-out loss {self.losses[step]:.4f} (in the run: {MEASURED.get(step)})")

    # %% + when best
    def measure(self, step: int) -> None:
        """Measure and print, and keep the adapter with the lowest loss so far."""
        if held_out_rows:
            self.losses[step] = held_out_loss()
            print(f"Step {step}: held-out loss {self.losses[step]:.4f} (in the run: {MEASURED.get(step)})")
            if step and self.losses[step] == min(loss for at, loss in self.losses.items() if at):
                weights = peft.get_peft_model_state_dict(model)
                self.best = {name: values.detach().clone() for name, values in weights.items()}


# %%
watch = Watch()
trainer = Trainer(
    model=model,
    args=trl.SFTConfig(
        output_dir=str(HERE / "trainer"),
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=BATCH_SIZE // MICRO_BATCH,
        max_steps=STEPS,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type=SCHEDULE,
        warmup_steps=WARMUP,  # below 1: a share of the steps
        weight_decay=WEIGHT_DECAY,
        neftune_noise_alpha=NEFTUNE_ALPHA,
        gradient_checkpointing=GRADIENT_CHECKPOINTING,
        bf16=gpu,
        use_cpu=not gpu,  # as the run: Apple's GPU knows no float64
        seed=SEED,
        max_length=None,  # the rows are cut already
        dataset_kwargs={"skip_prepare_dataset": True},  # ... and are ids and labels already
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        dataloader_pin_memory=False,
    ),
    train_dataset=Dataset.from_list(train_rows),
    processing_class=tokenizer,
    callbacks=[watch],
)

# %% when packing
trainer.data_collator = packed_batch

# %%
trainer.train()

# %% when best
if watch.best:
    peft.set_peft_model_state_dict(model, watch.best)

# %% [markdown]
# ## Keep the adapter
#
# The adapter goes to `adapter/` with its tokenizer, the losses to `losses.json`.

# %%
model.save_pretrained(HERE / "adapter")
tokenizer.save_pretrained(HERE / "adapter")
training = {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
(HERE / "losses.json").write_text(json.dumps({"training": training, "held_out": watch.losses}, indent=1))

# %% [markdown]
# ## Before and after
#
# A held-out prompt, answered by the base model and by the tuned one; both choose the likeliest token each time.

# %%
ends = {END_OF_TURN, tokenizer.eos_token_id} - {None}
configured = model.generation_config.eos_token_id
ends |= set(configured if isinstance(configured, list) else [configured]) - {None}
greedy = transformers.GenerationConfig(
    max_new_tokens=128, do_sample=False, eos_token_id=sorted(ends), pad_token_id=min(ends)
)


def answer(prompt: list[int]) -> str:
    """The model's answer to a prompt: at most 128 tokens, up to an end of turn."""
    ids = torch.tensor([prompt], device=model.device)
    model.eval()
    written = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=greedy)
    return tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True)


ids, labels = example["input_ids"], example["labels"]
last = max(i for i in range(len(ids)) if labels[i] != -100 and (i == 0 or labels[i - 1] == -100))
print("Prompt:  ", tokenizer.decode(ids[:last]))
print("Expected:", tokenizer.decode([label for label in labels[last:] if label != -100], skip_special_tokens=True))
with model.disable_adapter():
    print("Base:    ", answer(ids[:last]))
print("Tuned:   ", answer(ids[:last]))

# %% [markdown]
# For questions of your own, begin with the system prompt the model was trained with.

# %%
question = [{"role": "user", "content": "Hello!"}]
if SYSTEM is not None:
    question = [{"role": "system", "content": SYSTEM}, *question]
asked = tokenizer.apply_chat_template(question, add_generation_prompt=True, enable_thinking=THINKS)
print("Tuned:", answer(asked["input_ids"]))
