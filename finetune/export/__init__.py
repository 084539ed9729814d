"""A run becomes files that others can use: adapter, merged model, GGUF, Hub repo, bundle, script."""
