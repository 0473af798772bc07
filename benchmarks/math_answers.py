"""math_equal beside math-verify: time and errors on synthetic samples for the 500 answers of MATH-500.

Every sample is made from the right answer by a rule that says whether it is still right, so both graders' errors can be
counted. math-verify is called as its README shows, with its own time limits; the gold is parsed once per problem.

    python benchmarks/math_answers.py --data math_test_500.jsonl
    python benchmarks/math_answers.py --data math_test_500.jsonl --prompts 50 --samples 16 --out /tmp/try
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import math_verify

from bontune.grading.answers.math_answer import POOL, compare_pairs, normal_answer

FRACTION = re.compile(r"(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}")
ROOT = re.compile(r"\\sqrt\{(\d+)\}")
HOSTILE = (
    "9^9^9^9",
    "9^{9^{9^9}}",
    "100000!",
    r"\frac{1}{" * 200 + "1" + "}" * 200,
    r"\int_0^\infty e^{-x^{x^x}} dx",
    r"\sum_{n=1}^{10^9} \frac{1}{n}",
    r"__import__('os').getpid()",
    "(x+1)^{100000}",
    r"\binom{10^6}{5\cdot10^5}",
    "{" * 300,
    r"\sqrt{" * 40 + "2" + "}" * 40,
    r"\infty-\infty",
    r"\frac{0}{0}",
    "nan",
)

RARE = ("hostile", "full stop")
"""Rules drawn a quarter as often as the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One completion that ends in a box, and what is known about it."""

    rule: str
    answer: str
    text: str
    is_right: bool


def right_forms(gold: str, rng: random.Random) -> dict[str, str | None]:
    """Other ways to write the same answer, by rule; None where a rule does not apply."""
    number = plain_number(gold)
    whole = FRACTION.fullmatch(gold)
    pieces = re.split(r",\s*", gold)
    is_list = len(pieces) > 1 and not re.search(r"[()\[\]\\{}]", gold)
    terms = re.findall(r"[+-]?[^+-]+", gold.replace(" ", ""))
    is_sum = re.fullmatch(r"[a-z0-9+\- ]+|(?:[a-z0-9+\- ]|\^\d(?!\d)|\\sqrt\{\d+\}|\\pi)+", gold) and len(terms) > 1
    rng.shuffle(terms)
    reordered = "".join(term if term[0] in "+-" else "+" + term for term in terms).removeprefix("+")
    integer = (
        number.numerator if number is not None and number.denominator == 1 and re.fullmatch(r"-?\d+", gold) else None
    )
    k = rng.randint(2, 9)
    grouped = f"{integer:,}" if integer is not None and abs(integer) > 999 else None
    has_factor = re.search(r"\d\s*\\sqrt\{", gold)
    return {
        "dfrac": gold.replace(r"\frac", r"\dfrac") if r"\frac" in gold else None,
        "tfrac": gold.replace(r"\frac", r"\tfrac") if r"\frac" in gold else None,
        "slash": FRACTION.sub(r"\1\2/\3", gold) if whole else None,
        "unreduced": f"{whole[1]}\\frac{{{int(whole[2]) * k}}}{{{int(whole[3]) * k}}}" if whole else None,
        "decimal": decimal(number) if whole and number is not None else None,
        "minus inside": f"\\frac{{-{whole[2]}}}{{{whole[3]}}}" if whole and whole[1] else None,
        "spaces": re.sub(r"([+\-=,])", r" \1 ", gold) if not re.search(r"[A-Za-z]{2}-|\d,\d", gold) else None,
        "left and right": re.sub(r"(?<!\\left)([(\[])", r"\\left\1", re.sub(r"(?<!\\right)([)\]])", r"\\right\1", gold))
        if re.search(r"[(\[]", gold) and r"\left" not in gold and r"\sqrt[" not in gold
        else None,
        "no left and right": gold.replace(r"\left", "").replace(r"\right", "") if r"\left" in gold else None,
        "named": f"x = {gold}" if number is not None else None,
        "units": f"{gold}\\text{{ units}}" if integer is not None else None,
        "point zero": f"{gold}.0" if integer is not None else None,
        "thousands": grouped,
        "thousands in braces": grouped.replace(",", "{,}") if grouped else None,
        "reordered list": ", ".join(rng.sample(pieces, len(pieces))) if is_list else None,
        "list as set": "\\{" + gold + "\\}" if is_list else None,
        "reordered sum": reordered if is_sum else None,
        "root as power": ROOT.sub(r"\1^{1/2}", gold) if ROOT.search(gold) and not has_factor else None,
        "dot before root": re.sub(r"(\d)\s*\\sqrt\{", r"\1 \\cdot \\sqrt{", gold) if has_factor else None,
        "no degree sign": gold.replace(r"^\circ", "") if gold.endswith(r"^\circ") else None,
        "bmatrix": gold.replace("pmatrix", "bmatrix") if "pmatrix" in gold else None,
        "bare word": gold[6:-1] if re.fullmatch(r"\\text\{[A-Za-z]+\}", gold) else None,
        "base in braces": re.sub(r"_(\d)$", r"_{\1}", gold) if re.fullmatch(r"\d+_\d", gold) else None,
        "full stop": f"{gold}.",
        "dollars around": f"${gold}$" if "$" not in gold else None,
    }


def wrong_forms(gold: str, others: list[str], rng: random.Random) -> dict[str, str | None]:
    """Answers that are not the gold's, by rule; None where a rule does not apply."""
    number = plain_number(gold)
    other = rng.choice(others)
    digits = list(re.finditer(r"\d+", gold))
    spot = rng.choice(digits) if digits else None
    nearby = (
        gold[: spot.start()] + str(int(spot.group()) + rng.choice((1, 2, 3, 10))) + gold[spot.end() :] if spot else None
    )
    point = re.fullmatch(r"(?:\\left)?\(\s*([^,()]+),\s*([^,()]+?)\s*(?:\\right)?\)", gold)
    value = None if number is None else number.numerator / number.denominator
    root = re.fullmatch(r"\\sqrt\{(\d+)\}", gold)
    return {
        "nearby number": nearby,
        "another problem's": other,
        "sign": gold[1:] if gold.startswith("-") else f"-{gold}" if number else None,
        "rounded fraction": f"{value:.4f}" if value is not None and Fraction(f"{value:.4f}") != number else None,
        "rounded root": f"{int(root[1]) ** 0.5:.6f}" if root else None,
        "gold or another": f"{gold} \\text{{ or }} {other}",
        "gold and another": f"{gold}, {other}",
        "or more": f"{gold}\\text{{ or more}}" if number is not None else None,
        "at least": f"\\ge {gold}" if number is not None else None,
        "swapped": f"({point[2]}, {point[1]})" if point and point[1].strip() != point[2].strip() else None,
        "point as set": f"\\{{{point[1]}, {point[2]}\\}}" if point else None,
        "interval closed": gold.replace("(", "[").replace(")", "]") if point else None,
        "squared": f"({gold})^2" if number not in (None, 0, 1) else None,
        "empty": "",
        "garbage": "".join(rng.choice(r"\{}()^_+-=0123456789 xyfrac$&,.") for _ in range(rng.randint(3, 40))),
        "hostile": rng.choice(HOSTILE),
    }


def plain_number(gold: str) -> Fraction | None:
    """The gold as a fraction if it is an integer, a decimal or a fraction of integers."""
    fraction = FRACTION.fullmatch(gold)
    if fraction:
        return Fraction(int(fraction[1] + fraction[2]), int(fraction[3]))
    return Fraction(gold) if re.fullmatch(r"-?\d+(\.\d+)?", gold) else None


def decimal(number: Fraction) -> str | None:
    """All digits of a fraction that has finitely many (at most six), else None."""
    text = f"{float(number):.6f}".rstrip("0").rstrip(".")
    return text if Fraction(text) == number else None


def samples_of(gold: str, golds: list[str], num_samples: int, rng: random.Random) -> list[Sample]:
    """Completions as a model might give them: a third verbatim, a quarter in other notation, the rest wrong."""
    others = [other for other in rng.sample(golds, min(60, len(golds))) if normal_answer(other) != normal_answer(gold)]
    made = []
    for _ in range(num_samples):
        kind = rng.random()
        if kind < 0.35:
            rule, answer, is_right = "verbatim", gold, True
        else:
            forms = right_forms(gold, rng) if kind < 0.6 else wrong_forms(gold, others, rng)
            names = [name for name, form in forms.items() if form is not None]
            (rule,) = rng.choices(names, weights=[1 if name in RARE else 4 for name in names])
            answer, is_right = str(forms[rule]), kind < 0.6
        text = rng.choice(("So the answer is $\\boxed{%s}$.", "Thus we get\n\\[\\boxed{%s}\\]", "\\boxed{%s}")) % answer
        if not is_right and rng.random() < 0.05:
            rule, answer = "right box, then another", rng.choice(others)
            text = f"First $\\boxed{{{gold}}}$, but no: $\\boxed{{{answer}}}$."
        elif rng.random() < 0.02:
            rule, text, is_right = "truncated", f"So the answer is $\\boxed{{{gold}", False
            answer = text
        is_nothing_new = rule in ("garbage", "nearby number") and normal_answer(answer) == normal_answer(gold)
        is_thousands = rule in ("reordered list", "list as set") and re.fullmatch(r"\d{1,3}(,\d{3})+", gold)
        if is_nothing_new or is_thousands:  # the rule's label would be wrong
            continue
        made.append(Sample(rule=rule, answer=answer, text=text, is_right=is_right))
    return made


def math_verify_says(gold: list[Any], text: str) -> bool:
    """math-verify's verdict, in the main thread, with its own alarms."""
    try:
        return bool(math_verify.verify(gold, math_verify.parse(text)))
    except Exception:  # it raises for some hostile strings; a caller in a loop has to count that as wrong
        return False


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def errors(verdicts: list[bool], samples: list[Sample]) -> dict[str, Any]:
    """How many were accepted though wrong and rejected though right, and by which rule."""
    accepted = Counter(s.rule for v, s in zip(verdicts, samples, strict=True) if v and not s.is_right)
    rejected = Counter(s.rule for v, s in zip(verdicts, samples, strict=True) if not v and s.is_right)
    return {
        "wrong_accepted": accepted.total(),
        "right_rejected": rejected.total(),
        "wrong_accepted_by_rule": dict(accepted.most_common()),
        "right_rejected_by_rule": dict(rejected.most_common()),
    }


def code(text: str) -> str:
    """As Markdown code in a table, shortened."""
    shown = text if len(text) <= 90 else text[:60] + "…" + text[-20:]
    return "`" + shown.replace("|", "\\|").replace("`", "'").replace("\n", " ") + "`" if shown else "(empty)"


def disagreements(golds: list[str], samples: list[Sample], ours: list[bool], theirs: list[bool]) -> str:
    """Each pair of gold and answer on which the two differ, once; ours that are wrong come first."""
    rows: dict[tuple[str, str], tuple[bool, str]] = {}
    for gold, sample, mine, other in zip(golds, samples, ours, theirs, strict=True):
        if mine != other:
            who = "bontune" if mine == sample.is_right else "math-verify"
            line = (
                f"| {sample.rule} | {code(gold)} | {code(sample.answer)} | {'=' if sample.is_right else '≠'} | {who} |"
            )
            rows[gold, sample.answer] = (who == "bontune", line)
    lines = [line for _, line in sorted(set(rows.values()))]
    return "\n".join(["| rule | gold | answer | truth | who is right |", "|---|---|---|:-:|---|", *lines, ""])


def by_rule(table: str) -> str:
    """The list counted by rule: what can be shown without the data set's answers."""
    counts = Counter(tuple(line.split(" | ")[i].strip("| ") for i in (0, -2, -1)) for line in table.splitlines()[2:])
    lines = [f"| {rule} | {truth} | {number} | {who} |" for (rule, truth, who), number in sorted(counts.items())]
    return "\n".join(["| rule | truth | distinct pairs | who is right |", "|---|:-:|---:|---|", *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="MATH-500, JSON lines with the key answer")
    parser.add_argument("--prompts", type=int, default=500, help="problems (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=64, help="samples of each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder for the results")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)  # math-verify logs each time limit that it hits
    golds = [json.loads(line)["answer"] for line in arguments.data.read_text().splitlines()]
    rng = random.Random(arguments.seed)
    pool = [(gold, samples_of(gold, golds, arguments.samples, rng)) for gold in golds[: arguments.prompts]]
    flat = [sample for _, samples in pool for sample in samples]
    flat_golds = [gold for gold, samples in pool for _ in samples]

    def run_ours() -> list[bool]:
        return [j.passed for gold, samples in pool for j in compare_pairs([(gold, s.text) for s in samples])]

    ours, our_seconds = timed(run_ours)
    POOL.close()
    math_verify.verify(math_verify.parse("$1$"), math_verify.parse("$1$"))  # its imports are not timed; ours were
    theirs: list[bool] = []
    their_seconds = distinct_seconds = hostile_seconds = 0.0
    rule_seconds: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    for gold, samples in pool:
        parsed, seconds = timed(lambda gold=gold: math_verify.parse(f"\\boxed{{{gold}}}"))
        their_seconds, distinct_seconds = their_seconds + seconds, distinct_seconds + seconds
        for sample in samples:
            verdict, seconds = timed(lambda parsed=parsed, sample=sample: math_verify_says(parsed, sample.text))
            theirs.append(verdict)
            their_seconds += seconds
            rule_seconds[sample.rule] += seconds
            if (gold, sample.text) not in seen:
                distinct_seconds += seconds
                hostile_seconds += seconds if sample.rule == "hostile" else 0.0
            seen.add((gold, sample.text))

    result = {
        "settings": {"prompts": len(pool), "samples": arguments.samples, "seed": arguments.seed},
        "graded": len(flat),
        "distinct": len(seen),
        "right": sum(s.is_right for s in flat),
        "seconds": {"bontune": our_seconds, "math_verify": their_seconds, "math_verify_distinct": distinct_seconds},
        "math_verify_seconds_by_rule": {rule: round(s, 2) for rule, s in rule_seconds.most_common()},
        "faster": their_seconds / our_seconds,
        "faster_than_distinct_without_hostile": (distinct_seconds - hostile_seconds) / our_seconds,
        "bontune": errors(ours, flat),
        "math_verify": errors(theirs, flat),
        "disagreements": sum(a != b for a, b in zip(ours, theirs, strict=True)),
    }
    print(json.dumps(result, indent=1))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "math_answers.json").write_text(json.dumps(result, indent=1) + "\n")
    table = disagreements(flat_golds, flat, ours, theirs)
    (arguments.out / "math_answers_disagreements.md").write_text(table)
    (arguments.out / "math_answers_by_rule.md").write_text(by_rule(table))
    print(f"every disagreement: {arguments.out}/math_answers_disagreements.md; by rule: math_answers_by_rule.md")


if __name__ == "__main__":
    main()
