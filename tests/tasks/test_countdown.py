"""Countdown: problems that can be solved, levels that mean something, grades that hold."""

from __future__ import annotations

import gzip
import math
import random
import re
from collections import Counter
from fractions import Fraction
from functools import cache
from hashlib import sha256
from itertools import islice
from pathlib import Path

import countdown_problems as drawing
import numpy as np
import pytest
from countdown_problems import count_hits, demonstrations, held_out_keys
from embedded_problems import as_lines, write_problems

from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.grading.verdict import Verdict
from bontune.tasks.base import Task
from bontune.tasks.countdown import Countdown, evaluate
from bontune.tasks.embedded import FOLDER

SPLITS = ("train", "validation", "test")


def key_of(problem: Problem) -> tuple[tuple[int, ...], int]:
    return tuple(sorted(problem.row["numbers"])), problem.row["target"]


def drawn(folder: Path, seed: int, *, is_hard: bool = False) -> Countdown:
    """The task with problems of another seed, by way of a file."""
    path = folder / f"{seed}-{is_hard}.jsonl.gz"
    write_problems(path, drawing.problem_rows(seed, is_hard))
    return Countdown(data=path)


@cache
def chances(numbers: tuple[int, ...]) -> dict[int, Fraction]:
    """Probability of each value of a random expression over ``numbers`` in this order: by recursion, exactly."""
    if len(numbers) == 1:
        return {numbers[0]: Fraction(1)}
    found: dict[int, Fraction] = Counter()
    for split in range(1, len(numbers)):
        for left, left_chance in chances(numbers[:split]).items():
            for right, right_chance in chances(numbers[split:]).items():
                for value in (left + right, left - right, left * right):
                    found[value] += left_chance * right_chance / (3 * (len(numbers) - 1))
    return found


def reachable(numbers: tuple[int, ...]) -> set[int]:
    """All values of all expressions over a multiset: combine any two numbers, again and again."""
    if len(numbers) == 1:
        return {numbers[0]}
    found: set[int] = set()
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            if i != j:
                rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
                for value in (a + b, a - b, a * b):
                    found |= reachable_cached(tuple(sorted((*rest, value))))
    return found


reachable_cached = cache(reachable)


def test_is_a_task_with_the_promised_splits() -> None:
    task = Countdown()
    assert isinstance(task, Task)
    assert (task.name, task.stop, task.splits) == ("countdown", (), SPLITS)
    assert {split: len(task.problems(split)) for split in SPLITS} == {"train": 4000, "validation": 500, "test": 500}
    with pytest.raises(BontuneError, match="train, validation, test"):
        task.problems("tset")
    with pytest.raises(BontuneError, match="seed"):
        Countdown(seed=-1)
    with pytest.raises(BontuneError, match="hard must be true or false, not 'yes'"):
        Countdown(hard="yes")  # type: ignore[arg-type]


def test_problems_are_distinct_across_splits() -> None:
    problems = [problem for split in SPLITS for problem in Countdown().problems(split)]
    assert len({key_of(problem) for problem in problems}) == len({problem.id for problem in problems}) == 5000
    for problem in problems:
        numbers, target = problem.row["numbers"], problem.row["target"]
        assert problem.prompt == f"{','.join(map(str, numbers))}:{target}="
        assert len(numbers) == 4
        assert all(1 <= number <= 13 for number in numbers)
        assert 1 <= target <= 99


def test_problems_are_the_same_on_every_machine() -> None:
    """Pinned: pools and the shipped model rely on these very problems. A change is a new task."""
    lines = [
        f"{split} {problem.id} {problem.prompt} {problem.reference} {problem.level}"
        for split in SPLITS
        for problem in Countdown().problems(split)
    ]
    assert (
        sha256("\n".join(lines).encode()).hexdigest()
        == "89a3a5a77015c5c93de9d27af997dbd73abe74de3bf190a33e6d4605b26bd999"
    )


@pytest.mark.parametrize("is_hard", [False, True])
def test_the_script_draws_the_problems_that_ship(is_hard: bool) -> None:
    shipped = gzip.decompress((FOLDER / f"countdown{'-hard' * is_hard}.jsonl.gz").read_bytes())
    assert as_lines(drawing.problem_rows(0, is_hard)) == shipped


def test_problems_of_another_seed_come_from_a_file(tmp_path: Path) -> None:
    with pytest.raises(BontuneError, match=r"only the problems of seed 0 ship, got seed=1.*countdown_problems.py"):
        Countdown(seed=1)
    with pytest.raises(BontuneError, match=r"there is no file .*countdown_problems.py writes one"):
        Countdown(data=tmp_path / "none.jsonl.gz")
    (tmp_path / "torn.jsonl.gz").write_bytes((FOLDER / "countdown.jsonl.gz").read_bytes()[:1000])
    with pytest.raises(BontuneError, match="is no file of problems"):
        Countdown(data=tmp_path / "torn.jsonl.gz").problems("test")
    (tmp_path / "text.jsonl.gz").write_text("# no gzip")
    write_problems(tmp_path / "part.jsonl.gz", drawing.problem_rows()[:1000])  # without a train split
    write_problems(tmp_path / "empty.jsonl.gz", [])
    others = [tmp_path / f"{name}.jsonl.gz" for name in ("text", "part", "empty")]
    for other in (FOLDER / "programs.jsonl.gz", *others):
        with pytest.raises(BontuneError, match="is no file of problems") as caught:
            Countdown(data=other).problems("test")
        assert str(caught.value).count("is no file of problems") == 1, "said once"
    with pytest.raises(BontuneError, match="leave out seed and hard"):
        Countdown(data=FOLDER / "countdown.jsonl.gz", hard=True)
    other = drawn(tmp_path, 1).problems("test")
    assert len(other) == 500
    assert [key_of(p) for p in other] != [key_of(p) for p in Countdown().problems("test")]


def test_hard_problems_are_the_same_on_every_machine() -> None:
    """Pinned as the usual ones are."""
    lines = [
        f"{split} {problem.id} {problem.prompt} {problem.reference} {problem.level}"
        for split in SPLITS
        for problem in Countdown(hard=True).problems(split)
    ]
    assert (
        sha256("\n".join(lines).encode()).hexdigest()
        == "be219956a5867ae52c17b26485e2a152e415d0cb79a21403b40c7a8fda04b4ae"
    )


@pytest.mark.parametrize("seed", [0, 3])
def test_hard_problems_are_hard_and_none_is_a_usual_one(seed: int, tmp_path: Path) -> None:
    usual, hard = drawn(tmp_path, seed), drawn(tmp_path, seed, is_hard=True)
    found = {split: hard.problems(split) for split in SPLITS}
    assert {split: len(problems) for split, problems in found.items()} == drawing.SPLIT_SIZES
    problems = [problem for split in SPLITS for problem in found[split]]
    keys = {key_of(problem) for problem in problems}
    assert len(keys) == len({problem.id for problem in problems}) == 5000
    assert keys.isdisjoint(key_of(problem) for split in SPLITS for problem in usual.problems(split))
    for problem in problems:
        numbers, target = problem.row["numbers"], problem.row["target"]
        assert problem.prompt == f"{','.join(map(str, numbers))}:{target}="
        assert (len(numbers), min(numbers) >= 1, max(numbers) <= 13, 1 <= target <= 99) == (4, True, True, True)
        assert problem.level in (4, 5)
        assert hard.grade([problem], [[problem.reference]])[0][0].verdict is Verdict.PASSED
        assert len(problem.reference) <= 15
    hits = count_hits(np.array([p.row["numbers"] for p in problems]), np.array([p.row["target"] for p in problems]))
    assert 0 < hits.min() <= hits.max() < 50
    assert all(0.4 < np.mean([p.level == 5 for p in found[split]]) < 0.6 for split in SPLITS), "the splits are alike"


def test_hard_problems_need_more_products_than_usual_ones() -> None:
    def share_of_products(task: Countdown) -> float:
        counts = Counter(c for problem in task.problems("test") for c in problem.reference if c in "+-*")
        return counts["*"] / counts.total()

    assert share_of_products(Countdown(hard=True)) > share_of_products(Countdown()) + 0.1


def test_hard_problems_are_the_first_hard_ones_of_one_sequence(tmp_path: Path) -> None:
    """Drawn one by one, without batches."""
    rng = random.Random("countdown hard 2")
    usual = {key_of(problem) for split in SPLITS for problem in drawn(tmp_path, 2).problems(split)}
    wanted = drawn(tmp_path, 2, is_hard=True).problems("test")[:100]
    found: dict[tuple[tuple[int, ...], int], str] = {}
    while len(found) < len(wanted):
        numbers, target, expression = drawing._draw(rng, "+-**")
        key = tuple(sorted(numbers)), target
        if key not in usual and key not in found and count_hits(np.array([numbers]), np.array([target])) < 50:
            found[key] = expression
    assert list(found.items()) == [(key_of(problem), problem.reference) for problem in wanted]


def test_every_problem_is_solvable_and_its_reference_solves_it() -> None:
    task = Countdown()
    for split in SPLITS:
        for problem in task.problems(split):
            assert task.grade([problem], [[problem.reference]])[0][0].verdict is Verdict.PASSED
    for problem in task.problems("test")[:150]:
        assert problem.row["target"] in reachable_cached(tuple(sorted(problem.row["numbers"])))


def test_hits_are_the_exact_chance_of_a_random_expression() -> None:
    from itertools import permutations

    problems = random.Random(0).sample(Countdown().problems("train"), 40)
    hits = count_hits(
        np.array([problem.row["numbers"] for problem in problems]), np.array([p.row["target"] for p in problems])
    )
    for problem, count in zip(problems, hits.tolist(), strict=True):
        orders = list(permutations(problem.row["numbers"]))
        chance = sum(chances(order).get(problem.row["target"], Fraction(0)) for order in orders) / len(orders)
        assert Fraction(count, drawing.NUM_EXPRESSIONS) == chance


def test_levels_fall_as_the_chance_rises_and_all_occur() -> None:
    problems = [problem for split in SPLITS for problem in Countdown().problems(split)]
    hits = count_hits(np.array([p.row["numbers"] for p in problems]), np.array([p.row["target"] for p in problems]))
    assert hits.min() > 0
    by_level = {
        level: [h for p, h in zip(problems, hits.tolist(), strict=True) if p.level == level] for level in range(1, 6)
    }
    assert sum(map(len, by_level.values())) == 5000
    for level in range(1, 5):
        assert min(by_level[level]) > max(by_level[level + 1])
    assert all(700 <= len(found) <= 1300 for found in by_level.values()), "about a fifth each"


def test_every_operator_is_common_in_the_solutions() -> None:
    counts = Counter(c for problem in Countdown().problems("train") for c in problem.reference if c in "+-*")
    # Drawn evenly, but products miss the targets 1..99 more often.
    assert all(0.2 < counts[operator] / counts.total() < 0.45 for operator in "+-*"), counts


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("(7-2)*9+3", ""),
        ("3+9*(7-2)", ""),
        ("(7-2)*9-3", "equals 42, not 48"),
        ("48", "uses 48, not each of 3, 7, 2, 9 once"),
        ("(7-2)*9+3+3-3", "uses 7, 2, 9, 3, 3, 3, not each"),
        ("(7-2)*9", "uses 7, 2, 9, not each"),
        ("(7-2)*9+3=48", "not an expression"),
        ("", "not an expression: it is empty"),
        (" (7-2)*9+3", "not an expression"),
        ("(" * 10**5, "not an expression"),
        ("-2*9+73", "not an expression"),
        ("(7-2)*9+\uff13", "not an expression"),
    ],
)
def test_grades(completion: str, reason: str) -> None:
    problem = Problem(id="x", prompt="3,7,2,9:48=", reference="", row={"numbers": [3, 7, 2, 9], "target": 48})
    (grade,) = Countdown().grade([problem], [[completion]])[0]
    assert grade.reason.startswith(reason)
    assert grade.verdict is (Verdict.FAILED if reason else Verdict.PASSED)
    assert grade.reward == (0.0 if reason else 1.0)
    assert (grade.answer is None) == reason.startswith("not an expression")


def test_equal_expressions_count_as_one_answer() -> None:
    problem = Problem(id="x", prompt="3,7,2,9:48=", reference="", row={"numbers": [3, 7, 2, 9], "target": 48})
    grades = Countdown().grade([problem], [["(7-2)*9+3", "3+9*(7-2)", "(3+((7-2)*9))"]])[0]
    assert len({grade.answer for grade in grades}) == 1


def test_demonstrations_are_right_short_and_never_held_out() -> None:
    excluded = held_out_keys()
    assert len(excluded) == 1000
    operators: Counter[str] = Counter()
    for prompt, completion in islice(demonstrations(random.Random(0), excluded), 30_000):
        numbers, target = re.fullmatch(r"([0-9,]+):([0-9]+)=", prompt).groups()
        found = evaluate(completion)
        assert found.value == int(target)
        assert sorted(found.numbers) == sorted(map(int, numbers.split(",")))
        assert (tuple(sorted(found.numbers)), found.value) not in excluded
        assert len(completion) <= 15
        operators.update(c for c in completion if c in "+-*")
    assert operators["*"] / operators.total() < 0.15, "another distribution than the task's"


def test_demonstrations_follow_their_generator_and_would_hit_held_out_problems() -> None:
    one, other = (list(islice(demonstrations(random.Random(3)), 2000)) for _ in range(2))
    assert one == other
    excluded = held_out_keys()
    keys = [(tuple(sorted(evaluate(text).numbers)), evaluate(text).value) for _, text in one]
    assert any(key in excluded for key in keys), "otherwise the exclusion above is not tested"


def test_a_parenthesis_is_written_only_where_it_changes_the_value_or_the_grouping() -> None:
    for _, completion in islice(demonstrations(random.Random(1)), 3000):
        assert "+(" not in completion or re.search(r"\+\([^()]*\)\*", completion), completion
        assert math.prod(evaluate(completion).numbers) > 0
