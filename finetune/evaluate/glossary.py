"""The terms of the field in plain words, at most two sentences each."""

WORDS = {
    "LoRA": "Instead of changing the model's own weights, small extra matrices are trained beside them. "
    "That needs far less memory, and they can be taken off again.",
    "adapter": "The file with what a LoRA run learned. It works only together with the base it was trained on.",
    "epoch": "One pass over all training examples. Two or three are usual; many more tend to be learned by rote.",
    "overfitting": "Learning the training examples by heart instead of what they have in common. "
    "It shows when the loss still falls on them but rises on held-out rows.",
    "held-out": "Rows kept out of training and asked afterwards. Only they show what was learned, not remembered.",
    "few-shot": "Putting a few examples into the prompt, with no training. Every call then carries their tokens.",
    "retrieval": "Putting the training rows most similar to the question into its prompt, anew for each question.",
    "loss": "How surprised the model is by the expected answer, per token. Lower is better; 0 would be certainty.",
    "interval": "Where the true value lies in 95 of 100 such measurements. If it holds 0, it may be chance.",
    "token": "A piece of text, often a part of a word; models read, write and are paid by them.",
}
