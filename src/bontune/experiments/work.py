"""The work of a suite, as functions for processes of their own: train a run, measure a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bontune.base.errors import BontuneError
from bontune.base.files import write_whole
from bontune.base.signals import StopSignals
from bontune.engines.contract import SamplingOptions
from bontune.experiments.jobs import visited
from bontune.experiments.store import (
    BASE_SELECT,
    Measurement,
    Store,
    SuiteRun,
    different,
    num_problems,
    task_section,
    verifiers,
)
from bontune.experiments.suite import BASE, Suite
from bontune.metrics import RewardScale, reward_scale
from bontune.metrics.evaluation import Evaluation, evaluate_pool
from bontune.models import quiet_libraries
from bontune.pools.chance import with_chance
from bontune.pools.collect import score_all
from bontune.pools.draw import PoolRequest, draw_pool
from bontune.pools.pool import Pool, grades_of, problems_of
from bontune.pools.read import read_pool
from bontune.training.checkpoint import versions
from bontune.training.read_log import read_json, read_metrics, rows_of_kind
from bontune.training.trainer import Trainer
from bontune.verifiers import verifier_from_text

KEPT_SEED = 0
"""The pools of this seed on the test problems at T = 1 are kept: the distribution of answers is read from them."""


def run_folder(work: Path, run: SuiteRun) -> Path:
    """The folder that a run trains in."""
    return work / run.name


def model_folder(suite: Suite, work: Path, run: SuiteRun, select: str) -> Path:
    """The folder of the model of a run that is measured."""
    folder = run_folder(work, run)
    return folder / "model" if suite.measuring.checkpoint == "last" else folder / "best" / select


def pool_path(work: Path, run: SuiteRun, select: str, what: Measurement) -> Path:
    """The file that a pool is collected in."""
    return run_folder(work, run) / "pools" / (BASE_SELECT if run.arm == BASE else select) / what.file


def train(suite: dict[str, Any], out: str, work: str, run: dict[str, Any], command: str = "") -> None:
    """Train a run, or resume it, and record how it went. Arguments are plain data, for another process."""
    settings, this = Suite.model_validate(suite), SuiteRun(**run)
    store = Store(Path(out), settings, command)
    if store.trial(this) is not None:
        return
    quiet_libraries()
    folder = run_folder(Path(work), this)
    with visited(Path(work)):
        check_made_with(folder / "settings.json", store.training_settings(this))
        summary = Trainer(settings.run_recipe(this.arm, this.lr, this.seed, str(folder)), is_quiet=True).train()
    rows = read_metrics(folder / "metrics.jsonl")
    steps = rows_of_kind(rows, "step")
    history = [{"step": row["step"], **row["metrics"]} for row in rows_of_kind(rows, "eval")]
    kept = summary["kept"]
    if settings.measuring.checkpoint == "last":
        kept = {name: {"step": summary["steps"], "value": history[-1][name]} for name in kept}
    trial = {
        "arm": this.arm,
        "lr": this.lr,
        "seed": this.seed,
        "steps": summary["steps"],
        "generations": summary["generations"],
        "kept": kept,
        "history": history,
        "seconds": sum(sum(row["seconds"].values()) for row in steps),
        "versions": versions(),
    }
    store.write_trial(this, trial)


def measure(
    suite: dict[str, Any],
    out: str,
    work: str,
    run: dict[str, Any],
    select: str,
    whats: Sequence[dict[str, Any]],
    command: str = "",
) -> None:
    """Measure the model of a run that ``select`` kept, or the base model; what is there already is left as it is."""
    settings, this = Suite.model_validate(suite), SuiteRun(**run)
    store = Store(Path(out), settings, command)
    quiet_libraries()
    trial = None if this.arm == BASE else store.trial(this)
    for what in (Measurement(**fields) for fields in whats):
        if store.measured(this, select, what) is None:
            has_own = (run_folder(Path(work), this) / "verifier").is_dir()  # under which no other run is measured
            found = None if trial is None or has_own else _same_model(store, this, trial, select, what)
            if found is None:
                with visited(Path(work)):
                    found = _measure_one(store, Path(work), this, select, what)
            store.write_measurement(this, select, what, found)
            if not (this.seed == KEPT_SEED and what.data == "test" and what.temperature == 1.0):
                _forget(pool_path(Path(work), this, select, what))


def _same_model(
    store: Store, run: SuiteRun, trial: dict[str, Any], select: str, what: Measurement
) -> Evaluation | None:
    """The measurement of the same weights: another metric's checkpoint of that step, or the base model at step 0."""
    step = trial["kept"][select]["step"]
    others = [(run, other) for other, kept in trial["kept"].items() if other != select and kept["step"] == step]
    others += [(SuiteRun(arm=BASE), BASE_SELECT)] if step == 0 else []
    found = (store.measured(other_run, other, what) for other_run, other in others)
    return next((evaluation for evaluation in found if evaluation is not None), None)


def train_and_measure(
    suite: dict[str, Any],
    out: str,
    work: str,
    run: dict[str, Any],
    select: str,
    whats: Sequence[dict[str, Any]],
    command: str = "",
) -> None:
    """Train one run, then measure the pools that the suite asks for."""
    train(suite, out, work, run, command)
    measure(suite, out, work, run, select, whats, command)


def _measure_one(store: Store, work: Path, run: SuiteRun, select: str, what: Measurement) -> Evaluation:
    """Collect the pool of one model, or resume it, and evaluate it."""
    suite = store.suite
    tree, path = suite.tree(BASE), pool_path(work, run, select, what)
    model = tree["model"] if run.arm == BASE else str(model_folder(suite, work, run, select))
    if run.arm != BASE and not Path(model).is_dir():
        raise BontuneError(
            f"The models of {run.name} are gone ({model}), and measurements of them are missing: delete "
            f"{store.pieces.where(store.trial_name(run))} to have it trained again."
        )
    task = task_section(suite, what.data)
    request = PoolRequest(
        model=model,
        task=task["name"],
        task_options={key: value for key, value in task.items() if key not in ("name", "split")},
        sampling=SamplingOptions(
            num_samples=suite.measuring.samples,
            max_new_tokens=tree["sampling"]["max_new_tokens"],
            temperature=what.temperature,
            top_p=tree["sampling"]["top_p"],
        ),
        split=task["split"],
        limit=num_problems(suite, what.data),
        verifier=suite.measuring.verifier,
    )
    settings = store.measuring_settings(run, what)
    found = evaluate(suite, _drawn(request, path, settings), path)
    own = run_folder(work, run) / "verifier"
    if not own.is_dir():
        return found
    values = dict(found.values) | {f"own:{name}": v for name, v in _under(own, suite, read_pool(path), path).items()}
    if what.data == "test" and what.temperature == 1.0:  # is the gain the policy's, or its verifier's?
        base = path.with_name(f"{BASE}-{path.name}")
        pool = _drawn(replace(request, model=tree["model"]), base, settings)
        values |= {f"own:base:{name}": v for name, v in _under(own, suite, pool, base).items()}
        _forget(base)
    return Evaluation(problem_ids=found.problem_ids, values=values)


def _drawn(request: PoolRequest, path: Path, settings: dict[str, Any]) -> Pool:
    """The pool of a request, which is drawn unless it is there."""
    check_made_with(_settings_of(path), settings)
    if not path.exists():
        with StopSignals() as signals:
            draw_pool(request, path, poll=signals.poll)
    return read_pool(path)


def _under(verifier: Path | str, suite: Suite, pool: Pool, path: Path) -> dict[str, np.ndarray]:
    """Compute best@k of a pool under another verifier."""
    spec = str(verifier)
    scores = score_all(verifier_from_text(spec), problems_of(pool, path), pool.columns["completion"], grades_of(pool))
    rewards, ks = pool.columns["reward"], suite.measuring.ks
    scored = evaluate_pool(pool.problem_ids, rewards, ks, scores_PM=scores, scale=_scale(suite, pool))
    return {metric: v for metric, v in scored.values.items() if metric.startswith("best@")}


def _scale(suite: Suite, pool: Pool) -> RewardScale:
    """How the rewards of a pool are read: what counts as solved is the same for all pools of a suite."""
    return reward_scale([pool.columns["reward"]], suite.tree(BASE)["eval"]["solved_at"])


def check_made_with(path: Path, settings: dict[str, Any]) -> None:
    """Note what a run or pool of the work folder is made with, before it is begun.

    Raises:
        BontuneError: it was begun with other settings, such as other problems or a model of the same name.
    """
    found, wanted = read_json(path), json.loads(json.dumps(settings))
    if found is None:
        write_whole(path, json.dumps(wanted, indent=1), "settings")
    elif found != wanted:
        raise BontuneError(
            f"{path.parent} holds work of other settings ({different(found, wanted)}): give another --work, or "
            "delete it."
        )


def _settings_of(pool: Path) -> Path:
    return pool.with_suffix(".settings.json")


def _forget(pool: Path) -> None:
    """A pool whose measurement is written."""
    for path in (pool, _settings_of(pool)):
        path.unlink(missing_ok=True)


def evaluate(suite: Suite, pool: Pool, path: Path) -> Evaluation:
    """Every metric that suites use: pass@k, chance@k, best@k under each verifier (``name:best@k`` for other ones),
    distinct answers, entropy, and majority@k where the suite asks for votes."""
    ks = suite.measuring.ks
    has_votes = suite.measuring.votes
    scale = _scale(suite, pool)
    evaluation = evaluate_pool(
        pool.problem_ids,
        pool.columns["reward"],
        ks,
        scores_PM=pool.scores(),
        answers_PM=pool.columns["answer"],
        is_full=has_votes,
        scale=scale,
    )
    evaluation = with_chance(evaluation, pool, scale)
    wanted = ("pass@", "max@", "chance@", "best@", "distinct", "entropy", *(["majority@"] if has_votes else []))
    values = {name: v for name, v in evaluation.values.items() if name.startswith(wanted)}
    for name, spec in verifiers(suite).items():
        if name:
            values |= {f"{name}:{metric}": v for metric, v in _under(spec, suite, pool, path).items()}
    return Evaluation(problem_ids=pool.problem_ids, values=values)


def progress_of(folder: Path) -> tuple[int, float | None]:
    """The step that a training is at, and the seconds that a step takes: the median of the last ones."""
    path = folder / "metrics.jsonl"
    rows = rows_of_kind(read_metrics(path), "step") if path.exists() else []
    if not rows:
        return 0, None
    return int(rows[-1]["step"]), float(np.median([sum(row["seconds"].values()) for row in rows[-5:]]))
