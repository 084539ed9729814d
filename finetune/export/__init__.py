"""A run, taken away: adapter, merged model, GGUF, card, bundle, script, Hub."""
