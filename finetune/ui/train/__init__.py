"""The Train and Runs tabs: data and model, settings, cost, the live view, and every run so far."""
