"""Whether there is a GPU for a model. On ZeroGPU PyTorch says so in every process, and only a lent one has it."""

from finetune import settings

_lent = False


def lend() -> None:
    """Note that this process has the GPU of a ZeroGPU Space."""
    global _lent
    _lent = True


def has_gpu() -> bool:
    """Whether a model goes to a GPU in this process.

    Example:
        >>> has_gpu()    # in the server of a ZeroGPU Space, where torch.cuda.is_available() is True
        False
    """
    import torch

    return torch.cuda.is_available() and (_lent or not settings.zero_gpu())
