"""The Models, Train and Runs tabs: settings, cost, the live view, and every run so far."""
