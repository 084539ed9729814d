"""A spreadsheet's cell as it is shown (0042, 25 %), not as it is stored (42, 0.25): number formats, dates, escapes."""

import datetime
import decimal
import re
from decimal import Decimal
from typing import Any

NUMBER = re.compile(
    r"""((?:"[^"]*"|\\.|[^0#?,.%;"\\\[])*)"""
    r"""([0#?](?:[0#?,]*[0#?])?)(,*)(?:\.([0#?]+)(,*))?((?:\\?[ ])?%)?"""
    r"""((?:"[^"]*"|\\.|[^0#?,.%;"\\\[])*)(?:;.*)?""",
    re.DOTALL,
)
"""A number format that can be followed: what stands before, digits, commas that divide by a thousand each, decimals and
more such commas, a per cent sign, what stands after. What comes after a semicolon is for other numbers."""
LONGEST_FORMAT = 255
"""Characters of a number format, as in Excel itself; a file may claim one of millions."""
DRESSING = re.compile(r'("[^"]*"|\\.)|\[\$([^\]\[-]*)(?:-[^\]\[]*)?\]|\[[^\]\[<>=]*\]|_.|\*.', re.DOTALL)
"""Colours, locales, and space as wide as a character: nothing that is shown as text, but for the currency in a locale
([$£-809]). Texts in quotes are found first, as they may hold the same characters. A condition ([>=1000]) is left, with
which the format cannot be followed."""
EXACT = decimal.Context(prec=5_000, rounding=decimal.ROUND_HALF_UP)
"""Rounds as Excel does, in more digits than any number and format have (4,300 and 255)."""
SMALLEST, LARGEST = 1e-9, 1e21
"""Excel writes the numbers below and from here on with an exponent."""
ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


def shown(value: Any, form: str) -> str:
    """A cell as the spreadsheet shows it, where its number format is a simple one.

    Example:
        >>> shown(42, "0000"), shown(0.25, "0 %"), shown(1234.5, '#,##0.00 "€"'), shown(42, "General")
        ('0042', '25 %', '1,234.50 €', '42')
    """
    if form in ("", "General", "@") or isinstance(value, bool) or not isinstance(value, int | float):
        return cell_text(value)
    short = form if len(form) <= LONGEST_FORMAT else ""
    found = NUMBER.fullmatch(DRESSING.sub(lambda part: part[1] or (f'"{part[2]}"' if part[2] else ""), short))
    number = Decimal(value if isinstance(value, int) else f"{value:.15g}").copy_abs()
    if not found or not number.is_finite():
        return cell_text(value)
    before, digits, thousands, decimals, more, percent, after = found.groups(default="")
    number = EXACT.scaleb(number, (2 if percent else 0) - 3 * len(thousands + more))
    whole, _, rest = f"{EXACT.quantize(number, Decimal(1).scaleb(-len(decimals))):f}".partition(".")
    rest = rest.rstrip("0").ljust(decimals.count("0"), "0")
    whole = whole.zfill(digits.count("0"))
    if "," in digits:
        whole = f"{Decimal(whole):,f}"
    sign = "-" if value < 0 else ""
    return sign + _plain(before) + whole + (f".{rest}" if rest else "") + _plain(percent) + _plain(after)


def _plain(part: str) -> str:
    return part.replace('"', "").replace("\\", "")


def cell_text(value: Any) -> str:
    """A cell as a CSV export would write it.

    Example:
        >>> [cell_text(value) for value in (None, 3.0, 0.1 + 0.2, True, datetime.datetime(2024, 5, 1))]
        ['', '3', '0.3', 'TRUE', '2024-05-01']
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return ESCAPED.sub(_unescaped, value).replace("\r\n", "\n")
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):  # Excel has fifteen digits, the rest is noise (17.990000000000002)
        short = f"{value or 0:.15G}"
        return f"{Decimal(short):f}" if not value or SMALLEST <= abs(value) < LARGEST else short
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat().removesuffix("T00:00:00")
    return str(value)


def _unescaped(found: re.Match[str]) -> str:
    """A character as it is, which Excel writes as _x000D_; but none that no text should hold (NUL, half a pair)."""
    code = int(found[1], 16)
    return found[0] if code == 0 or 0xD800 <= code < 0xE000 else chr(code)
