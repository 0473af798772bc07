"""Contract of Best-of-N in use:

1. the winner is a candidate of the highest score, ties are broken uniformly and reproducibly;
2. the candidates are N draws from the model, the same for the same seed, whatever else is asked with them;
3. Best-of-N by majority agrees with a count by hand;
4. over many problems its success is what ``best_of_k`` says of the pool;
5. with a score to stop at, the draws end with the round that holds it, and cost and success are what the pool says;
6. the command prints the winner alone on the output, and everything as JSON;
7. what cannot work is said in one sentence.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

import tiny
from bontune import BestOfN, load_task
from bontune.base.errors import BontuneError, RunStopped
from bontune.base.problems import Problem
from bontune.cli import main
from bontune.metrics import adaptive_best_of_n, best_of_k
from bontune.models import load_model


def length(problem: Problem, completion: str) -> float:
    return float(len(completion))


def tiny_best(verifier: object = length, n: int = 8, **options: object) -> BestOfN:
    settings = {"max_new_tokens": 4, "seed": 0} | options
    return BestOfN(tiny.model(), verifier, n, tokenizer=tiny.tokenizer(), **settings)  # type: ignore[arg-type]


def test_the_winner_has_the_highest_score() -> None:
    for answer in tiny_best().generate([f"{letter}=" for letter in "abcdef"]):
        scores = [len(candidate.text) for candidate in answer.candidates]
        assert len(scores) == 8
        assert answer.score == max(scores) == len(answer.winner)
        assert answer.winner in [candidate.text for candidate in answer.candidates]


def test_draws_do_not_depend_on_the_company() -> None:
    alone = tiny_best().generate("b=")
    among = tiny_best().generate(["a=", "b=", "a much longer question="])[1]
    assert alone == among
    assert tiny_best(seed=1).generate("b=").candidates != alone.candidates


def test_ties_are_broken_uniformly() -> None:
    """A verifier that cannot tell: over many prompts, each place wins about equally often (χ² with 7 degrees: 24.3
    is passed once in a thousand)."""
    best = tiny_best(lambda problem, completion: 0.0)
    places = Counter()
    for answer in best.generate([f"{i}=" for i in range(400)]):
        texts = [candidate.text for candidate in answer.candidates]
        first = texts.index(answer.winner)
        if len(set(texts)) == len(texts):  # a text that occurs twice would be found at its first place
            places[first] += 1
    total = sum(places.values())
    assert total > 200
    assert sum((places[i] - total / 8) ** 2 / (total / 8) for i in range(8)) < 24.3


def test_majority_votes_for_the_answer() -> None:
    best = tiny_best("majority", 16, max_new_tokens=1, read_answer=lambda text: text.lower() or None)
    for answer in best.generate([f"{letter}=" for letter in "abcd"]):
        votes = Counter(candidate.text.lower() for candidate in answer.candidates if candidate.text)
        assert answer.score == max(votes.values()) == votes[answer.winner.lower()]


def test_majority_votes_for_what_stands_behind_the_thought() -> None:
    """Where the template opens a thought that a random model never closes, nobody has a vote."""
    prompts = [f"{letter}=" for letter in "abcd"]
    for template, thoughts, has_votes in (
        ("{{ messages[0]['content'] }}", "auto", True),
        ("{{ messages[0]['content'] }}<think>", "auto", False),
        ("{{ messages[0]['content'] }}<think>", "none", True),
    ):
        tokenizer = tiny.tokenizer()
        tokenizer.chat_template = template
        best = BestOfN(tiny.model(), "majority", 8, tokenizer=tokenizer, max_new_tokens=4, thoughts=thoughts)
        for answer in best.generate(prompts):
            votes = [candidate.score > 0 for candidate in answer.candidates]
            assert votes == [has_votes and bool(candidate.text.strip()) for candidate in answer.candidates]


def test_a_number_and_its_text_are_one_vote() -> None:
    def read(text: str) -> Any:
        return 7 if len(text) % 2 else "7"

    answer = tiny_best("majority", 8, read_answer=read).generate("a=")
    assert [candidate.score for candidate in answer.candidates] == [8.0] * 8


def test_its_success_is_what_the_pool_says() -> None:
    """The share of Countdown problems solved by Best-of-4 under a noisy verifier, over independent draws, lies within
    four standard errors of best_of_k computed from a pool of 32."""
    task = load_task("countdown")
    problems = task.problems("validation")[:150]

    def noisy(problem: Problem, completion: str) -> float:
        known = next(p for p in problems if p.prompt == problem.prompt)
        return task.grade([known], [[completion]])[0][0].reward if len(completion) % 3 else 0.5

    def rewards_and_scores(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        best = BestOfN("countdown-tiny", noisy, n, max_new_tokens=24, seed=seed)
        answers = best.generate([p.prompt for p in problems])
        rewards = [
            [g.reward for g in task.grade([p], [[c.text for c in a.candidates]])[0]]
            for p, a in zip(problems, answers, strict=True)
        ]
        winners = [task.grade([p], [[a.winner]])[0][0].reward for p, a in zip(problems, answers, strict=True)]
        return np.array(rewards), np.array([[c.score for c in a.candidates] for a in answers]), np.array(winners)

    rewards, scores, _ = rewards_and_scores(32, seed=0)
    _, _, winners = rewards_and_scores(4, seed=1)
    expected = best_of_k(rewards, scores, 4)
    error = np.sqrt((expected * (1 - expected)).sum()) / len(problems) + expected.std() / len(problems) ** 0.5 / 4
    assert abs(winners.mean() - expected.mean()) < 4 * error


def test_draws_end_with_the_round_that_holds_the_score() -> None:
    def score(problem: Problem, completion: str) -> float:
        return float(sum(map(ord, completion)) % 5)

    best = tiny_best(score, 7, stop_at=4.0, round_size=2)
    answers = best.generate([f"{letter}=" for letter in "abcdefghijkl"])
    assert len({len(answer.candidates) for answer in answers}) > 1
    for answer in answers:
        scores = [candidate.score for candidate in answer.candidates]
        assert answer.score == max(scores)
        assert len(scores) in (2, 4, 6, 7)
        assert len(scores) == 7 or max(scores) >= 4.0
        before = scores[: (len(scores) - 1) // 2 * 2]
        assert all(score < 4.0 for score in before)
    assert best.generate("c=") == answers[2]


def test_a_round_is_the_start_of_what_is_drawn_at_once() -> None:
    whole = tiny_best(n=8).generate("b=")
    assert tiny_best(n=8, stop_at=-1.0, round_size=3).generate("b=").candidates == whole.candidates[:3]
    assert tiny_best(n=8, stop_at=1e9, round_size=8).generate("b=") == whole


def test_stopping_costs_and_brings_what_the_pool_says() -> None:
    """Draws and success over independent answers lie within four standard errors of what a pool of 32 tells."""
    task = load_task("countdown")
    problems = task.problems("validation")[:150]
    prompts = [problem.prompt for problem in problems]

    def rewards(texts: list[list[str]]) -> np.ndarray:
        return np.array([[grade.reward for grade in row] for row in task.grade(problems, texts)])

    pool = BestOfN("countdown-tiny", "countdown-verifier", 32, max_new_tokens=24, seed=0).generate(prompts)
    right = rewards([[candidate.text for candidate in answer.candidates] for answer in pool])
    scores = np.array([[candidate.score for candidate in answer.candidates] for answer in pool])
    expected, draws = adaptive_best_of_n(right, scores, 8, -2.0, round_size=2)
    best = BestOfN("countdown-tiny", "countdown-verifier", 8, stop_at=-2.0, round_size=2, max_new_tokens=24, seed=1)
    answers = best.generate(prompts)
    found = np.array([len(answer.candidates) for answer in answers])
    assert 2 < found.mean() < 8
    assert abs(found.mean() - draws.mean()) < 4 * found.std() / len(prompts) ** 0.5
    success = rewards([[answer.winner] for answer in answers])
    assert abs(success.mean() - expected.mean()) < 4 * success.std() / len(prompts) ** 0.5


def test_conversations(tmp_path: object) -> None:
    model, tokenizer = load_model("tiny-gemma2")
    best = BestOfN(model, length, 3, tokenizer=tokenizer, max_new_tokens=3, seed=0)
    turn = {"role": "user", "content": "hi"}
    text = best.generate("hi")
    for asked in ((turn,), [turn]):
        assert best.generate(asked).candidates == text.candidates
    more = [turn, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "no"}]
    several = best.generate([[turn], (turn,), "hi", more])
    assert [answer.candidates == text.candidates for answer in several] == [True, True, True, False]
    assert several[3] == best.generate(more)


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (None, "got NoneType None"),
        (3, "got int 3"),
        ("", "got an empty text"),
        ([], "got nothing"),
        ((), "got nothing"),
        ([""], "got an empty text"),
        (["a=", None], "got NoneType None"),
        (["a=", 3], "got int 3"),
        (["a=", []], r"got list \[\]"),
        ([["a="]], r"got list \['a='\]"),
        ({"role": "user", "content": "hi"}, "got dict"),
        ([{"role": "user", "content": "hi"}, "a="], "got list"),
        (["a=", {"role": "user", "content": "hi"}], "got dict"),
        ([{"role": "user"}], "A message must have the texts role and content"),
        ([{"role": "user", "content": None}], "A message must have the texts role and content"),
        ([[{"content": "hi"}]], "A message must have the texts role and content"),
        (b"a=", "got bytes"),
    ],
)
def test_what_is_no_prompt_is_said_in_one_sentence(prompts: object, said: str) -> None:
    with pytest.raises(BontuneError, match=said) as caught:
        tiny_best().generate(prompts)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_without_a_seed_every_call_draws_anew_and_with_one_the_same() -> None:
    fresh, fixed = tiny_best(seed=None, max_new_tokens=8), tiny_best(seed=3, max_new_tokens=8)
    assert fresh.generate("b=").candidates != fresh.generate("b=").candidates
    first, second = fresh.generate(["b=", "b="])
    assert first.candidates != second.candidates
    assert fixed.generate("b=") == fixed.generate("b=") == tiny_best(seed=3, max_new_tokens=8).generate("b=")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verifier": "oracle"}, "oracle needs right answers"),
        ({"verifier": 3}, "method score"),
        ({"n": 0}, "num_samples must be at least 1"),
        ({"temperature": -1.0}, "temperature must be 0 or more"),
        ({"round_size": 2}, "give stop_at, too"),
        ({"stop_at": float("nan")}, "stop_at must be a number"),
        ({"stop_at": 1.0, "round_size": 0}, "round_size at least 1"),
        ({"stop_at": 1.0, "verifier": "majority"}, "Votes count all N"),
    ],
)
def test_what_cannot_work(options: dict[str, object], message: str) -> None:
    with pytest.raises(BontuneError, match=message):
        tiny_best(**options)


def test_a_loaded_model_needs_its_tokenizer() -> None:
    with pytest.raises(BontuneError, match="needs its tokenizer"):
        BestOfN(tiny.model(), length, 2)


def test_a_verifier_that_fails_or_knows_nothing() -> None:
    def broken(problem: Problem, completion: str) -> float:
        raise KeyError("no such thing")

    with pytest.raises(RunStopped, match="failed: KeyError"):
        tiny_best(broken).generate("a=")
    with pytest.raises(RunStopped, match="could score none"):
        tiny_best(lambda problem, completion: float("nan")).generate("a=")


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["bontune", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    arguments = [
        "answer",
        "countdown-tiny",
        "--verifier",
        "majority",
        "-n",
        "8",
        "--max-new-tokens",
        "24",
        "3,7,2,9:48=",
    ]
    assert run(arguments, monkeypatch) == 0
    shown = capsys.readouterr()
    assert run([*arguments, "--json"], monkeypatch) == 0
    told = json.loads(capsys.readouterr().out)
    assert shown.out == told["winner"] + "\n"
    assert "8 candidates" in shown.err
    assert len(told["candidates"]) == 8
    assert run([*arguments[:-1], ""], monkeypatch) == 2
    assert "There is no question" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [{"n": 2.5}, {"n": True}, {"n": "8"}, {"n": 2, "temperature": "1"}, {"n": 2, "max_new_tokens": 1.5}]
)
def test_options_of_a_wrong_type_are_refused_when_they_are_given(wrong: dict[str, Any]) -> None:
    with pytest.raises(BontuneError, match=r"must be a (whole )?number, got "):
        BestOfN("countdown-tiny", "countdown-verifier", **wrong)
