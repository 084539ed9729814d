"""What `finetune.export.script` makes the exported script and notebook of. It is read as text and never imported.

Cells begin with ``# %%``. Those marked ``when X`` or ``unless X`` are for runs and data of which X
is or is not true (`Recipe.true`); the settings are written in their place. All before the first
cell stays here, so what only this repository's checks need to know stands there too.
"""
# mypy: ignore-errors
# ruff: noqa: F811

# %% [markdown]
# # A fine-tune, step by step
#
# This repeats a LoRA fine-tune with plain transformers, PEFT and TRL: `pip install -r requirements.txt`, then run it.
# It reads `train.jsonl` and `validation.jsonl` beside it, and writes `adapter/` and `losses.json`.

# %%
import json
import math
import os
from pathlib import Path

import jinja2
import peft
import torch
import transformers
import trl
from datasets import Dataset
from transformers.trainer_pt_utils import get_length_grouped_indices

HERE = Path(__file__).parent if "__file__" in globals() else Path()  # a notebook runs in its own folder

# %% [markdown]
# ## Settings
#
# Every setting that shapes the result, as the run had it.

# %% settings
MODEL, DATASET, SYSTEM = os.environ.get("BASE_MODEL", "owner/model"), "name", None
MEASURED, STOP_AFTER, EVAL_EVERY, EARLY_STOPPING = {0: 1.0}, None, None, None
EPOCHS, MAX_STEPS, BATCH_SIZE, MICRO_BATCH, MAX_LENGTH, SEED = 3.0, None, 8, 8, None, 0
R, ALPHA, DROPOUT, RSLORA, TARGET_MODULES, GRADIENT_CHECKPOINTING = 16, 32, 0.0, False, "all-linear", False
LEARNING_RATE, SCHEDULE, WARMUP, WEIGHT_DECAY, NEFTUNE_ALPHA = 2e-4, "cosine", 0.05, 0.0, None

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

# %%
model = peft.get_peft_model(
    model,
    peft.LoraConfig(
        r=R,
        lora_alpha=ALPHA,
        lora_dropout=DROPOUT,
        use_rslora=RSLORA,
        target_modules=TARGET_MODULES,
        task_type="CAUSAL_LM",
    ),
)
model.print_trainable_parameters()

# %% [markdown]
# ## From conversations to tokens
#
# The model's own chat template writes each conversation as tokens.
# The loss falls on what the assistant says and on its end of turn (`labels`), not on the rest (-100).

# %% unless thinking


def shown(message: dict, template: str) -> dict:
    """The message as the template reads it. `weight` (0: read, not learned) is not for its eyes."""
    return {key: value for key, value in message.items() if key != "weight"}


# %% when thinking


def shown(message: dict, template: str) -> dict:
    """The message as the template reads it: thoughts in a field of their own, if it knows one."""
    kept = {key: value for key, value in message.items() if key != "weight"}
    if message["role"] == "assistant" and "</think>" in message["content"] and "reasoning_content" in template:
        thought, answer = message["content"].split("</think>", 1)
        thought = thought.split("<think>", 1)[-1]
        return kept | {"reasoning_content": thought.strip("\n"), "content": answer.lstrip("\n")}
    return kept


# %%


def token_ids(messages: list[dict], tools: list | None, thinking: bool, asks: bool = False) -> list[int]:
    """A conversation as token ids; with `asks` it ends where the assistant is to speak. Control tokens stay text."""
    template = tokenizer.get_chat_template(None, tools)
    return tokenizer.apply_chat_template(
        [shown(message, template) for message in messages],
        tools=tools,
        add_generation_prompt=asks,
        enable_thinking=thinking,
        sanitize_control_tokens=True,
    )["input_ids"]


def encoded(text: str) -> list[int]:
    """Text on its own, in which control tokens are ordinary characters."""
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


special = set(tokenizer.all_special_ids) | {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}


def answer_ids(prompt: list[int], whole: list[int]) -> tuple[list[int], list[int]]:
    """What a turn of the assistant adds to its prompt: (what it says and its end of turn, what the template adds)."""
    same = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
    end = max(i for i in range(same, len(whole)) if whole[i] in special)
    if same == len(prompt):
        return whole[same : end + 1], whole[end + 1 :]
    # The answer's first characters merged with the prompt's last token. A chat never sees that merge: undo it.
    before, text = tokenizer.decode(prompt[same:]), tokenizer.decode(whole[same:end])
    if not text.startswith(before):
        raise ValueError("the chat template does not continue its own prompt")
    return [*encoded(text.removeprefix(before)), whole[end]], whole[end + 1 :]


def learn(row: dict, turns: list[int]) -> tuple[list[int], list[int]] | None:
    """Ids and labels of a row whose `turns` are learned; None when the template rewrites earlier turns."""
    messages, tools = row["messages"], row.get("tools")
    thinking = any(m["role"] == "assistant" and "</think>" in m["content"] for m in messages)
    ids, labels, seen = [], [], []
    for turn in turns:
        prompt = token_ids(messages[:turn], tools, thinking, asks=True)
        whole = token_ids(messages[: turn + 1], tools, thinking)
        if prompt[: len(seen)] != seen:
            return None
        answer, tail = answer_ids(prompt, whole)
        ids += prompt[len(seen) :] + answer + tail
        labels += [-100] * len(prompt[len(seen) :]) + answer + [-100] * len(tail)
        seen = whole
    return ids, labels


# %% when texts


def opening() -> tuple[list[int], int]:
    """How a turn of the assistant begins when nobody asked (a row that is a whole text), and how it ends."""
    asked = [{"role": "user", "content": "?"}]
    before, after = token_ids(asked, None, False), token_ids(asked, None, False, asks=True)
    header = after[len(before) :] if after[: len(before)] == before else []
    ends = answer_ids(after, token_ids([*asked, {"role": "assistant", "content": "!"}], None, False))[0][-1]
    return (after[:1] if after[0] == tokenizer.bos_token_id and after[0] not in header else []) + header, ends


# %%


def render(row: dict) -> dict:
    """A row to train on. Where the template shows earlier turns otherwise than the last, only the last is learned."""
    learned = [i for i, m in enumerate(row["messages"]) if m["role"] == "assistant" and m.get("weight") != 0]

    # %% + when texts
    if learned == [0]:
        start, end = opening()
        text = [*encoded(row["messages"][0]["content"]), end]
        return {"input_ids": start + text, "labels": [-100] * len(start) + text}

    # %% + when tools
    template = tokenizer.get_chat_template(None, row.get("tools"))
    words = {message["role"] for message in row["messages"]} | {key for message in row["messages"] for key in message}
    needed = words & {"tool", "tool_calls"} | {name for name in ("tools",) if row.get(name)}
    if any(word not in template for word in needed):
        raise ValueError("the chat template cannot show tool calls")

    # %% +
    turns = [turn for turn in learned if turn]  # a first turn that nobody asked for is read, not learned
    ids, labels = learn(row, turns) or learn(row, turns[-1:])
    return {"input_ids": ids, "labels": labels}


def rendered(rows: list[dict]) -> list[dict]:
    """The rows that the template accepts."""
    done = []
    for row in rows:
        try:
            done.append(render(row))
        except (jinja2.TemplateError, ValueError, TypeError, LookupError) as error:
            print(f"A row is left out: {error}")
    return done


def cut(rows: list[dict]) -> list[dict]:
    """The rows within the length, without those that then have nothing to learn."""
    rows = [{name: values[:length] for name, values in row.items()} for row in rows]
    return [row for row in rows if any(label != -100 for label in row["labels"])]


def read(name: str) -> list[dict]:
    """The rows of a JSONL file."""
    with (HERE / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


train_texts, held_out_texts = read("train.jsonl"), read("validation.jsonl")
train_rows, held_out_rows = rendered(train_texts), rendered(held_out_texts)
length = MAX_LENGTH or min(2048, max(len(row["input_ids"]) for row in train_rows + held_out_rows))
train_rows, held_out_rows = cut(train_rows), cut(held_out_rows)
print(f"{DATASET}: {len(train_rows)} rows to train on, {len(held_out_rows)} held out, at most {length} tokens each.")

# %% [markdown]
# This is one row as the model reads it, and the part of it that is learned.

# %%
print(tokenizer.decode(train_rows[0]["input_ids"]))
print("Learned:", repr(tokenizer.decode([label for label in train_rows[0]["labels"] if label != -100])))

# %% [markdown] when packing
# ## Packing
#
# Short rows are joined up to the length. Each row's positions begin at 0, by which the model keeps the rows apart.

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
train_rows = trl.pack_dataset(Dataset.from_list(unlearned_starts), length, "bfd").to_list()
print(f"Packed into {len(train_rows)} rows.")

# %% [markdown]
# ## Training
#
# Rows of like length share a batch, in an order that the seed decides.
# The losses come out as in the run on the same kind of machine with the same versions, up to rounding.

# %%
steps_per_epoch = math.ceil(len(train_rows) / BATCH_SIZE)
steps = MAX_STEPS or max(1, math.ceil(steps_per_epoch * EPOCHS))
eval_every = EVAL_EVERY or max(1, math.ceil(steps / 5))


class ByLength(torch.utils.data.Sampler):
    """The order of the rows. It follows from the seed and the number of the epoch, whatever was drawn before."""

    def __init__(self, trainer: trl.SFTTrainer):
        self.trainer, self.lengths = trainer, [len(row["input_ids"]) for row in train_rows]

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self):
        epoch = self.trainer.state.global_step // steps_per_epoch
        generator = torch.Generator().manual_seed(SEED * 1_000_003 + epoch)
        return iter(get_length_grouped_indices(self.lengths, BATCH_SIZE, generator=generator))


class Trainer(trl.SFTTrainer):
    """TRL's trainer with that order. Without this class everything works too, with slightly other losses."""

    def _get_train_sampler(self, train_dataset=None) -> ByLength:
        return ByLength(self)


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
        elif step % eval_every == 0 or step == steps:
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
        max_steps=steps,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type=SCHEDULE,
        warmup_steps=WARMUP,  # below 1: a share of the steps
        weight_decay=WEIGHT_DECAY,
        neftune_noise_alpha=NEFTUNE_ALPHA,
        gradient_checkpointing=GRADIENT_CHECKPOINTING,
        bf16=gpu,
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
row = (held_out_texts or train_texts)[0]
turn = max(i for i, message in enumerate(row["messages"]) if message["role"] == "assistant")
thinks = any("</think>" in message["content"] for message in row["messages"] if message["role"] == "assistant")

# %% unless texts
prompt = token_ids(row["messages"][:turn], row.get("tools"), thinks, asks=True)

# %% when texts
prompt = token_ids(row["messages"][:turn], row.get("tools"), thinks, asks=True) if turn else opening()[0]

# %%


def answer(prompt: list[int]) -> str:
    """The model's answer to a prompt: at most 128 tokens, up to an end of turn."""
    asked = [{"role": "user", "content": "?"}]
    whole = token_ids([*asked, {"role": "assistant", "content": "!"}], None, False)
    configured = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, answer_ids(token_ids(asked, None, False, asks=True), whole)[0][-1]}
    ends |= set(configured) if isinstance(configured, list) else {configured}
    ends -= {None}
    greedy = transformers.GenerationConfig(
        max_new_tokens=128, do_sample=False, eos_token_id=sorted(ends), pad_token_id=min(ends)
    )
    ids = torch.tensor([prompt], device=model.device)
    model.eval()
    written = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=greedy)
    return tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True)


print("Prompt:  ", row["messages"][turn - 1]["content"] if turn else "")
print("Expected:", row["messages"][turn]["content"])
with model.disable_adapter():
    print("Base:    ", answer(prompt))
print("Tuned:   ", answer(prompt))

# %% [markdown]
# For questions of your own, begin with the system prompt the model was trained with.

# %%
question = [{"role": "user", "content": "Hello!"}]
if SYSTEM is not None:
    question = [{"role": "system", "content": SYSTEM}, *question]
print("Tuned:", answer(token_ids(question, None, False, asks=True)))
