"""What a judge's reply says: a score from 0 to 10, or yes or no.

A judge may quote the completion, explain its scale, list criteria and count steps. A number is its score only where the
reply says so: where nothing else is on the line, where a scale of ten follows, or behind a word such as "Score". Where
a reply leaves it open there is no score, and the judge is asked again.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

from bontune.base.thoughts import answer_behind, thoughts_of
from bontune.grading.answers.notation import plain

HIGHEST = 10.0
_QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”|«[^»\n]*»|`[^`\n]*`|(?<![A-Za-z0-9])'[^'\n]*'(?![A-Za-z0-9])")
_JSON_KEY = re.compile(r"[\"'](\w{0,20}(?:score|rating|grade))[\"']\s*:\s*[\"']?", re.IGNORECASE)
_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf|left|right|fbox)(?![A-Za-z])|\\[()\[\],;! ]|[{}$*_|#]"), " "),
    (re.compile(r"\\(?=[/%])"), ""),
    (re.compile(r"</?[A-Za-z_]{1,20}>"), " "),
)
_REMARK = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_NUMBERED = re.compile(r"\A\s*(?:[0-9]{1,2}[.)]|[-+>•●]+)\s+(?=\S)")
_VALUE = r"(?<![\w.,/])(?<![0-9]-)-?[0-9]+(?:[.,][0-9]{1,2})?(?![\w%]|[.,]?[0-9])"
_TEN = r"10(?:[.,]0{1,2})?(?![\w%/]|[.,]?[0-9])"
_OF = (
    r"\s*(?:points?|pts\.?|stars?|marks?)?\s*(?:/|out\s+of|of|on\s+a\s+scale\s+of)\s*(?:a\s+)?"
    r"(?:(?:possible|maximum|total|full)\s+)?(?:of\s+)?"
)
_RANGE = re.compile(
    r"(?:(?:on|in)\s+(?:a|the)\s+scale\s+(?:of|from)\s+|\b(?:from|between)\s+)?(?<![\w.,])[01]\s*(?:-|to|and|\.\.\.?)\s*"
    rf"{_TEN}",
    re.IGNORECASE,
)
_SCALE_ALONE = re.compile(rf"(?<![0-9])(?<![0-9] )(?:/|\bout\s+of|\bon\s+a\s+scale\s+of)\s*{_TEN}", re.IGNORECASE)
_SCALED = re.compile(rf"({_VALUE}){_OF}([0-9]+(?:[.,][0-9]{{1,2}})?)", re.IGNORECASE)
_NUMBER = re.compile(_VALUE)
_SPREAD = re.compile(r"[0-9]\s*(?:-|to|or|and|±)\s*[0-9]")
_LABEL = re.compile(
    r"\s*(?:(?:so|thus|hence|therefore|my|the|a|an|i|would|give|it|this|answer|final|overall|total|combined|average|resulting)"
    r"[\s,]+){0,6}?"
    r"(?P<strong>final|overall|total)?\s*(?:score|rating|grade|mark|verdict|total|overall|result|evaluation|assessment)\b"
    r"(?:\s+(?:is|of|for|the|this|a|an|answer|proposed|completion|solution|would|be))*\s*[:=\-]*\s*(?:of\s+|a\s+)?(?=-?[0-9])",
    re.IGNORECASE,
)
_CRITERION = re.compile(r"\s*[A-Za-z]{4,}(?:\s+\w+){0,2}\s*:")
_NOT_SAID = re.compile(
    r"\s*(?:is|are|being|means|would|will|if|for|when|=|or|to|and|-\s*[0-9]|±|\+)(?![A-Za-z])", re.IGNORECASE
)


def read_score(reply: str) -> float | None:
    """The score from 0 to 10 that a reply gives behind its thoughts; None where it gives none, or leaves it open.

    It is looked for in the last line that has a number; where that line is an explanation, in a first line such as
    "Score: 7", or in the one line with a total.

    Example:
        >>> read_score("2 + 2 is 4, so it is right.\\n\\n**Score: 9.5/10**"), read_score("3 (0 = wrong, 10 = right)")
        (9.5, 3.0)
        >>> read_score("It is 11 of 10!"), read_score("I cannot say."), read_score("<think>Perhaps 8")
        (None, None, None)
    """
    answer = answer_behind(reply)
    lines = [line for line in map(_bare, (answer or "").splitlines()) if line.strip()]
    numbered = [line for line in lines if _NUMBER.search(line)]
    if not numbered:
        return None
    last, before = numbered[-1], numbered[:-1]
    is_said, value = _said(last)
    is_one_of_several = _CRITERION.match(last) and any(_SCALED.search(line) or _LABEL.match(line) for line in before)
    if is_said and (_LABEL.match(last) or not is_one_of_several):
        is_contradicted = before and _LABEL.match(lines[0]) and _said(lines[0])[1] not in (None, value)
        return None if is_contradicted else value  # the later number may be what the completion asked for
    if _LABEL.match(lines[0]) or not re.search(r"[A-Za-z]", lines[0]):
        return _said(lines[0])[1]
    totals = [line for line in numbered if (label := _LABEL.match(line)) and _is_total(label[0])]
    return _said(totals[0])[1] if len(totals) == 1 else None


def read_cut_score(reply: str) -> float | None:
    """The score in a reply that was cut off: one that is labelled, on a line before the last one.

    Example:
        >>> read_cut_score("Score: 7\\nThe reasoning"), read_cut_score("Score: 1")
        (7.0, None)
    """
    answer = answer_behind(reply)
    lines = [line for line in map(_bare, (answer or "").splitlines()[:-1]) if line.strip()]
    return _said(lines[0])[1] if lines and _LABEL.match(lines[0]) else None


def read_yes_no(reply: str, *, is_cut: bool = False) -> float | None:
    """1 or 0 for a reply whose first or last word is yes or no; None for others, and where the two disagree.

    Args:
        reply: what the judge wrote; its thoughts do not count.
        is_cut: whether it was cut off, so that its last word is none.

    Example:
        >>> read_yes_no("**Yes**, it is."), read_yes_no("Not sure."), read_yes_no("So the answer is: no.")
        (1.0, None, 0.0)
    """
    found = _yes_or_no(reply, is_cut)
    return None if found is None else {"yes": 1.0, "no": 0.0}[reply[slice(*found)].casefold()]


def yes_probability(logprobs: Any, *, is_cut: bool = False) -> float | None:
    """P(Yes) / (P(Yes) + P(No)) at the token that says yes or no, as :func:`read_yes_no` finds it; None if untold."""
    tokens = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    if not isinstance(tokens, list):
        return None
    texts = [str(token.get("token", "")) for token in tokens]
    found = _yes_or_no("".join(texts), is_cut)
    if found is None:
        return None
    ends = itertools.accumulate(map(len, texts))
    token = next(token for token, end in zip(tokens, ends, strict=True) if end > found[0])
    mass = {"yes": 0.0, "no": 0.0}
    for candidate in token.get("top_logprobs") or [token]:
        logprob = candidate.get("logprob")
        if _word(candidate) in mass and isinstance(logprob, (int, float)) and logprob <= 0:
            mass[_word(candidate)] += math.exp(logprob)
    total = mass["yes"] + mass["no"]
    return mass["yes"] / total if total > 0 else None


def _yes_or_no(reply: str, is_cut: bool) -> tuple[int, int] | None:
    """Where a reply says yes or no."""
    thoughts = thoughts_of("auto")
    assert thoughts is not None
    start = thoughts.start_of_answer(reply)
    words = [] if start is None else list(re.compile(r"[A-Za-z]+").finditer(reply, start))
    said = [word for word in (words[:1] if is_cut else words[:1] + words[-1:]) if word[0].casefold() in ("yes", "no")]
    return said[0].span() if len({word[0].casefold() for word in said}) == 1 else None


def _word(token: Mapping[str, Any]) -> str:
    return str(token.get("token", "")).strip(' "*.,\n').casefold()


def _bare(line: str) -> str:
    """A line without markup, quotations, the bounds of the scale and, if there is a number beside them, remarks."""
    line = _JSON_KEY.sub(r"\1: ", plain(line))
    for pattern, replacement in _LATEX:
        line = pattern.sub(replacement, line)
    line = _QUOTED.sub(" ", line) if _QUOTED.sub("", line).strip(" .,") else line
    line = _NUMBERED.sub("", line, count=1)
    for _ in range(3):  # [[8]]
        without = _REMARK.sub(" ", line)
        line = without if _NUMBER.search(without) else re.sub(r"[()\[\]]", " ", line, count=2)
    return _SCALE_ALONE.sub(" ", _RANGE.sub(" ", line))


def _said(line: str) -> tuple[bool, float | None]:
    """Whether a line gives a score, and the score; None for one out of ten's range or on another scale."""
    scaled = list(_SCALED.finditer(line))
    label = _LABEL.match(line)
    rest = line[label.end() :] if label else line
    first = _NUMBER.match(rest.lstrip()) if label else None
    if first and not _NOT_SAID.match(rest.lstrip()[first.end() :]):
        whole = _SCALED.match(rest.lstrip())
        return True, _value(whole[1] if whole else first[0], whole[2] if whole else "10")
    if len(scaled) == 1:  # on another scale it may be one of several criteria
        return float(scaled[0][2].replace(",", ".")) == HIGHEST, _value(scaled[0][1], scaled[0][2])
    numbers = _NUMBER.findall(line)
    if scaled or not numbers or _SPREAD.search(line):
        return False, None
    text = line.strip().strip(".,:;!\"'= ")
    if len(numbers) == 1:
        return (text.startswith(numbers[0]) or text.endswith(numbers[0])), _value(numbers[0], "10")
    is_last = set(numbers[:-1]) <= {"0", "10"} and numbers[-1] not in ("0", "10")  # the others are the scale's bounds
    return is_last and text.endswith(numbers[-1]), _value(numbers[-1], "10")


def _is_total(label: str) -> bool:
    return re.search(r"final|overall|total", label, re.IGNORECASE) is not None


def _value(number: str, scale: str) -> float | None:
    value = float(number.replace(",", "."))
    return value if 0 <= value <= HIGHEST and float(scale.replace(",", ".")) == HIGHEST else None
