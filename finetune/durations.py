"""Seconds as people read them: measured to the second, or as roughly as a forecast is known."""


def clock(seconds: float) -> str:
    """A time that was measured.

    Example:
        >>> clock(83), clock(3900)
        ('1 min 23 s', '1 h 05 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def roughly(seconds: float) -> str:
    """A time that was estimated.

    Example:
        >>> roughly(44), roughly(372), roughly(9000)
        ('40 s', '6 min', '2.5 h')
    """
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5)):.0f} s"
    return f"{max(1, round(seconds / 60))} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
