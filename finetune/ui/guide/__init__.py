"""The Guide tab: whether fine-tuning is worth a try, and the worksheet to take away."""
