"""Pieces: whole or not there, of these settings or refused, nothing of another origin taken for one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bontune.base.errors import BontuneError
from bontune.experiments.store import Measurement, Store, SuiteRun, num_problems, task_section
from bontune.experiments.suite import BASE
from bontune.metrics.evaluation import Evaluation
from bontune.models import weights_digest
from experiments.synthetic import measurement_path, put, put_trial, small, trial_path

RUN = SuiteRun(arm="ours", lr=1e-3, seed=1)
WHAT = Measurement(data="test", temperature=0.6)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    _, store = small(tmp_path)
    assert store.measured(RUN, "pass@8", WHAT) is None
    assert store.trial(RUN) is None
    values = {"pass@1": np.array([0.25, 1.0]), "auc": np.array([np.nan, 0.1])}
    path = measurement_path(store, RUN, "pass@8", WHAT)
    store.write_measurement(RUN, "pass@8", WHAT, Evaluation(problem_ids=["b", "a"], values=values))
    assert path == tmp_path / "out/pieces/ours-lr0.001-seed1/pass@8/test-T0.6.parquet"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    found = store.measured(RUN, "pass@8", WHAT)
    assert found is not None
    assert found.problem_ids == ["b", "a"]
    for name, column in values.items():
        assert found.values[name].tolist() == pytest.approx(column.astype(np.float32).tolist(), nan_ok=True)
    assert store.measured(RUN, "pass@1", WHAT) is None
    put_trial(store, RUN, pass_8=0.5)
    assert (store.trial(RUN) or {})["kept"] == {"pass@8": {"step": 12, "value": 0.5}}
    assert measurement_path(store, SuiteRun(arm=BASE), "pass@8", WHAT).parent == tmp_path / "out/pieces/base/model"


@pytest.mark.parametrize(
    ("overrides", "is_trial_refused", "is_piece_refused"),
    [
        (["title=Other", "seeds=9", "arms.rl.lr=[5e-4]", "metric=pass@1", "measuring.harder={hard: true}"], 0, 0),
        (["recipe.training.checkpoint_every=5", "recipe.training.token_budget=9000"], 0, 0),
        (["arms.ours.recipe.objective.n=4"], 1, 1),
        (["recipe.training.steps=13"], 1, 1),
        (["arms.ours.select=pass@1"], 1, 1),
        (["evaluations=6"], 1, 1),
        (["measuring.test_problems=41"], 0, 1),
        (["measuring.test=train"], 0, 1),
        (["measuring.test_task={hard: true}"], 0, 1),
        (["measuring.other_verifiers={rough: majority}"], 0, 1),
        (["measuring.samples=32"], 1, 1),
        (["recipe.sampling.max_new_tokens=25"], 1, 1),
    ],
)
def test_pieces_of_other_settings(
    tmp_path: Path, overrides: list[str], is_trial_refused: int, is_piece_refused: int
) -> None:
    _, store = small(tmp_path)
    put_trial(store, RUN, pass_8=0.5)
    put(store, RUN, "test", 0.6, np.arange(5.0))
    _, other = small(tmp_path, *overrides)
    calls = {
        trial_path(store, RUN): (is_trial_refused, lambda: other.trial(RUN)),
        measurement_path(store, RUN, "pass@8", WHAT): (is_piece_refused, lambda: other.measured(RUN, "pass@8", WHAT)),
    }
    for path, (is_refused, call) in calls.items():
        if not is_refused:
            assert call() is not None
            continue
        with pytest.raises(BontuneError) as refused:
            call()
        said = str(refused.value)
        assert said.startswith(f"{path} was made with other settings (not the same: ")
        assert said.endswith(f"): give another --out, or delete {path.parent} to have it made again.")
    if is_trial_refused or (is_piece_refused and "select" not in overrides[0]):
        with pytest.raises(BontuneError, match="was made with other settings"):
            other.check_all()
    else:
        other.check_all()


def test_other_weights_under_the_same_name(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"first")
    suite, _ = small(tmp_path, f"recipe.model={model}")
    before = Store(tmp_path / "out", suite)
    put_trial(before, RUN, pass_8=0.5)
    assert before.trial(RUN) is not None
    (model / "model.safetensors").write_bytes(b"second")
    with pytest.raises(BontuneError, match=r"other settings \(not the same: weights\)"):
        Store(tmp_path / "out", suite).trial(RUN)
    (model / "model.safetensors").write_bytes(b"first")
    assert Store(tmp_path / "out", suite).trial(RUN) is not None


def test_packed_pieces_say_what_the_files_said(tmp_path: Path) -> None:
    """Also of measurements with different metrics; a single file wins over the packed piece of its name."""
    suite, store = small(tmp_path)
    put_trial(store, RUN, pass_8=0.5)
    put(store, RUN, "test", 0.6, np.arange(5.0), order=[3, 1, 0, 2, 4])
    graded = Evaluation(problem_ids=["a", "b"], values={"max@1": np.array([0.5, np.nan]), "none": np.full(2, np.nan)})
    store.write_measurement(SuiteRun(arm=BASE), "", WHAT, graded)
    before = [store.trial(RUN), store.measured(RUN, "pass@8", WHAT), store.measured(SuiteRun(arm=BASE), "", WHAT)]
    names = store.pieces.names()
    store.pieces.pack()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["pieces.jsonl", "pieces.parquet"]
    for reader in (store, Store(tmp_path / "out", suite)):
        assert reader.pieces.names() == names
        after = [reader.trial(RUN), reader.measured(RUN, "pass@8", WHAT), reader.measured(SuiteRun(arm=BASE), "", WHAT)]
        assert str(after) == str(before)  # NaN is NaN
        reader.check_all()
    put_trial(store, RUN, pass_8=0.75)
    assert (store.trial(RUN) or {})["kept"]["pass@8"]["value"] == 0.75
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.parquet")}
    store.pieces.pack()
    assert (store.trial(RUN) or {})["kept"]["pass@8"]["value"] == 0.75
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.parquet")} == written


def test_packed_pieces_of_other_settings_are_refused_and_made_again_line_by_line(tmp_path: Path) -> None:
    _, store = small(tmp_path)
    put_trial(store, RUN, pass_8=0.5)
    put(store, RUN, "test", 0.6, np.arange(5.0))
    store.pieces.pack()
    _, other = small(tmp_path, "recipe.training.steps=13")
    lines = tmp_path / "out" / "pieces.jsonl"
    with pytest.raises(BontuneError, match=rf"or delete the lines of {RUN.name} in {lines} to have it made again"):
        other.check_all()
    kept = [line for line in lines.read_text().splitlines() if not line.startswith(f'{{"piece": "{RUN.name}/')]
    lines.write_text("".join(f"{line}\n" for line in kept))
    _, again = small(tmp_path, "recipe.training.steps=13")
    again.check_all()
    assert again.trial(RUN) is None
    assert again.measured(RUN, "pass@8", WHAT) is None


@pytest.mark.parametrize("name", ["pieces.jsonl", "pieces.parquet"])
def test_damaged_packed_pieces(name: str, tmp_path: Path) -> None:
    suite, store = small(tmp_path)
    put_trial(store, RUN, pass_8=0.5)
    put(store, RUN, "test", 0.6, np.arange(5.0))
    store.pieces.pack()
    path = tmp_path / "out" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BontuneError, match=rf"{name} is damaged .*: restore it, or give another --out"):
        Store(tmp_path / "out", suite).check_all()


def test_digest(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"weights")
    assert weights_digest(str(tmp_path)) == weights_digest(str(tmp_path / "a.safetensors"))
    assert weights_digest("countdown-tiny") != weights_digest("countdown-verifier") != weights_digest("nobody/nothing")
    assert len({weights_digest(name) for name in ("a/b", "a/c")}) == 2


def test_damaged_pieces(tmp_path: Path) -> None:
    _, store = small(tmp_path)
    put(store, RUN, "test", 0.6, np.linspace(0, 1, 500))
    path = measurement_path(store, RUN, "pass@8", WHAT)
    content = path.read_bytes()
    broken = [b"", b"PAR1", content[:-1], content[: len(content) // 2], content[:40] + content[60:]]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(BontuneError) as refused:
            store.measured(RUN, "pass@8", WHAT)
        assert str(refused.value).startswith(f"{path} is damaged (")
        assert str(refused.value).endswith("): delete it to have it measured again.")
    pq.write_table(pa.table({"problem": ["a"]}), path)  # of another origin
    with pytest.raises(BontuneError, match="is damaged"):
        store.measured(RUN, "pass@8", WHAT)
    with pytest.raises(BontuneError, match="is damaged"):
        store.check_all()


def test_a_torn_account_is_none_and_a_foreign_one_is_refused(tmp_path: Path) -> None:
    _, store = small(tmp_path)
    put_trial(store, RUN, pass_8=0.5)
    path = trial_path(store, RUN)
    content = path.read_text()
    path.write_text(content[:50])
    assert store.trial(RUN) is None
    path.write_text(json.dumps({"kept": {}}))
    with pytest.raises(BontuneError, match="other settings"):
        store.trial(RUN)


def test_what_is_measured_on(tmp_path: Path) -> None:
    suite, _ = small(
        tmp_path,
        "measuring.test_task={name: other}",
        "measuring.harder={hard: true}",
        "measuring.harder_problems=9",
        "recipe.task.data=here",
    )
    assert task_section(suite, "validation") == {"name": "countdown", "split": "validation", "data": "here"}
    assert task_section(suite, "test") == {"name": "other", "split": "test", "data": "here"}
    assert task_section(suite, "harder") == {"name": "other", "split": "test", "data": "here", "hard": True}
    assert [num_problems(suite, data) for data in ("validation", "test", "harder")] == [200, 40, 9]
