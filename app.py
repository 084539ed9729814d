"""The one entry, on a laptop and on a Hugging Face Space alike: ``python app.py``."""

from finetune.ui.launch import launch

if __name__ == "__main__":
    launch()
