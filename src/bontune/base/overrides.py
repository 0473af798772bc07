"""Settings from YAML files and from ``key=value`` on a command line."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from bontune.base.errors import BontuneError

_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_LEADING_ZERO = re.compile(r"[-+]?0[\d_]+")
_NULLS = ("", "~", "null")
_TEXTS = ("run", "model", "template", "prompt", "answer", "stop", "path", "function")
"""Keys whose values are texts: ``run=5`` is a folder called 5."""
_ONE_WORD_IN_BRACKETS = re.compile(r"\[[^,\"'\[\]]*\]")
_CLOSING = {"{": "}", "[": "]", '"': '"', "'": "'"}
_ANY_TEXT = ("template", "prompt", "answer", "stop")
"""Keys whose values are texts in which braces and quotes may stand alone."""
_NO_SPACE = re.compile(r"\{\s*[\w'\"]+:[^\s:].*\}")
"""Matches a section whose colons have no space behind them, which YAML reads as keys without values."""
_WITH_ESCAPES = ("stop", "template")
"""Keys in which ``\\n`` and ``\\t`` on a command line mean a line break and a tab, which a shell hardly writes."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that occurs twice in one mapping, which YAML's own loader settles silently by the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                line = node.start_mark.line + 1
                raise yaml.YAMLError(f"the key {key!r} occurs twice in the section that starts in line {line}")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; none if it is empty.

    Raises:
        BontuneError: it is something else.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BontuneError(f"{path} is not valid YAML{where}: {error.problem or error.context}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BontuneError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if tree is not None and not isinstance(tree, dict):
        raise BontuneError(f"{path} must hold keys and values, got {type(tree).__name__}.")
    return tree or {}


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of the tree with ``a.b=value`` set.

    Values are YAML, except where people mean a text: ``#`` starts no comment, and ``007``, a date and ``{prompt}`` are
    texts. Quotes around a value are YAML's.

    Raises:
        BontuneError: an override is not ``key=value``.

    Example:
        >>> apply_overrides({"steps": 1}, ["steps=2", "lr=3e-4", "run=a #1", "task.template=### {prompt}"])
        {'steps': 2, 'lr': 0.0003, 'run': 'a #1', 'task': {'template': '### {prompt}'}}
    """
    tree = copy.deepcopy(tree)
    for override in overrides:
        key, equals, text = override.partition("=")
        *parents, leaf = key.split(".")
        if not equals or not leaf or not all(parents) or key != "".join(key.split()):
            raise BontuneError(
                f"{override!r} is not an override: write key=value without spaces around the equals sign, "
                "e.g. training.steps=50."
            )
        try:
            value = _plain(yaml.safe_load(text), text, is_text_key=leaf in _TEXTS)
        except yaml.YAMLError as error:
            _check_closed(key, text, error)
            value = text
        if value is text and _NO_SPACE.fullmatch(text.strip()) and leaf not in _TEXTS:
            raise BontuneError(f"{key}={text}: put a space behind each colon, as in {{name: jsonl, limit: 5}}.")
        if leaf in _WITH_ESCAPES and value is text:
            value = text.replace("\\n", "\n").replace("\\t", "\t")
        node = tree
        for parent in parents:
            if not isinstance(node.setdefault(parent, {}), dict):
                node[parent] = {}
            node = node[parent]
        node[leaf] = value
    return tree


def _check_closed(key: str, text: str, error: yaml.YAMLError) -> None:
    """Refuse a value that begins a section, a list or a quotation and does not end it; other texts are texts.

    Raises:
        BontuneError: it is such a value, and its key takes more than texts in which braces and quotes may stand.
    """
    closing = _CLOSING.get(text.lstrip()[:1])
    if closing is None or key.rpartition(".")[2] in _ANY_TEXT:
        return
    if text.rstrip().endswith(closing) and len(text.strip()) > 1:
        reason = getattr(error, "problem", None) or "it cannot be read"
        raise BontuneError(f"{key}={text} is not valid YAML: {reason}.")
    whole = f"close it, and put the whole into quotes, '{key}=…', where a shell would part it"
    raise BontuneError(f"{key}={text} begins with {text.lstrip()[0]} and has no {closing} at its end: {whole}.")


def _plain(value: Any, text: str, *, is_text_key: bool) -> Any:
    """What people mean by a value on a command line, which YAML reads otherwise here and there."""
    bare = text.strip()
    if is_text_key and (isinstance(value, (bool, int, float)) or _ONE_WORD_IN_BRACKETS.fullmatch(bare)):
        return text  # "[/INST]" ends a turn; a list of one text needs no brackets
    is_text = (
        (isinstance(value, str) and bare[0] not in "\"'")
        or (value is None and bare.lower() not in _NULLS)  # YAML saw a comment only
        or isinstance(value, date)
        or _LEADING_ZERO.fullmatch(bare) is not None
        or (isinstance(value, (dict, list)) and bare[0] not in "{[")  # "Q: 1"
        or (isinstance(value, dict) and bool(value) and all(inner is None for inner in value.values()))  # "{prompt}"
    )
    if not is_text:
        return value
    return float(text) if _EXPONENT.fullmatch(bare) else text


def flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """The values of a tree by their dotted names.

    >>> flat({"training": {"steps": 3}, "seed": 0})
    {'training.steps': 3, 'seed': 0}
    """
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return found
