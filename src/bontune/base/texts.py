"""Texts that any file and any terminal can take."""

from __future__ import annotations

import io
import sys


def readable(text: str) -> str:
    """The text with halves of characters (lone surrogates), which no file can hold, replaced by U+FFFD.

    Example:
        >>> ascii(readable("a" + chr(0xD83D)))
        "'a\\\\ufffd'"
    """
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def never_fail_to_print() -> None:
    """Let standard output and error write what their encoding lacks as an escape, such as ``\\u2026``, and go on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_unicode_output() -> bool:
    """Whether standard output takes every character."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def temperature_text(temperature: float) -> str:
    """A temperature as text, with one decimal at least.

    >>> temperature_text(1.0), temperature_text(0.85)
    ('1.0', '0.85')
    """
    text = f"{temperature:g}"
    return text if "." in text or "e" in text else f"{text}.0"
