"""Thoughts (reasoning) that a model writes before its answer, such as ``<think>…</think>``, are not part of the answer.

The answer is the text behind the last closing tag. A thought that is not closed, because the text was cut off, has
no answer. A tag between two quotation marks or backticks is a mention, and neither opens nor closes a thought.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeAlias

from bontune.base.errors import BontuneError, did_you_mean

Setting: TypeAlias = Literal["auto", "open", "none"] | Sequence[str] | Sequence[Sequence[str]]
"""The setting ``thoughts`` of a task; see :func:`thoughts_of`."""

TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<thoughts>", "</thoughts>"),
    ("<reason>", "</reason>"),
    ("<reasoning>", "</reasoning>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>", "<channel|>"),
    ("◁think▷", "◁/think▷"),
)
"""Opening and closing tags of models in use; capitals do not matter."""
_CHANNEL = r"<\|channel\|>\s*(?:analysis|commentary|final)\b[^<]{0,80}(?:<\|constrain\|>[^<]{0,80})?<\|message\|>"
"""Matches the header of a channel in OpenAI's Harmony format; all channels but the final one are thoughts."""
_END_OF_CHANNEL = "<|end|>"
_FINAL_CHANNEL = "<|end|><|start|>assistant<|channel|>final<|message|>"
_BARE_CHANNELS = re.compile(r"\s*analysis(?=[A-Za-z0-9\"'(*$\\])")
"""Matches the beginning of a Harmony text without its special tokens: ``analysisIt asks for…``."""
_BARE_FINAL = re.compile(r"assistant\s*final")
_CONTAINERS = tuple(
    (re.compile(rf"\s*{re.escape(opening)}", re.IGNORECASE), re.compile(re.escape(closing), re.IGNORECASE))
    for opening, closing in (
        ("<answer>", "</answer>"),
        ("<|begin_of_solution|>", "<|end_of_solution|>"),
        ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    )
)
_LAST_MARKS = ("<|end|>", "<|return|>")
_ANY, _HARMONY = -1, -2
_QUOTES = "\"'`"
_HANGING_SPACE = re.compile(r"(?:[^\S\n]*\n)+| (?=\S)")
_SPECIAL = frozenset(tag.casefold() for pair in TAGS for tag in pair) | {"<|channel|>", "<|message|>"}


def is_tag(token: str) -> bool:
    """Return whether a special token of a tokenizer marks thoughts, so that a text must keep it.

    Example:
        >>> is_tag("[THINK]"), is_tag("<|im_end|>")
        (True, False)
    """
    return token.casefold() in _SPECIAL


class Thoughts:
    """A reader that finds the answer behind the thoughts of a text."""

    def __init__(self, tags: Sequence[tuple[str, str]], *, are_open: bool = False, has_channels: bool = False) -> None:
        """
        Args:
            tags: opening and closing tags.
            are_open: whether every text begins within a thought, because its prompt has opened one.
            has_channels: whether the channels of OpenAI's Harmony format count, too.
        """
        self._marks = {opening.casefold(): (kind, False) for kind, (opening, _) in enumerate(tags)}
        self._marks |= {closing.casefold(): (kind, True) for kind, (_, closing) in enumerate(tags)}
        openings = [re.escape(opening) for opening, _ in tags] + ([_CHANNEL] if has_channels else [])
        others = [re.escape(closing) for _, closing in tags] + ([re.escape(_END_OF_CHANNEL)] if has_channels else [])
        self._tag = re.compile("|".join(openings + others), re.IGNORECASE)
        self._opening_at_end = re.compile(rf"({'|'.join(openings)})\s*\Z", re.IGNORECASE)
        words = {max(re.findall(r"\w+", mark), key=len, default=mark) for mark in self._marks} | (
            {"channel"} if has_channels else set()
        )
        self._words = [word for word in words if not any(other in word for other in words - {word})]
        self._are_open = are_open
        self._has_channels = has_channels

    def answer(self, text: str) -> str | None:
        r"""Return the text behind the thoughts without surrounding white space; the text itself if it has no thoughts.

        Returns:
            The answer; None if a thought is not closed.

        Example:
            >>> thoughts = thoughts_of("auto")
            >>> thoughts.answer("<think>4, or \\boxed{5}?</think>\nIt is 4."), thoughts.answer("<think>It is 4")
            ('It is 4.', None)
        """
        start = self.start_of_answer(text)
        if start is None:
            return None
        return _unpacked(text[start:]) if start else text

    def start_of_answer(self, text: str) -> int | None:
        """Return the position behind the last closing tag; 0 without thoughts, None if a thought is not closed."""
        if self._has_channels and _BARE_CHANNELS.match(text):
            final = list(_BARE_FINAL.finditer(text))
            return final[-1].end() if final else None
        folded = text.casefold()
        if not any(word in folded for word in self._words):  # cheap, and mostly there is none
            return None if self._are_open else 0
        start, is_open, kind = 0, self._are_open, _ANY
        for tag in self._tag.finditer(text):
            before, after = text[tag.start() - 1 : tag.start()], text[tag.end() : tag.end() + 1]
            if before and before == after and before in _QUOTES:
                continue
            kind_of, closes = self._marks.get(tag[0].casefold()) or _channel_mark(tag[0])
            if not closes:
                is_open, kind = True, kind if is_open else kind_of
            elif (kind in (_ANY, kind_of)) if is_open else tag[0] != _END_OF_CHANNEL:
                start, is_open = tag.end(), False
        return None if is_open else start

    def opened_by(self, prompt: str) -> str:
        """Return the opening tag at the end of a prompt, which some chat templates write; "" if there is none.

        Example:
            >>> thoughts_of("auto").opened_by("<|user|>2+2?<|assistant|><think>\\n")
            '<think>'
        """
        match = self._opening_at_end.search(prompt[-300:])
        return match[1] if match and not (self._marks.get(match[1].casefold()) or _channel_mark(match[1]))[1] else ""

    def closing_after(self, prompt: str) -> str:
        """Return the tag that closes the thought which a prompt opens; "" if the prompt opens none.

        Example:
            >>> thoughts_of("auto").closing_after("2+2?<think>\\n")
            '</think>'
        """
        opened = self.opened_by(prompt).casefold()
        if not opened:
            return ""
        kind = self._marks.get(opened, (_HARMONY, False))
        return next((mark for mark, of in self._marks.items() if of == (kind[0], True)), _FINAL_CHANNEL)


def thoughts_of(setting: Setting | None) -> Thoughts | None:
    """Return the reader for a task's setting ``thoughts``; None for texts that are taken as they are.

    Args:
        setting: ``auto``: the tags of :data:`TAGS` and Harmony's channels; ``open``: the same, and every completion
            begins within a thought; an opening and a closing tag, or several such pairs: these alone; ``none`` or None:
            texts are taken as they are.

    Raises:
        BontuneError: another setting.

    Example:
        >>> thoughts_of(["<a>", "</a>"]).answer("<a>5</a> 4"), thoughts_of("none")
        ('4', None)
    """
    if setting is None or setting in ("auto", "open", "none"):
        return _named(str(setting or "none"))
    pairs: list[object] = []
    if isinstance(setting, (list, tuple)):
        pairs = [setting] if all(isinstance(tag, str) for tag in setting) else list(setting)
    tags = [pair for pair in map(_pair, pairs) if pair is not None]
    if not tags or len(tags) < len(pairs):
        hint = did_you_mean(setting, ["auto", "open", "none"]) if isinstance(setting, str) else ""
        raise BontuneError(
            f"The setting thoughts cannot be {setting!r}{hint}; it is auto, open, none, or pairs of an opening and "
            "a closing tag."
        )
    return Thoughts(tags)


def _pair(tags: object) -> tuple[str, str] | None:
    """Return an opening and a closing tag; None if ``tags`` is not such a pair."""
    if not isinstance(tags, (list, tuple)) or len(tags) != 2 or not all(isinstance(tag, str) and tag for tag in tags):
        return None
    return str(tags[0]), str(tags[1])


@lru_cache(maxsize=4)
def _named(setting: str) -> Thoughts | None:
    return None if setting == "none" else Thoughts(TAGS, are_open=setting == "open", has_channels=True)


def answer_behind(text: str) -> str | None:
    """Return the answer of a text whose thoughts any of the known tags mark; None if a thought is not closed.

    Example:
        >>> answer_behind("[THINK]5?[/THINK]4"), answer_behind("4"), answer_behind("<think>4")
        ('4', '4', None)
    """
    thoughts = _named("auto")
    assert thoughts is not None
    return thoughts.answer(text)


def _channel_mark(tag: str) -> tuple[int, bool]:
    """Return the kind of a Harmony mark, and whether it closes a thought."""
    return _HARMONY, tag == _END_OF_CHANNEL or "final" in tag.casefold()


def _unpacked(text: str) -> str:
    """Strip an answer's own tags and white space; the first line keeps its indentation."""
    for opening, closing in _CONTAINERS:
        begun = opening.match(text)
        if begun:
            text = closing.split(text[begun.end() :], maxsplit=1)[0]
    hanging = _HANGING_SPACE.match(text)
    text = text[hanging.end() if hanging else 0 :].rstrip()
    for mark in _LAST_MARKS:
        text = text.removesuffix(mark).rstrip()
    return text
