"""Programs graded per second: a forked process per program, against a fresh isolated interpreter per program.

Both sides isolate each program from all others by the same means, run the same tests against it from outside, and
must come to the same verdicts. Sides take turns; medians over rounds. One program at a time.

    python benchmarks/sandbox.py
    python benchmarks/sandbox.py --backend landlock --programs 30 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bontune.grading.sandbox.outside.checker import Program, compile_test, judge_program, run_test
from bontune.grading.sandbox.outside.interpreter import Sandbox, Zygote
from bontune.grading.sandbox.outside.isolation import BACKENDS, ISOLATING, Backend
from bontune.grading.verdict import Judgement

RESULTS = Path(__file__).with_name("results") / "sandbox.json"
PREDICTION = "before the first run: at least 10 times as many as with an interpreter without warmed imports"
KINDS = (
    ("from typing import List\ndef f(a: List[int]): return sorted(a)", "assert f([3, {i}, 1]) == sorted([3, {i}, 1])"),
    ("import math\ndef f(n): return math.gcd(n, 12)", "assert f({i}) == math.gcd({i}, 12)"),
    ("import re\ndef f(t): return re.findall(r'[0-9]+', t)", "assert f('a1b{i}') == ['1', '{i}']"),
    ("from collections import Counter\ndef f(t): return dict(Counter(t))", "assert f('aab') == {{'a': 2, 'b': 1}}"),
    ("def f(n): return f(n - 1) + f(n - 2) if n > 1 else n", "assert f(12) == 144"),
    ("def f(n): return n + 1", "assert f({i}) == {i}"),  # wrong
    ("def f(n): raise ValueError(n)", "assert f({i}) == {i}"),  # wrong
)


def make_programs(num_programs: int) -> list[Program]:
    """Small programs, two in seven of them wrong, as a model writes them; four assertions each."""
    programs = []
    for i in range(num_programs):
        source, assertion = KINDS[i % len(KINDS)]
        test = "\n".join(assertion.format(i=i + j) for j in range(4))
        programs.append(Program(source=source, entry_point="f", check=test, helpers="import math"))
    return programs


def grade_forked(sandbox: Sandbox, programs: list[Program]) -> list[Judgement]:
    """One isolated interpreter, a fork per program."""
    return [judge_program(sandbox, program)[0] for program in programs]


def grade_fresh(backend: Backend, programs: list[Program]) -> list[Judgement]:
    """An isolated interpreter per program, with nothing imported that it does not need."""
    judgements = []
    for program in programs:
        test = compile_test(program)
        assert not isinstance(test, Judgement)
        zygote = Zygote(backend, warm=())
        session = zygote.open(
            timeout_s=program.timeout_s, memory_mb=program.memory_mb, max_reply_bytes=program.max_reply_bytes
        )
        judgements.append(run_test(session, program, test))
        session.close()
        zygote.kill()
    return judgements


def programs_per_second(grade: Callable[[], list[Judgement]]) -> tuple[float, list[Judgement]]:
    """The rate, and the judgements."""
    started = time.perf_counter()
    judgements = grade()
    return len(judgements) / (time.perf_counter() - started), judgements


def measure(name: str, num_programs: int, num_rounds: int) -> dict[str, object]:
    """Both sides in turns."""
    backend = BACKENDS[name]
    programs = make_programs(num_programs)
    sandbox = Sandbox(backend)
    rates: dict[str, list[float]] = {"forked": [], "fresh": []}
    for _ in range(num_rounds):
        forked_rate, forked = programs_per_second(lambda: grade_forked(sandbox, programs))
        fresh_rate, fresh = programs_per_second(lambda: grade_fresh(backend, programs))
        assert forked == fresh, "the two sides disagree"
        rates["forked"].append(forked_rate)
        rates["fresh"].append(fresh_rate)
    sandbox.discard()
    medians = {side: statistics.median(values) for side, values in rates.items()}
    ratios = [forked / fresh for forked, fresh in zip(rates["forked"], rates["fresh"], strict=True)]
    return {
        "programs_per_second": rates,
        "median_programs_per_second": medians,
        "ratio_of_medians": medians["forked"] / medians["fresh"],
        "ratio_range": [min(ratios), max(ratios)],
        "verdicts": {verdict: [j.verdict.value for j in forked].count(verdict) for verdict in ("passed", "failed")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", nargs="+", choices=ISOLATING, default=list(ISOLATING), help="default: all")
    parser.add_argument("--programs", type=int, default=42, help="a round and side (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="medians are over these (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="default: %(default)s")
    arguments = parser.parse_args()
    results: dict[str, object] = {
        "prediction": PREDICTION,
        "machine": f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}",
        "programs_per_round": arguments.programs,
        "load_average_at_start": os.getloadavg()[0],
    }
    for name in arguments.backend:
        reason = BACKENDS[name].unavailable()
        if reason is not None:
            print(f"{name}: {reason}")
            continue
        result = measure(name, arguments.programs, arguments.rounds)
        results[name] = result
        medians = result["median_programs_per_second"]
        assert isinstance(medians, dict)
        print(
            f"{name}: {medians['forked']:.0f} programs/s forked, {medians['fresh']:.1f} fresh: "
            f"{result['ratio_of_medians']:.1f} times"
        )
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
