"""The Chat tab: base and tuned answer side by side, and the blind test."""
