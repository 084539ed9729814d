"""``python -m finetune`` is the command line of Before & After."""

import sys

from finetune.cli import main

sys.exit(main())
