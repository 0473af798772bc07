"""Contract of the supervised objectives in the loop:

1. each runs, logs finite numbers, and raises the share of right answers on an easy task;
2. SFT is SFT: a plain PyTorch loop gives the same weights; BoN-SFT at N = 1 is SFT, and RFT's weights are the counts;
3. each goes to the optimum that was derived for it, on a model with two kinds of answers;
4. log-probabilities are those of a plain forward pass, for policy and anchor, whatever the micro-batch;
5. a run that was killed ends bitwise equal to one that was left alone; two processes train as one;
6. what cannot work is refused before anything is written.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny
from bontune import Recipe, task_from_rows
from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.grading.verdict import Grade, Verdict
from bontune.objectives.batch import Sources
from bontune.objectives.table import ROWS
from bontune.pools.collect import Graded
from bontune.tasks import load_task
from bontune.tasks.base import HasDemonstrations
from bontune.tasks.gsm8k import Gsm8k
from bontune.tasks.rows import RowsTask
from bontune.training.advantages import sequence_logprobs
from bontune.training.log import batch_numbers
from bontune.training.rollouts import encode_demonstrations
from bontune.training.setup import check_objective
from bontune.verifiers import FunctionVerifier
from training import run_driver, test_two_processes
from training.test_trainer import NUMBERS, recipe, rows_of, share_of_capitals, trainer

SUPERVISED = [row.name for row in ROWS if not row.is_policy_gradient]
NO_KL = {"start": 0.0, "end": 0.0}


def letters() -> RowsTask:
    """Begin with one of eight letters; each row shows one. A random model does in about one of ten cases."""
    rows = [{"prompt": f"{letter}=", "solution": "abcdefgh"[i % 8]} for i, letter in enumerate("abcdefghijkl")]
    return task_from_rows(rows, lambda row, text: text[:1] in tuple("abcdefgh"), hold_out=0.0)


def phrases() -> RowsTask:
    """Prompts and answers of many lengths."""
    rows = [{"prompt": "q" * (1 + i % 3) + "=", "answer": "abc12"[: 1 + i % 5], "id": str(i)} for i in range(8)]
    return task_from_rows(rows, lambda row, text: text == row["answer"], hold_out=0.0)


# ---- 1: each runs ----


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in SUPERVISED),
        ("rft", {"distinct": True, "normalised": False}),
        ("bon_distillation", {"winners": "correct"}),
        ("bon_sft", {"law": "variational", "baseline": "none"}),
        ("bonbon", {"alpha": 0.5}),
        ("vbon", {"reference_samples": 0, "estimate": "harmonic"}),
        ("bond", {"reference_samples": 0, "law": "no_ties", "beta": 0.9}),
    ],
    ids=lambda part: part if isinstance(part, str) else ",".join(part),
)
def test_every_supervised_objective_trains(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    # vBoN and BOND stop at the reference's Best-of-N law; at N = 16 that is far from the reference.
    is_pulled = name in ("vbon", "bond")
    settings = recipe(
        tmp_path,
        objective={"name": name, "n": 16 if is_pulled else 4, **options},
        kl={"start": 0.01, "end": 0.01, "anchor_ema": 0.0},
        eval={"samples": 16},
    )
    run = trainer(settings, letters())
    before = run.evaluate_problems(run.problems).means()["pass@1"]
    summary = run.train()
    after = run.evaluate_problems(run.problems).means()["pass@1"]
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 13))
    for row in rows:
        assert set(row) == NUMBERS | {"kind", "seconds"}
        assert all(math.isfinite(row[number]) for number in NUMBERS)
        assert 0 <= row["reward"] <= row["best_of_n"] == row["pass_at_n"] <= 1
    assert any(row["weighted"] > 0 for row in rows)
    assert rows[-1]["kl"] > 0, "the policy has moved off its anchor"
    # Best-of-N SFT leaves what Best-of-4 would find anyway.
    assert after > before + (0.07 if is_pulled or name == "bon_sft" else 0.15)
    drawn = {"sft": 0, "dco": 0, "vbon": 32, "bond": 32}.get(name, 16) if options.get("reference_samples") != 0 else 16
    assert summary["generations"] == 12 * 8 * drawn
    if drawn == 0:
        assert {(row["reward"], row["samples"]) for row in rows} == {(1.0, 8)}, "the numbers are the demonstrations'"
    else:
        assert {row["samples"] for row in rows} == {8 * 16}, "the numbers are those of samples"


# ---- 2: the same as by hand ----


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sft_is_a_plain_loop(tmp_path: Path, temperature: float) -> None:
    settings = recipe(
        tmp_path,
        objective={"name": "sft"},
        kl=NO_KL,
        sampling={"temperature": temperature},
        training={"steps": 3, "prompts_per_step": 4, "weight_decay": 0.1},
    )
    run = trainer(settings, phrases())
    model, tokenizer = copy.deepcopy(run.model), run.tokenizer
    batches = [run.problems_of(run.draws(step)) for step in (1, 2, 3)]

    def losses(of: Any, problems: list[Problem]) -> list[torch.Tensor]:
        found = []
        for problem in problems:
            prompt = tokenizer(problem.prompt)["input_ids"]
            answer = [*tokenizer(problem.reference)["input_ids"], tokenizer.eos_token_id]
            logits = of(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1] / temperature
            found.append(torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum"))
        return found

    with torch.no_grad():
        before = sum(losses(model, run.problems))
    run.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for step, problems in enumerate(batches):
        optimizer.zero_grad()
        loss = torch.stack(losses(model, problems)).mean()
        loss.backward()
        assert rows_of(tmp_path)[step]["loss"] == pytest.approx(loss.item(), rel=1e-4)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    for trained, plain in zip(run.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(
            trained, plain, rtol=0, atol=2e-5
        )  # AdamW turns the last bits of tiny gradients into steps of up to lr
    with torch.no_grad():
        assert sum(losses(run.model, run.problems)) < 0.9 * before


def test_bon_sft_at_1_is_sft(tmp_path: Path) -> None:
    weights = []
    for name in ("sft", "bon_sft"):
        settings = recipe(tmp_path / name, objective={"name": name, "n": 1}, kl=NO_KL, training={"steps": 4})
        run = trainer(settings, letters())
        run.train()
        weights.append(run.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("is_distinct", [False, True])
@pytest.mark.parametrize("is_normalised", [False, True])
def test_rft_weighs_by_counting(tmp_path: Path, is_distinct: bool, is_normalised: bool) -> None:
    options = {"name": "rft", "distinct": is_distinct, "normalised": is_normalised}
    run = trainer(recipe(tmp_path, objective=options, training={"steps": 2}), letters())
    seen = weighed(run)
    run.train()
    assert len(seen) == 2
    for graded, advantages_PM in seen:
        for texts, grades, row in zip(graded.samples.texts, graded.grades, advantages_PM.tolist(), strict=True):
            kept: list[int] = []
            for i, (text, grade) in enumerate(zip(texts, grades, strict=True)):
                if grade.reward == 1 and not (is_distinct and text in [texts[j] for j in kept]):
                    kept.append(i)
            share = 1 / len(kept) if kept and is_normalised else 1.0
            assert row == pytest.approx([16 * share * (i in kept) for i in range(16)])


def weighed(run: Any) -> list[tuple[Graded, torch.Tensor]]:
    """What is weighed from now on, and how."""
    seen, original = [], run.weigh

    def weigh(step: int, graded: Graded, draws: Sequence[int]) -> torch.Tensor:
        advantages_PM = original(step, graded, draws)
        seen.append((graded, advantages_PM))
        return advantages_PM

    run.weigh = weigh
    return seen


def test_what_could_not_be_graded_carries_no_weight(tmp_path: Path) -> None:
    """A demonstration too: bon_sft would compare with a score that nobody knows."""

    def grade(row: Any, text: str) -> float:
        if row["prompt"] == "a=" and text == row["solution"]:
            raise RuntimeError("boom")
        return float(text == row["solution"])

    rows = [{"prompt": f"{letter}=", "solution": letter * 3} for letter in "abcdefgh"]
    settings = recipe(tmp_path, objective={"name": "bon_sft"}, training={"steps": 1})
    run = trainer(settings, task_from_rows(rows, grade, hold_out=0.0))
    seen = weighed(run)
    run.train()
    ((graded, advantages_PS),) = seen
    for problem, weights in zip(graded.problems, advantages_PS, strict=True):
        assert (weights[-1] == 0) == (problem.prompt == "a=")


# ---- 3: the optimum ----


def two_kinds(share: int) -> RowsTask:
    """One prompt; experts answer "A" in ``share`` of 10 rows and "b" in the others."""
    rows = [{"prompt": "which?", "solution": "A" if i < share else "b"} for i in range(10)]
    return task_from_rows(rows, lambda row, text: text[:1].isupper() == row["solution"].isupper(), hold_out=0.0)


def root(slope: Callable[[float], float]) -> float:
    """Where a falling function of a probability is 0."""
    low, high = 1e-9, 1 - 1e-9
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return low


# With P(capital) = p and experts that answer "A" in a share a:
#   sft      a log p + (1−a) log(1−p), greatest at p = a.
#   dco      a log(1−(1−p)^N) + (1−a) log(1−p^N): that very answer among N.
#   bon_sft  (exact law) verifier prefers capitals: π_bon(capital) = 1 − (1−p)^N, so 1 − (1−p)^N = a.
#            verifier knows the row's kind: the winner is of that kind unless all N are of the other, as in dco.
#   bond     verifier prefers capitals, reference has p0: π_bon(capital) = 1 − (1−p0)^N.
#   vbon     ref·F^{N−1}/Z with F = 1 for capitals, 1−p0 for others: p0/(p0 + (1−p0)^N).
COVER = root(lambda p: 0.9 * 4 * (1 - p) ** 3 / (1 - (1 - p) ** 4) - 0.1 * 4 * p**3 / (1 - p**4))


@pytest.mark.parametrize(
    ("objective", "share", "prefers_capitals", "wanted"),
    [
        ({"name": "sft"}, 9, False, lambda p0: 0.9),
        ({"name": "dco", "n": 4}, 9, False, lambda p0: COVER),
        ({"name": "bon_sft", "n": 4, "law": "exact"}, 6, True, lambda p0: 1 - 0.4 ** (1 / 4)),
        ({"name": "bon_sft", "n": 4, "law": "exact"}, 9, False, lambda p0: COVER),
        ({"name": "bond", "n": 4, "reference_samples": 32}, 5, True, lambda p0: 1 - (1 - p0) ** 4),
        ({"name": "vbon", "n": 4, "reference_samples": 32}, 5, True, lambda p0: p0 / (p0 + (1 - p0) ** 4)),
    ],
    ids=["sft", "dco", "bon_sft", "bon_sft, verifier knows", "bond", "vbon"],
)
def test_the_optimum_is_the_derived_one(
    tmp_path: Path, objective: dict[str, Any], share: int, prefers_capitals: bool, wanted: Callable[[float], float]
) -> None:
    settings = recipe(
        tmp_path,
        objective=objective,
        kl=NO_KL | {"anchor_ema": 0.0},
        sampling={"samples": 32, "max_new_tokens": 1},
        training={"steps": 60, "prompts_per_step": 10, "decay": "linear", "lr": 0.01},
    )
    verifier = FunctionVerifier(lambda problem, text: float(text[:1].isupper()), "capitals")
    run = trainer(settings, two_kinds(share), verifier=verifier if prefers_capitals else None)
    p0 = share_of_capitals(run.model)
    assert 0.1 < p0 < 0.5
    run.train()
    assert share_of_capitals(run.model) == pytest.approx(wanted(p0), abs=0.04)


# ---- 4: log-probabilities and sources ----


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_logprobs_are_those_of_a_plain_forward_pass(tmp_path: Path, family: str) -> None:
    settings = recipe(
        tmp_path, objective={"name": "bond"}, sampling={"samples": 5, "max_new_tokens": 6, "temperature": 0.8}
    )
    run = trainer(settings, phrases(), model=tiny.model(family, sharp=2.0))
    other = tiny.model(family, seed=1, sharp=2.0)
    for name, parameter in other.named_parameters():
        run.anchor.tensors[name] = parameter.detach().clone()
    with run.accelerator.autocast():
        samples = run.rollouts.of(run.problems, 0, range(len(run.problems)))
    assert samples.num_samples == 10
    plain: dict[str, list[float]] = {"policy": [], "anchor": []}
    rows = torch.arange(len(samples.lengths_B))
    with torch.no_grad():
        for label, model in (("policy", run.model), ("anchor", other)):
            for row in rows.tolist():
                prompt = samples.prompts[row // 10]
                answer = samples.tokens_BT[row, : samples.lengths_B[row]]
                logits = model(torch.tensor([prompt + answer.tolist()])).logits[0, len(prompt) - 1 : -1]
                logprobs = (logits.double() / 0.8).log_softmax(-1)
                plain[label].append(float(logprobs.gather(-1, answer.unsqueeze(-1)).sum()))
    wanted = {label: torch.tensor(values, dtype=torch.float64) for label, values in plain.items()}
    for token_budget in (1, 40, 100_000):
        options: dict[str, Any] = {"temperature": 0.8, "token_budget": token_budget}
        ours = sequence_logprobs(run.lm, samples, rows, **options)
        torch.testing.assert_close(ours, wanted["policy"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(sequence_logprobs(run.lm, samples, rows[7:9], **options), ours[7:9])
        with run.anchor.in_place_of_policy():
            theirs = sequence_logprobs(run.lm, samples, rows, **options)
        torch.testing.assert_close(theirs, wanted["anchor"], rtol=1e-5, atol=1e-5)
    # The first five of each prompt were drawn by the policy, the other five by the anchor.
    drawn = samples.logprobs_BT.double().sum(-1).view(-1, 10)
    torch.testing.assert_close(drawn[:, :5], wanted["policy"].view(-1, 10)[:, :5], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(drawn[:, 5:], wanted["anchor"].view(-1, 10)[:, 5:], rtol=1e-5, atol=1e-5)


def test_columns_stay_what_they_are(tmp_path: Path) -> None:
    """Own samples come first and are those that RL would draw; the demonstration is last, with the end token."""
    runs = [
        trainer(recipe(tmp_path, objective={"name": name}, sampling={"max_new_tokens": 3}), phrases())
        for name in ("bon_rl", "bon_sft")
    ]
    own, both = (run.rollouts.of(run.problems, 0, range(8)) for run in runs)
    assert (own.num_samples, both.num_samples) == (16, 17)
    width = own.tokens_BT.shape[1]
    assert torch.equal(both.tokens_BT.view(8, 17, -1)[:, :16, :width], own.tokens_BT.view(8, 16, -1))
    for p, problem in enumerate(runs[1].problems):
        end = int(both.lengths_B.view(8, 17)[p, -1])
        tokens = both.tokens_BT.view(8, 17, -1)[p, -1, :end].tolist()
        assert tokens == [*tiny.tokenizer()(problem.reference)["input_ids"], 1]
        assert both.texts[p] == [*own.texts[p], problem.reference]
    # A step's numbers are about its own samples: the demonstration's reward, score, length and end do not count.
    numbers = []
    for samples, more in ((own, 0), (both, 1)):
        grades = [[Grade(reward=float(i % 3 == 0), verdict=Verdict.PASSED) for i in range(16 + more)] for _ in range(8)]
        scores = [[float(i) for i in range(16 + more)] for _ in range(8)]
        graded = Graded(problems=runs[1].problems, samples=samples, grades=grades, scores=scores)
        numbers.append(batch_numbers(graded, 16, 4, runs[1].accelerator))
    assert numbers[0] == numbers[1]
    assert numbers[0]["samples"] == 8 * 16


def test_the_kl_is_estimated_on_as_many_samples_as_without_other_columns() -> None:
    for share in (0.01, 0.1, 0.25, 1 / 3, 0.5, 0.7, 1.0):
        for own in range(1, 130):
            for reference, demonstrated in ((0, 0), (0, 1), (own, 0), (7, 1)):
                sources = Sources(own=own, reference=reference, demonstrated=demonstrated)
                assert math.ceil(sources.kl_share(share) * sources.total) == math.ceil(share * own)


# ---- demonstrations ----


def test_tasks_that_ship_have_demonstrations_that_pass() -> None:
    for name in ("countdown", "programs"):
        task = load_task(name)
        assert isinstance(task, HasDemonstrations)
        for problem in task.problems("validation")[:50]:
            # Programs run in a sandbox, which not every machine has; that their references pass is tested with them.
            assert task.demonstration(problem) == problem.reference
            assert name == "programs" or task.grade([problem], [[task.demonstration(problem)]])[0][0].reward == 1.0
    row = {"question": "1 + 1?", "answer": "It is 2.\n#### 2"}
    problem = Problem(id="1", prompt="Q: 1 + 1?\nA:", reference="2", row=row)
    words = object.__new__(Gsm8k)
    words._format = "auto"
    assert words.demonstration(problem) == " It is 2.\n#### 2"


def test_a_conversation_is_closed_by_the_token_that_closes_a_turn() -> None:
    tokenizer, model = tiny.tokenizer(), tiny.model()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}#{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
    )
    sharp = tokenizer("#")["input_ids"][0]
    rows = [{"prompt": "x", "solution": " ab"}, {"prompt": "y", "solution": "  c"}]
    task = task_from_rows(rows, lambda row, text: 1.0, hold_out=0.0)
    chatty = [
        Problem(id=p.id, prompt=p.prompt, reference="", row=p.row, messages=({"role": "user", "content": p.prompt},))
        for p in task.problems("train")
    ]

    def texts(problems: list[Problem]) -> list[str]:
        return [tokenizer.decode(ids) for ids in encode_demonstrations(task, problems, model, tokenizer).values()]

    assert texts(chatty) == ["ab<eos>", "  c<eos>"], "the model does not end at #"
    model.generation_config.eos_token_id = [1, sharp]
    assert texts(chatty) == ["ab#", "  c#"]
    assert texts(task.problems("train")) == [" ab<eos>", "  c<eos>"]


def test_a_demonstration_closes_the_thought_that_its_prompt_opens() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<think>", "</think>"])
    model = tiny.model(vocab_size=len(tokenizer))
    for thoughts, ending, expected in (
        ("auto", "<think>", "</think>\n\nab<eos>"),
        ("auto", "", "ab<eos>"),
        ("none", "<think>", "ab<eos>"),
        (["<think>", "</think>"], "<think>", "</think>\n\nab<eos>"),
    ):
        rows = [{"prompt": "x=" + ending, "solution": "ab"}]
        task = task_from_rows(rows, lambda row, text: text == "ab", hold_out=0.0, thoughts=thoughts)
        (problem,) = task.problems("train")
        (ids,) = encode_demonstrations(task, [problem], model, tokenizer).values()
        assert tokenizer.decode(ids) == expected


# ---- 5: reliability ----


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[run_driver.Driver]:
    with run_driver.driver(tmp_path_factory.mktemp("driver")) as started:
        yield started


@pytest.mark.parametrize("name", ["bon_sft", "bonbon"])
def test_killed_and_resumed_is_bitwise_undisturbed(driver: run_driver.Driver, tmp_path: Path, name: str) -> None:
    overrides = (f"objective.name={name}", "training.steps=4", "training.checkpoint_every=1", "eval.every=0")
    polls = tmp_path / "polls"
    assert driver.train(tmp_path / "whole", *overrides, polls=str(polls)).code == 0
    run, number = tmp_path / "killed", int(0.7 * int(polls.read_text()))
    assert driver.train(run, *overrides, signals=[number, ["SIGKILL"]]).code == -9
    assert run_driver.steps(run)
    assert driver.train(run, *overrides).code == 0
    assert run_driver.outcome(run) == run_driver.outcome(tmp_path / "whole")


folder = test_two_processes.folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bonbon", "bond"])
def test_two_processes_are_one(folder: Path, name: str) -> None:
    for how, label in ((test_two_processes.ONE, "one"), (test_two_processes.TWO, "two")):
        done = test_two_processes.launch(folder, how, f"{name}-{label}", objective={"name": name, "n": 4})
        assert done.returncode == 0, done.stderr
    one, two = (load_file(folder / f"{name}-{label}" / "model" / "model.safetensors") for label in ("one", "two"))
    start = load_file(folder / "model" / "model.safetensors")
    assert any(not torch.equal(tensor, start[key]) for key, tensor in one.items()), "it trained"
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=0, atol=1e-4)


# ---- 6: refused before anything is written ----


class Bare:
    """A task without demonstrations."""

    name, stop, splits = "bare", (), ("train",)

    def problems(self, split: str) -> list[Problem]:
        return [Problem(id="1", prompt="a=", reference="")]

    def grade(self, problems: Any, completions: Any, poll: Any = None) -> list[list[Grade]]:
        return [[Grade(reward=1.0, verdict=Verdict.PASSED) for _ in row] for row in completions]


def rows_with(**row: Any) -> RowsTask:
    return task_from_rows([{"prompt": "a=", **row}], lambda row, text: 1.0, hold_out=0.0)


@pytest.mark.parametrize(
    ("task", "phrase"),
    [
        (Bare(), r"Task bare has no demonstrations.*give the task a method demonstration\(problem\)"),
        (rows_with(), "problem [0-9a-f]{12} has no demonstration; give its row a column solution"),
        (rows_with(solution=" "), "demonstration of problem [0-9a-f]{12} is empty"),
        (rows_with(solution="b" * 510), r"2 \+ 511 tokens, more than the model's context of 512"),
    ],
    ids=["no method", "no column", "empty", "too long"],
)
def test_no_demonstrations(tmp_path: Path, task: Any, phrase: str) -> None:
    run = tmp_path / "run"
    for name in ("sft", "dco", "bon_sft"):
        with pytest.raises(BontuneError, match=phrase):
            trainer(recipe(run, objective={"name": name}), task)
    trainer(recipe(run, objective={"name": "rft"}), task)
    assert not run.exists()


@pytest.mark.parametrize(
    ("objective", "phrase"),
    [
        ({"name": "bon_rl", "law": "no_ties"}, r"objective\.law is for bon_sft, bond; bon_rl has no use for it"),
        ({"name": "sft", "alpha": 0.1}, r"objective\.alpha is for bonbon; sft has no use for it"),
        ({"name": "bonbon", "beta": 0.1}, r"objective\.beta is for bond; bonbon has"),
        ({"name": "star", "distinct": True}, r"objective\.distinct is for rft; star has"),
        ({"name": "rft", "winners": "correct"}, r"objective\.winners is for bon_distillation; rft has"),
        ({"name": "bonbon", "reference_samples": 4}, r"objective\.reference_samples is for vbon, bond; bonbon has"),
        ({"name": "dco", "estimate": "harmonic"}, r"objective\.estimate is for bon_sft, vbon, bond; dco has"),
        (
            {"name": "rft", "draw": "winner"},
            r"objective\.draw is for bon_rl, bon_rlb, bon_rlbp, bon_rl_variational; rft has",
        ),
        ({"name": "star", "reward": "verifier"}, r"reward=verifier .* star takes rewards and scores apart"),
        ({"name": "sft", "p_fail": "running"}, r"objective\.p_fail is for bon_rlb, bon_rlbp; sft has no use"),
        ({"name": "bon_sft", "baseline": "loo1"}, "baseline: must be 'loo' or 'none', got 'loo1'"),
        ({"name": "bond", "law": "variational"}, "law: must be 'exact' or 'no_ties'"),
        ({"name": "vbon", "estimate": "loo"}, "estimate: must be 'plugin' or 'harmonic'"),
        ({"name": "vbon", "n": 1}, "objective vbon, n = 1"),
        ({"name": "bond", "reference_samples": 3}, "objective bond, n = 4"),
        ({"name": "bon_distillation", "n": 17}, "objective bon_distillation, n = 17, sampling.samples = 16"),
        ({"name": "bonbonn"}, "no objective 'bonbonn', did you mean 'bonbon'"),
    ],
    ids=lambda part: " ".join(map(str, part.values())) if isinstance(part, dict) else "",
)
def test_options_without_use(tmp_path: Path, objective: dict[str, Any], phrase: str) -> None:
    with pytest.raises(BontuneError, match=phrase):
        trainer(recipe(tmp_path / "run", objective=objective), letters())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", SUPERVISED)
def test_every_name_works_with_the_defaults(name: str) -> None:
    check_objective(Recipe.from_dict({"objective": {"name": name}}))
