"""The one entry, on a laptop and on a Hugging Face Space alike: ``python app.py``."""

import sys

from finetune.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
