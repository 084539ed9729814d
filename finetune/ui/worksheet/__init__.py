"""The worksheet on the Start tab: whether fine-tuning is worth a try."""
