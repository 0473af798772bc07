"""Characters that look like a keyboard's, or like nothing, put into the keyboard's: dashes, spaces, wide signs."""

from __future__ import annotations

DASHES = "\u2010\u2011\u2012\u2013\u2212\u02d7\u2796\ufe63\uff0d"
"""Characters that stand for a minus sign; an em dash is punctuation and no sign."""
INVISIBLE = (
    "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064"
    "\u2066\u2067\u2068\u2069\ufe0e\ufe0f\ufeff"
)
"""Characters of no width, such as marks of direction and invisible operators."""
SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
"""Spaces of other widths, or at which no line breaks."""

_WIDE_SIGNS = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if not chr(code - 0xFEE0).isalnum()}
_WIDE_DIGITS = {code: chr(code - 0xFEE0) for code in range(0xFF10, 0xFF1A)}
TABLE: dict[int, str] = {
    **_WIDE_SIGNS,
    0x3001: ",",
    0x3002: ".",
    **{ord(dash): "-" for dash in DASHES},
    **{ord(space): " " for space in SPACES},
    **dict.fromkeys(map(ord, INVISIBLE), ""),
}
_WITH_DIGITS = TABLE | _WIDE_DIGITS


def plain(text: str) -> str:
    """The text in the keyboard's characters, as far as signs, spaces and digits of another width go.

    Example:
        >>> plain("\\u22125\\u00a0000\\uff05"), plain("\\uff14\\uff12"), plain("4\\u200b2")
        ('-5 000%', '42', '42')
    """
    return text if text.isascii() else text.translate(_WITH_DIGITS)
