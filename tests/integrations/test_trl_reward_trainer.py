"""Contract of reward models that TRL's RewardTrainer trained (``make test-trl``): each is read as it was trained.

A folder of all weights, one of an adapter, and a checkpoint; trained on plain texts, behind which TRL puts the end
token, and on conversations, where it does not.
"""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not installed; make test-trl")

from datasets import Dataset
from peft import LoraConfig
from trl import RewardConfig, RewardTrainer

import tiny
from bontune.base.problems import Problem
from bontune.verifiers import as_verifier, verifier_from_text

TEMPLATE = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
ROWS = [
    {"prompt": f"{word}=", "chosen": word, "rejected": word[: 1 + i % 3]}
    for i, word in enumerate("".join(random.Random(i).choices("abcd", k=4)) for i in range(64))
]


def turns(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {key: [{"role": roles[key], "content": text}] for key, text in row.items()}


def trained(
    folder: Path, *, chat: bool = False, peft_config: Any = None
) -> tuple[Path, Any, list[tuple[float, float]]]:
    """The folder that TRL has written, the trainer, and the model's scores of the tokens that it was trained on."""
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE if chat else None
    tiny.model(sharp=2.0).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    config = RewardConfig(
        output_dir=str(folder / "rm"),
        per_device_train_batch_size=32,
        max_steps=20,
        learning_rate=1e-2,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_steps=20,
        disable_tqdm=True,
    )
    rows = Dataset.from_list([turns(row) if chat else row for row in ROWS])
    run = RewardTrainer(str(folder / "base"), config, train_dataset=rows, peft_config=peft_config)
    run.train()
    run.save_model(str(folder / "rm"))
    model = run.accelerator.unwrap_model(run.model).eval()

    def score(ids: list[int]) -> float:
        with torch.no_grad():
            return float(model(input_ids=torch.tensor([ids])).logits)

    return folder / "rm", run, [(score(row["chosen_ids"]), score(row["rejected_ids"])) for row in run.train_dataset]


def assert_scores(verifier: Any, wanted: list[tuple[float, float]]) -> None:
    problems = [Problem(id=str(i), prompt=row["prompt"], reference="") for i, row in enumerate(ROWS)]
    found = verifier.score(problems, [[row["chosen"], row["rejected"]] for row in ROWS], [])
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), atol=1e-4, rtol=1e-4)
    assert len({round(score, 3) for pair in wanted for score in pair}) > 20, "the model tells texts apart"


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapter"])
def test_plain_texts_have_the_end_token_behind_them(lora: bool, tmp_path: Path) -> None:
    adapter = LoraConfig(task_type="SEQ_CLS", r=8, target_modules="all-linear") if lora else None
    folder, run, wanted = trained(tmp_path, peft_config=adapter)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*RewardTrainer")
        assert_scores(verifier_from_text(str(folder), device="cpu"), wanted)
        assert_scores(verifier_from_text(str(folder / "checkpoint-20"), device="cpu"), wanted)
    assert_scores(as_verifier((run.model, tiny.tokenizer())), wanted)
    (folder / "training_args.bin").unlink()
    assert_scores(verifier_from_text(str(folder), device="cpu"), wanted)  # by the card alone
    (folder / "README.md").unlink()
    assert_scores(verifier_from_text(f"{folder}#eos", device="cpu"), wanted)
    with pytest.raises(AssertionError):
        assert_scores(verifier_from_text(str(folder), device="cpu"), wanted)


def test_conversations_have_none(tmp_path: Path) -> None:
    folder, _, wanted = trained(tmp_path, chat=True)
    with pytest.warns(UserWarning, match="does not record whether on conversations or plain texts"):
        assert_scores(verifier_from_text(str(folder), device="cpu"), wanted)
    assert_scores(verifier_from_text(f"{folder}#none", device="cpu"), wanted)
