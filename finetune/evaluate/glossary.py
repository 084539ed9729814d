"""The field's terms in plain words, at most two sentences each."""

WORDS = {
    "fine-tuning": "Training a finished model a little further, on your own examples, so that it answers as they do.",
    "LoRA": "Trains small extra matrices alongside the model's own weights, which stay as they are. "
    "That needs far less memory, and the extra matrices can be removed again.",
    "adapter": "The file with what a LoRA run learned. It works only together with the base it was trained on.",
    "epoch": "One pass over all training examples. Two or three are usual; many more lead to memorising.",
    "overfitting": "Memorising the training examples instead of learning what they have in common. "
    "The sign: loss still falls on them but rises on held-out rows.",
    "held-out": "Rows kept out of training and used to test it afterwards. "
    "Only they show what was learned rather than memorised.",
    "few-shot": "Putting a few examples into the prompt, with no training. Every call then carries their tokens.",
    "retrieval": "For each question, putting the most similar training rows into its prompt.",
    "loss": "How surprised the model is by the expected answer, per token. "
    "Lower is better; 0 would be complete certainty.",
    "interval": "A range that contains the true value in 95 of 100 such measurements. "
    "If it includes 0, the difference may be chance.",
    "macro F1": "How well each label is given wherever it belongs and only there, averaged over the labels (1 is best)."
    " Rare labels count as much as common ones.",
    "token": "A piece of text, often part of a word. Models read and write tokens, and are billed per token.",
}
