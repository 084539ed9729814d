"""A large batch is trained on a few rows at a time, and the gradients added: the same update in less memory.

For each token that is read, what every layer makes of it is kept until the gradients are there: 2.6 MB with the default
model, more than its weights for a batch of 8 long rows. The sum over the rows is the same in any order, so those of
like length are read together, which saves padding as well.
"""

from finetune.train.alike import Batch

MOST_TOKENS = 384
"""Tokens read at once: enough for a CPU to multiply at its full speed."""


def parts(batch: Batch, most: int = MOST_TOKENS, shared: int = 0) -> list[Batch]:
    """The batch in as few parts as have at most so many tokens each, padding included, the `shared` ones aside.

    `batch` has tensors of (rows, length), padded on the right; each part is cut to its longest row.

    Example:
        >>> [one["input_ids"].shape for one in parts(batch_of_8_rows_of_96_tokens)]
        [(4, 96), (4, 96)]
    """
    lengths = batch["attention_mask"].sum(1).tolist()
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and (len(groups[-1]) + 1) * (lengths[row] - shared) <= most:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [batch] if len(groups) == 1 else [_cut(batch, rows, lengths[rows[-1]]) for rows in groups]


def _cut(batch: Batch, rows: list[int], length: int) -> Batch:
    return {name: values[rows, :length] for name, values in batch.items()}
