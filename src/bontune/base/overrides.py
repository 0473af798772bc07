"""Settings from YAML files and from ``key=value`` on a command line."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from bontune.base.errors import BontuneError

_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; none if it is empty.

    Raises:
        BontuneError: it is something else.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BontuneError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if tree is not None and not isinstance(tree, dict):
        raise BontuneError(f"{path} must hold keys and values, got {type(tree).__name__}.")
    return tree or {}


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of the tree with ``a.b=value`` set."""
    tree = copy.deepcopy(tree)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise BontuneError(f"{override!r} is not an override: write key=value, e.g. training.steps=50.")
        try:
            value = _plain(yaml.safe_load(text), text)
        except yaml.YAMLError:
            value = text
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            if not isinstance(node.setdefault(parent, {}), dict):
                node[parent] = {}
            node = node[parent]
        node[leaf] = value
    return tree


def _plain(value: Any, text: str) -> Any:
    """YAML reads 3e-4 as text, 2024-01-31 as a date and "Q: 1" as a mapping; people mean the number and the texts."""
    is_block = isinstance(value, (dict, list)) and text.lstrip()[0] not in "{["
    if isinstance(value, date) or is_block:
        return text
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return value
