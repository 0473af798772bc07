"""JSON from files of anybody's: in one sentence what is wrong with it, and never a key that is settled silently."""

from __future__ import annotations

import json
from typing import Any

from bontune.base.cells import repeated
from bontune.base.errors import BontuneError


def parse_json(content: bytes, place: str) -> Any:
    """Parse JSON in UTF-8, with or without a byte order mark.

    Args:
        content: the JSON.
        place: what the message calls it, such as ``file, line 3``.

    Raises:
        BontuneError: it is none, is not UTF-8, is beyond what Python reads, or an object has a key twice.
    """
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        line = f" in line {error.lineno}" if error.lineno > 1 else ""
        raise BontuneError(f"{place} is not JSON{line}: {error.msg} at column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise BontuneError(f"{place} is not UTF-8: byte {error.start + 1}") from error
    except _RepeatedKey as error:
        raise BontuneError(f"{place}: the key {error.args[0]!r} occurs twice in one object; remove one") from None
    except (ValueError, RecursionError) as error:
        raise BontuneError(f"{place} holds JSON beyond what Python reads: {error}") from error


class _RepeatedKey(ValueError):
    """An object has this key twice."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _RepeatedKey(repeated([key for key, _ in pairs]))
    return found
