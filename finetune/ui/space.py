"""What the page says at its top on a Space: that a restart loses everything, and that ZeroGPU does not train."""

from finetune import settings, train
from finetune.errors import NotAllowed
from finetune.ui.html import card, render

FORGETS = "This Space loses all data, runs and models when it restarts. Download what you want to keep."
NOTICES = "{% for sentence in sentences %}<p>{{ sentence }}</p>{% endfor %}"


def forgets() -> bool:
    """Whether what is made here has to be taken away before a restart."""
    return settings.forgets(settings.read().home)


def notices() -> str:
    """The sentences as HTML; none at home.

    Example:
        >>> notices()    # on a Space without storage of its own
        Markup("<div …><p>This Space loses all data, …</p></div>")
    """
    sentences = [FORGETS] if forgets() else []
    try:
        train.refuse_zero_gpu()
    except NotAllowed as refusal:
        sentences += [refusal.what, refusal.fix]
    return card(render(NOTICES, sentences=sentences)) if sentences else ""
