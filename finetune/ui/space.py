"""What the page says at its top on a Space: that a restart loses everything."""

from finetune import settings
from finetune.ui.html import render

FORGETS = "This Space loses all data, runs and models when it restarts. Download what you want to keep."
NOTICES = "{% for sentence in sentences %}<p>{{ sentence }}</p>{% endfor %}"


def forgets() -> bool:
    """Whether what is made here has to be taken away before a restart."""
    return settings.forgets(settings.read().home)


def notices() -> str:
    """The sentences as HTML; none at home.

    Example:
        >>> notices()    # on a Space without storage of its own
        Markup("<p>This Space loses all data, …</p>")
    """
    return render(NOTICES, sentences=[FORGETS] if forgets() else [])
