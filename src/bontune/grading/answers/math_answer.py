r"""Is a mathematical answer right? For answers as in MATH and GSM8K: short, in LaTeX, with an exact value.

An answer is a bare text, one between dollar signs, or a whole completion with a ``\boxed{…}``, of which the last box
counts and nothing else; without a box, what the last "final answer is" states up to the end of its sentence. What
stands within ``<think>…</think>`` and its like is no part of it. It is compared in this order: the same text up to
notation; exact arithmetic (``values``), element by element where there are several; a proof of difference by
numbers with error bounds (``approximate``); and what is left (sines, logarithms, nested roots) by sympy in a worker
process that is killed after 3 seconds (``symbolic_worker``). No text of a model's is ever evaluated as code.

**What is equal to what**

*Values.* Equal if their exact values are: ``0.5``, ``1/2``, ``\frac12``, ``\dfrac{2}{4}``. Never by rounding:
``0.333`` is not ``1/3``, ``1.414`` is not ``\sqrt2``. An unevaluated closed form has the value it has: ``\sqrt{16}`` is
``4``, ``\binom52`` is ``10``. But a sum, product, integral, limit, maximum … left unevaluated restates the problem and
is wrong unless the gold is the same text.
Numbers beyond 10,000 digits are not computed: such an answer is wrong unless it is the gold's text.
``1\frac23`` and ``1 2/3`` are mixed numbers (a natural number before a proper fraction), ``0.\overline{3}`` repeats.
Thousands: ``10,000``, ``10{,}000``, ``10\,000`` (groups of three; inside brackets a plain comma always separates).
``10 000`` outside brackets, too; ``¾`` is a fraction. In a text without LaTeX commands ``sqrt(3)``, ``2**(1/4)`` and
``pi`` are what they are in programs, and ``1e6`` is a number.
Digits of other scripts are no digits, but those of full width are. An en dash between two numbers is a range,
not a minus sign: ``5–7`` is not ``-2``. Letters are what they are called, case included; where a root is taken they
stand for positive numbers (``\sqrt{x^2}`` is ``x``, ``|x|`` is not).

*Several values.* ``1, 2`` is a list in any order, also ``\{1,2\}``, ``1\text{ and }2``, ``x=1\text{ or }x=2``;
``\pm`` is two values. Each must have its equal, no more and no fewer: ``42\text{ or }17`` is not ``42``, nor is
``42,42``. ``(1,2)`` is a tuple: ordered, and neither a list nor a set, nor a matrix. ``[1,2)`` is an interval: its ends
and both brackets count, so ``(1,2)`` and ``[1,2]`` differ. Inequalities in one letter are intervals (``x>3``,
``1\le x<2``, ``-2x>-6``), and ``x\in[1,2]`` is ``[1,2]``. Unions are in any order, and ``x<1\text{ or }x>2`` is one.
Matrices (``pmatrix``, ``bmatrix``, ``[1,2;3,4]``) are compared cell by cell.

*Names and equations.* ``x=5`` is ``5``; ``x=5`` is not ``y=5``. ``2+3=5`` is ``5``, as all its sides are equal.
Equations are equal if they differ by a constant factor when all is on one side; an equation is not its solution. A gold
with a sum or the like left in it is compared up to the order of terms and factors (``compare``).

*Units.* A unit of a closed list (``units.py``: measures, currencies, ``%``, degrees, things that are counted) may be
there or not; two different units are different answers (``5`` cm and ``5`` m). Percent is a unit: ``27\%`` is
``27`` and not ``0.27``. Outside a sine, degrees are a unit: ``60^\circ`` is ``60`` and not ``\pi/3``. Words that are
no unit make an answer wrong (``3\text{ or more}``), unless they are the gold's own.

*Words.* ``\text{(A)}``, ``(A)``, ``\textbf{A}`` and ``A`` are one choice. Longer words are equal up to case, fonts and
a final full stop.

*Other bases.* ``2021_3`` is only ``2021_3``: neither ``61`` nor ``2021``; base 10 may be left out.

An empty answer is wrong (it equals an empty gold only), and so is one above 2,000 characters, 50 levels or 100
elements that is not the gold's own text. The machine's load matters only where a worker is killed at its deadline.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from bontune.base.thoughts import answer_behind
from bontune.grading.answers.compare import Pairs, can_be_equal, unordered_form
from bontune.grading.answers.expression import UNEVALUATED, UnknownNotation, Unreadable
from bontune.grading.answers.notation import RANGE_DASH, clean, extract_statement, has_box, last_box
from bontune.grading.answers.structure import Answer, read_answer
from bontune.grading.verdict import Judgement, Verdict
from bontune.grading.workers import Ending, WorkerPool

MAX_ANSWER_LENGTH = 2_000
NUM_WORKERS = 2
CACHE_SIZE = 100_000
"""(gold, prediction) pairs whose verdict is kept; then it starts anew."""

_FOREIGN = re.compile(r"[A-Za-z0-9\\{}()^_+\-*/ ]{1,500}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
POOL = WorkerPool(f"{Path(__file__).with_name('symbolic_worker.py')}:decide", num_workers=NUM_WORKERS, timeout_s=3.0)
"""Workers that sympy runs in; no process is started before it is needed."""
_ENDINGS = {Ending.TIMEOUT: Verdict.TIMEOUT, Ending.CRASHED: Verdict.CRASHED, Ending.ERROR: Verdict.GRADER_ERROR}


_EQUAL = Judgement(verdict=Verdict.PASSED)
_CACHE: dict[tuple[str, str | None], Judgement] = {}


def extract_answer(text: str) -> str | None:
    r"""The content of the last ``\boxed{…}`` or ``\fbox{…}`` behind the thoughts of a completion.

    Earlier boxes do not count, and neither do those in ``<think>…</think>`` and its like. A last box or a thought that
    was never closed (a text that was cut off) leaves no answer.

    Args:
        text: a completion or a worked solution.

    Returns:
        The content without surrounding white space, possibly empty; None if there is none.

    Example:
        >>> extract_answer(r"First \boxed{1}, no: \boxed{2}."), extract_answer(r"<think>\boxed{4}?</think>It is 5.")
        ('2', None)
    """
    answer = answer_behind(text)
    return None if answer is None else last_box(answer)


def math_equal(gold: str, prediction: str) -> bool:
    r"""Whether a prediction is the right answer, by the rules at the top of this module.

    Args:
        gold: the right answer.
        prediction: a model's: any string at all, an answer or a completion with a box.

    Returns:
        True if they are equal. False for everything else, a timeout and a failure of the grader included:
        ``compare_answers`` tells these apart.

    Example:
        >>> math_equal(r"\frac{1}{2}", r"so it is $\boxed{0.5}$."), math_equal("42", r"\boxed{42 \text{ or } 17}")
        (True, False)
    """
    return compare_answers(gold, prediction).passed


def compare_answers(gold: str, prediction: str) -> Judgement:
    """Compare a prediction with the right answer. Safe from any thread; from asyncio use ``asyncio.to_thread``.

    Args:
        gold: the right answer.
        prediction: any string at all.

    Returns:
        Verdict and reason. PASSED: the two are equal. FAILED: they are different, unreadable, or not shown to be equal.
        TIMEOUT, CRASHED: the worker was killed after 3 s, or died of the comparison twice (out of memory).
        GRADER_ERROR: there was no worker, or sympy failed. Nothing is raised for what the prediction is.
    """
    return compare_pairs([(gold, prediction)])[0]


def compare_pairs(pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
    r"""Compare predictions with right answers; equal pairs are compared once, and workers run at the same time.

    Args:
        pairs: (right answer, prediction), any strings.

    Returns:
        One judgement for each pair, in their order, as of :func:`compare_answers`.

    Example:
        >>> [j.verdict.value for j in compare_pairs([("2", "2"), ("2", r"\frac{4}{2}"), ("2", "3")])]
        ['passed', 'passed', 'failed']
    """
    texts = [(_answer_text(gold) or "", _answer_text(prediction)) for gold, prediction in pairs]
    results: dict[tuple[str, str | None], Judgement] = {}
    jobs: dict[tuple[str, str | None], dict[str, object]] = {}
    for pair in dict.fromkeys(texts):
        judgement = _CACHE.get(pair) or _judged(*pair)
        if isinstance(judgement, Judgement):
            results[pair] = judgement
        else:
            jobs[pair] = judgement
    with ThreadPoolExecutor(NUM_WORKERS) as threads:
        results |= zip(jobs, threads.map(_judged_by_worker, jobs.values()), strict=True)
    for pair, judgement in results.items():
        if judgement.verdict is not Verdict.GRADER_ERROR and len(pair[1] or "") <= MAX_ANSWER_LENGTH:
            _remember(pair, judgement)
    return [results[pair] for pair in texts]


def normal_answer(answer: str) -> str:
    r"""The normal form of an answer: a text that equal answers share, for counting votes, without units and names.

    Equal answers may still differ in it where only sympy can tell (``\sin 30^\circ``). Empty for an empty answer.

    Example:
        >>> normal_answer(r"$\dfrac{2}{4}$") == normal_answer("x = 0.5") == "1/2"
        True
        >>> normal_answer(r"\{2, 1\}"), normal_answer(r"\text{Evelyn}")
        ('1, 2', 'evelyn')
    """
    text = _answer_text(answer) or ""
    if len(text) > MAX_ANSWER_LENGTH:
        return text[:MAX_ANSWER_LENGTH]
    answer_read = _read(text)
    if isinstance(answer_read, Unreadable):
        return unordered_form(_cleaned(text)) or _cleaned(text)
    return answer_read.key()


def _answer_text(text: str) -> str | None:
    """The answer in a text: the last box's content, else the last final statement's, else the text itself.

    None if the last box or a thought is not closed.
    """
    answer = answer_behind(text)
    if answer is None:
        return None
    if has_box(answer):
        return last_box(answer)
    statement = extract_statement(answer)
    return answer.strip() if statement is None else statement


def _judged(gold: str, text: str | None) -> Judgement | dict[str, object]:
    """The judgement, as far as this process can tell; otherwise the job for a worker."""
    if text is None:
        return _different("the last box, or a thought, is not closed")
    if gold == text:
        return _EQUAL
    if len(text) > MAX_ANSWER_LENGTH:
        return _different(f"{len(text)} characters, more than {MAX_ANSWER_LENGTH}")
    clean_gold, clean_text = _cleaned(gold), _cleaned(text)
    if not clean_text:
        return _different("the answer is empty")
    if clean_gold.replace(RANGE_DASH, "-") == clean_text.replace(RANGE_DASH, "-"):
        return _EQUAL
    gold_read, text_read = _read(gold), _read(text)
    if isinstance(gold_read, Unreadable):
        return _judged_as_latex(gold_read, clean_gold, clean_text)
    if isinstance(text_read, Unreadable):
        return _different(f"not readable: {text_read}")
    pairs: Pairs = []
    if not can_be_equal(gold_read, text_read, pairs):
        return _different(f"{_shortened(text_read.key())} is not {_shortened(gold_read.key())}")
    return {"pairs": pairs} if pairs else _EQUAL


def _judged_as_latex(why: Unreadable, gold: str, text: str) -> Judgement | dict[str, object]:
    """The judgement where our grammar does not read the gold: math-verify may read it, in a worker."""
    form = unordered_form(gold)
    if form is not None and form == unordered_form(text):
        return _EQUAL
    is_plain = _FOREIGN.fullmatch(gold) and _FOREIGN.fullmatch(text)
    if isinstance(why, UnknownNotation) and is_plain and not UNEVALUATED & {*_COMMAND.findall(gold + " " + text)}:
        return {"latex": [gold, text]}
    return _different("not the gold's text, which is no readable value")


def _judged_by_worker(job: dict[str, object]) -> Judgement:
    reply = POOL.run(job)
    if reply.ending is not Ending.DONE:
        return Judgement(verdict=_ENDINGS[reply.ending], reason=reply.reason)
    return _EQUAL if reply.result is True else _different("not shown to be equal")


def _different(reason: str) -> Judgement:
    return Judgement(verdict=Verdict.FAILED, reason=reason)


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


@lru_cache(maxsize=4096)
def _cleaned(text: str) -> str:
    return clean(text)


@lru_cache(maxsize=4096)
def _read(text: str) -> Answer | Unreadable:
    try:
        return read_answer(_cleaned(text))
    except Unreadable as error:
        error.__context__ = None  # the error is kept in the cache, and would keep the frames of this call alive
        return error.with_traceback(None)


def _remember(pair: tuple[str, str | None], judgement: Judgement) -> None:
    """Keep a judgement, without a lock: dictionaries are safe from threads, and a fork cannot catch a lock held."""
    if len(_CACHE) >= CACHE_SIZE:
        _CACHE.clear()
    _CACHE[pair] = judgement
