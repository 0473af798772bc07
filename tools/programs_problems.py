"""Draw the problems of the task ``programs``, and demonstrations for its base model.

    python tools/programs_problems.py src/bontune/tasks/data/programs.jsonl.gz
    python tools/programs_problems.py src/bontune/tasks/data/programs-hard.jsonl.gz --hard
    python tools/programs_problems.py other.jsonl.gz --seed 1    # for the task's option data

Hidden functions are drawn from a grammar (``programs_grammar``) and are distinct by behaviour, across splits too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from embedded_problems import below, write_problems
from programs_grammar import (
    DEMONSTRATION,
    HARD,
    INPUTS,
    TASK,
    Behaviour,
    Function,
    Value,
    Weights,
    behaviour_of,
    compile_own,
    draw_input,
    draw_program,
)

from bontune.base.problems import Problem
from bontune.tasks.programs import Programs, format_prompt, written

SPLIT_SIZES = {"test": 300, "validation": 300, "train": 1600}
"""Problems a split, drawn together."""
NUM_MORE_TRAINED = 4800
"""Problems of the usual train split that are drawn after these: most are rarer functions, so harder."""
LEVEL_THRESHOLDS = (12.0, 13.7, 15.2, 18.0)
"""Bits that levels 2 to 5 need at least."""
MAX_PROMPT_LENGTH = 100
"""Characters of a prompt without its hint, which keeps it under 90 tokens of the shipped model."""
MAX_REFERENCE_LENGTH = 44
"""Characters of a reference, at most 24 tokens."""
Draws = list[tuple[Behaviour, Function, list[int]]]
"""What a function does, the function, and the numbers of the inputs that its problem shows."""


@lru_cache(maxsize=2)
def draw_splits(seed: int = 0, is_hard: bool = False) -> dict[str, Draws]:
    """Draw distinct behaviours, each with the least surprising of the programs drawn for it; shuffle and split them.

    The usual train split has three times as many more, most of them rarer and so harder: what is learned from a few
    functions does not carry over to others.
    """
    splits = _drawn_together(seed, is_hard)
    if is_hard:
        return splits
    others = [draw for kind in (False, True) for split in _drawn_together(seed, kind).values() for draw in split]
    more = _draw_programs(
        Random(f"programs more {seed}"), TASK, NUM_MORE_TRAINED, excluded=frozenset(found for found, _, _ in others)
    )
    return {**splits, "train": splits["train"] + more}


@lru_cache(maxsize=2)
def _drawn_together(seed: int, is_hard: bool) -> dict[str, Draws]:
    # Seeding by a string is the same in every Python since 3.2.
    rng = Random(f"programs hard {seed}" if is_hard else f"programs {seed}")
    usual = [found for split in _drawn_together(seed, False).values() for found, _, _ in split] if is_hard else []
    weights, least_bits = (HARD, LEVEL_THRESHOLDS[-1]) if is_hard else (TASK, 0.0)
    draws = _draw_programs(rng, weights, sum(SPLIT_SIZES.values()), frozenset(usual), least_bits)
    for last in range(len(draws) - 1, 0, -1):  # behaviours that are drawn often come first: spread them evenly
        other = below(rng, last + 1)
        draws[last], draws[other] = draws[other], draws[last]
    splits: dict[str, Draws] = {}
    for split, size in SPLIT_SIZES.items():
        splits[split], draws = draws[:size], draws[size:]
    return splits


def problem_rows(seed: int = 0, is_hard: bool = False) -> list[dict[str, Any]]:
    """Draw all problems of a seed, with their splits, as the task's file holds them: the inputs first."""
    return [{"inputs": INPUTS}] + [
        {
            "split": split,
            "hint": program.hint,
            "solution": program.text,
            "level": 1 + sum(program.bits >= threshold for threshold in LEVEL_THRESHOLDS),
            "outputs": found,
            "shown": shown,
        }
        for split, draws in draw_splits(seed, is_hard).items()
        for found, program, shown in draws
    ]


def demonstrations(
    rng: Random, exclude: Collection[Behaviour] = (), weights: Weights = DEMONSTRATION
) -> Iterator[tuple[str, str]]:
    """Yield pairs (prompt, completion) without end: correct answers to random prompts, to train a base model on.

    Drawn like the task's problems, but with other weights, behaviours again and again, and examples on any five
    digits.

    Args:
        rng: consumed as the pairs are drawn.
        exclude: behaviours that must not appear; see :func:`held_out_behaviours`.
        weights: how often a draw takes each way.
    """
    functions: dict[str, Callable[[list[int]], Value] | None] = {}
    while True:
        program = draw_program(rng, weights)
        text = program.text
        if text not in functions:
            found = behaviour_of(text) if len(text) <= MAX_REFERENCE_LENGTH else None
            functions[text] = None if found is None or found in exclude else compile_own(text)
        function = functions[text]
        examples = None if function is None else _draw_examples(rng, function)
        if examples is not None:
            yield format_prompt(program.hint, examples), text


@lru_cache(maxsize=1)
def held_out_behaviours() -> frozenset[Behaviour]:
    """What the usual validation and test problems that ship do; not the hard ones."""
    task = Programs()
    return frozenset(map(behaviour_in, task.problems("validation") + task.problems("test")))


def behaviour_in(problem: Problem) -> Behaviour:
    """What the right answers to a problem do."""
    return tuple(tuple(output) if isinstance(output, list) else output for output in problem.row["outputs"])


def _draw_examples(rng: Random, function: Callable[[list[int]], Value]) -> list[tuple[list[int], Value]] | None:
    """Two or three random inputs with their outputs; None if a few attempts find none that tell much."""
    num_shown = 2 + below(rng, 2)
    for _ in range(8):
        inputs = [draw_input(rng) for _ in range(num_shown)]
        try:
            examples = [(given, function(list(given))) for given in inputs]
        except (IndexError, ValueError, ZeroDivisionError):
            continue
        if _is_telling(examples):
            return examples
    return None


def _is_telling(examples: Sequence[tuple[Sequence[int], int | Sequence[int]]]) -> bool:
    """Whether the outputs are distinct, none an empty list, and the prompt is short enough."""
    outputs = [written(output) for _, output in examples]
    is_distinct = len(set(outputs)) == len(outputs) and "[]" not in outputs
    return is_distinct and len(format_prompt("", examples)) <= MAX_PROMPT_LENGTH


def _draw_programs(
    rng: Random, weights: Weights, number: int, excluded: Collection[Behaviour], least_bits: float = 0.0
) -> Draws:
    """So many behaviours, each with the least surprising of the programs drawn for it, and what its problem shows."""
    programs: dict[Behaviour, Function] = {}
    shown: dict[Behaviour, list[int]] = {}
    known: set[str] = set()
    while len(programs) < number:
        program = draw_program(rng, weights)
        if len(program.text) > MAX_REFERENCE_LENGTH or program.text in known or program.bits < least_bits:
            continue
        known.add(program.text)
        found = behaviour_of(program.text)
        if found is None or found in excluded:
            continue
        if found not in programs:
            picks = _pick_shown(rng, found)
            if picks is None:
                continue
            shown[found] = picks
        elif program.bits >= programs[found].bits:
            continue
        programs[found] = program
    return [(found, program, shown[found]) for found, program in programs.items()]


def _pick_shown(rng: Random, found: Behaviour) -> list[int] | None:
    """Indices of two or three of ``INPUTS`` whose outputs tell something; None if a few attempts find none."""
    num_shown = 2 + below(rng, 2)
    for _ in range(20):
        picks = [below(rng, len(INPUTS)) for _ in range(num_shown)]
        if len(set(picks)) == num_shown and _is_telling([(INPUTS[i], found[i]) for i in picks]):
            return picks
    return None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the problems of the task programs.")
    parser.add_argument("out", type=Path, help="write this file, .jsonl.gz")
    parser.add_argument("--seed", type=int, default=0, help="draw the problems of this seed")
    parser.add_argument("--hard", action="store_true", help="draw the other, harder problems")
    arguments = parser.parse_args()
    write_problems(arguments.out, problem_rows(arguments.seed, arguments.hard))
