"""A run, taken away: adapter, merged model, GGUF, bundle, script, Hub; each with its card, loaded again and asked."""
