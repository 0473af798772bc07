"""Whether the Hugging Face hub can be reached, before its own client tries for most of a minute."""

from __future__ import annotations

import urllib.error
import urllib.request

TIMEOUT_S = 5.0
"""Seconds that the hub may take to answer at all."""


def why_unreachable() -> str | None:
    """Why the hub does not answer; None if it does, or if the user has said to work without it.

    Proxies of the environment are used.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return None
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return None  # it answered
    except (OSError, ValueError) as error:
        return f"{constants.ENDPOINT} cannot be reached ({getattr(error, 'reason', error)})"
    return None
