"""The merged model as a GGUF file, and the LoRA alone as a GGUF adapter, with what llama.cpp and Ollama need beside."""

from finetune.export.gguf.lora import write_gguf_lora
from finetune.export.gguf.model import write_gguf

__all__ = ["write_gguf", "write_gguf_lora"]
