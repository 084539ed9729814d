"""A finished run, taken away: as files that others load, and as a script that repeats it."""
