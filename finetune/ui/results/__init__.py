"""The Results tab: the evaluation and its verdict."""
