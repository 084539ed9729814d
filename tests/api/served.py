"""``python -m tests.api.served PORT``: the real server, whose workers need not import PyTorch first."""

import sys

from finetune import server, train
from tests.zygote import ForkingSupervisor

if __name__ == "__main__":
    train.Supervisor = ForkingSupervisor  # type: ignore[misc]
    server.launch(port=int(sys.argv[1]))
