"""Reward models against the plain computation, one text at a time.

1. a score is the classifier's logit (with two labels, log-odds) of the text as the model alone would see it, whatever
   else is scored beside it, with or without a padding token;
2. equal texts get exactly equal scores, the order changes nothing, and each distinct text is computed once a call;
3. the cache is bounded and off by default;
4. texts that are too long lose their beginning; conversations go through the chat template;
5. what is no reward model is refused in one sentence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

import tiny
from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.verifiers import RewardModel, Verifier, load_verifier, verifier_from_text
from bontune.verifiers.reward_model import InputFormat, load_reward_model, save_reward_model

SHAPE = {
    "vocab_size": len(tiny.CHARACTERS) + 3,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
PROBLEMS = [Problem(id="a", prompt="1+2=", reference="3"), Problem(id="b", prompt="10+20+30=", reference="60")]
TEXTS = [["3", "4", "three of them", "3", ""], ["60", "6", "60", "1", "i do not know"]]


def classifier(kind: str = "llama", num_labels: int = 1, pad: int | None = 0) -> Any:
    torch.manual_seed(0)
    shape = SHAPE | {"num_labels": num_labels, "pad_token_id": pad, "bos_token_id": None, "eos_token_id": 1}
    built = {
        "llama": lambda: LlamaForSequenceClassification(LlamaConfig(**shape)),
        "qwen2": lambda: Qwen2ForSequenceClassification(Qwen2Config(**shape, num_key_value_heads=2)),
        "bert": lambda: BertForSequenceClassification(BertConfig(**shape, initializer_range=0.5)),
    }[kind]().eval()
    with torch.no_grad():
        built.get_input_embeddings().weight.mul_(8.0)
    return built


def alone(model: Any, text: str) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([tiny.tokenizer()(text)["input_ids"]])).logits[0].double()


def counting(model: Any) -> list[int]:
    """How many texts each forward pass has."""
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, __, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True)
    return sizes


# ---- scores ----


@pytest.mark.parametrize("token_budget", [1, 40, 10_000])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "bert", "llama without padding"])
def test_scores_are_the_logits_of_each_text_alone(kind: str, token_budget: int) -> None:
    model = classifier(kind.split()[0], pad=None if "without" in kind else 0)
    scores = RewardModel(model, tiny.tokenizer(), token_budget=token_budget, device="cpu").score(PROBLEMS, TEXTS)
    for problem, texts, row in zip(PROBLEMS, TEXTS, scores, strict=True):
        for text, score in zip(texts, row, strict=True):
            assert score == pytest.approx(alone(model, problem.prompt + text).item(), abs=1e-5)
    assert len({round(s, 4) for row in scores for s in row}) > 5, "the model tells texts apart"


def test_two_labels_give_the_log_odds_and_a_calibration_moves_them() -> None:
    model = classifier(num_labels=2)
    verifier = RewardModel(model, tiny.tokenizer(), calibration=(0.5, -3.0), device="cpu")
    wrong, right = alone(model, "1+2=3").tolist()
    assert verifier.score(PROBLEMS[:1], [["3"]])[0][0] == pytest.approx(0.5 * (right - wrong) - 3, abs=1e-5)


def test_a_vocabulary_that_leaves_no_token_for_padding() -> None:
    """Two tokens, both in every text: rows of unequal length cannot be padded and go one by one."""
    torch.manual_seed(0)
    shape = SHAPE | {"vocab_size": 5, "num_labels": 1, "pad_token_id": None, "bos_token_id": None, "eos_token_id": 1}
    model = LlamaForSequenceClassification(LlamaConfig(**shape)).eval()
    from bontune.verifiers.reward_model import classifier_logits

    rows = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0, 0, 1], [2, 1]]
    with torch.no_grad():
        expected = [model(input_ids=torch.tensor([row])).logits.item() for row in rows]
        assert classifier_logits(model, rows)[:, 0].tolist() == pytest.approx(expected, abs=1e-6)
    assert model.config.pad_token_id is None


def test_equal_texts_tie_exactly_and_the_order_does_not_matter() -> None:
    verifier = RewardModel(classifier(), tiny.tokenizer(), token_budget=30, device="cpu")
    scores = verifier.score(PROBLEMS, TEXTS)
    assert scores[0][0] == scores[0][3]
    assert scores[1][0] == scores[1][2]
    back = verifier.score(PROBLEMS[::-1], [row[::-1] for row in TEXTS[::-1]])
    assert [row[::-1] for row in back[::-1]] == scores
    assert verifier.score(PROBLEMS, TEXTS) == scores, "deterministic"


def test_a_text_is_computed_once_a_call_and_kept_only_on_demand() -> None:
    model = classifier()
    sizes = counting(model)
    verifier = RewardModel(model, tiny.tokenizer(), device="cpu")
    verifier.score(PROBLEMS, TEXTS)
    assert sum(sizes) == 8
    verifier.score(PROBLEMS, TEXTS)
    assert sum(sizes) == 16, "off by default"
    sizes.clear()
    cached = RewardModel(model, tiny.tokenizer(), cache_size=5, device="cpu")
    first = cached.score(PROBLEMS, TEXTS)
    assert sum(sizes) == 8
    assert len(cached._cache) == 5
    again = cached.score(PROBLEMS, TEXTS)
    assert sum(sizes) == 8 + 3, "five of eight were kept"
    for a, b in zip(first, again, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    # The least recently used goes first.
    cached = RewardModel(model, tiny.tokenizer(), cache_size=2, device="cpu")
    for text in ("1", "2", "1", "3"):
        cached.score(PROBLEMS[:1], [[text]])
    assert list(cached._cache) == ["1+2=1", "1+2=3"]


def test_what_is_too_long_loses_its_beginning() -> None:
    model, long = classifier(), "1+" * 40 + "1="
    verifier = RewardModel(model, tiny.tokenizer(), device="cpu")
    score = verifier.score([Problem(id="a", prompt=long, reference="")], [["41"]])[0][0]
    assert score == pytest.approx(alone(model, (long + "41")[-64:]).item(), abs=1e-5)
    assert verifier.num_truncated == 1


def test_input_formats() -> None:
    chat, plain = tiny.tokenizer(), tiny.tokenizer()
    chat.chat_template = TEMPLATE
    asked = Problem(id="a", prompt="P", reference="", messages=({"role": "user", "content": "M"},))
    assert InputFormat(separator=" / ").text(asked, "C", plain) == "P / C"
    assert InputFormat().text(asked, "C", chat) == "user: M\nassistant: C\n"
    assert InputFormat(use_messages=False).text(asked, "C", chat) == "user: P\nassistant: C\n"
    model = classifier()
    score = RewardModel(model, chat, device="cpu").score([asked], [["C"]])[0][0]
    assert score == pytest.approx(alone(model, "user: M\nassistant: C\n").item(), abs=1e-5)
    chat.chat_template = "{{ raise_exception('no assistants') }}"
    with pytest.raises(BontuneError, match="problem a: no assistants"):
        InputFormat().text(asked, "C", chat)
    with pytest.raises(BontuneError, match="no tokens"):
        RewardModel(model, plain, device="cpu").score([Problem(id="a", prompt="", reference="")], [[""]])


# ---- folders ----


def saved(folder: Path, model: Any, **facts: Any) -> Path:
    save_reward_model(RewardModel(model, tiny.tokenizer(), **facts), folder, {"base": "x"})
    return folder


def test_what_was_saved_scores_the_same(tmp_path: Path) -> None:
    options = {"input_format": InputFormat(separator="#", use_messages=False), "calibration": (2.0, -1.0)}
    expected = RewardModel(classifier(), tiny.tokenizer(), **options, device="cpu").score(PROBLEMS, TEXTS)
    folder = saved(tmp_path / "v", classifier(), **options)
    loaded = load_reward_model(str(folder), device="cpu")
    assert loaded.score(PROBLEMS, TEXTS) == expected
    assert loaded.input_format == options["input_format"]
    (folder / "verifier.json").unlink()
    plain = load_verifier("reward_model", path=str(folder), device="cpu")
    assert isinstance(plain, Verifier)
    untouched = RewardModel(classifier(), tiny.tokenizer(), device="cpu")
    assert plain.score(PROBLEMS, TEXTS, []) == untouched.score(PROBLEMS, TEXTS)
    assert verifier_from_text(str(folder)).name == str(folder)


def test_what_is_no_reward_model(tmp_path: Path) -> None:
    with pytest.raises(BontuneError, match="3 labels"):
        RewardModel(classifier(num_labels=3), tiny.tokenizer())
    with pytest.raises(BontuneError, match="slope above 0"):
        RewardModel(classifier(), tiny.tokenizer(), calibration=(-1.0, 0.0))
    with pytest.raises(BontuneError, match=r"countdown-tiny is no verifier.*verify fit"):
        load_reward_model("countdown-tiny")
    folder = saved(tmp_path / "v", classifier())
    for text, phrase in (
        ("{", "not JSON"),
        ("[]", "must hold an object"),
        (json.dumps({"input": {"sep": 1}}), "cannot be used"),
        (json.dumps({"calibration": {"slope": 1}}), "cannot be used"),
    ):
        (folder / "verifier.json").write_text(text)
        with pytest.raises(BontuneError, match=phrase):
            load_reward_model(str(folder))


@pytest.mark.parametrize(
    ("spec", "phrase"),
    [
        ("oracel", "did you mean 'oracle'"),
        ("countdown-verifer", "did you mean 'countdown-verifier'"),
        ("no/such/folder", "no model folder"),
        ("missing.py:f", "no file missing.py"),
        ("./nowhere", "no model folder"),
    ],
)
def test_words_that_mean_no_verifier(spec: str, phrase: str) -> None:
    with pytest.raises(BontuneError, match=phrase):
        verifier_from_text(spec)


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ({"name": "reward_modle"}, "did you mean 'reward_model'"),
        ({"name": "reward_model"}, "verifier.path is missing"),
        ({"name": "endpoint"}, "verifier.url is missing"),
        ({"name": "python"}, "verifier.function is missing"),
        ({"name": "oracle", "path": "x"}, "verifier.path is for verifier.name=reward_model"),
        ({"name": "reward_model", "path": "x", "url": "http://x"}, "verifier.url is for verifier.name=endpoint"),
    ],
)
def test_sections_that_mean_no_verifier(options: dict[str, str], phrase: str) -> None:
    with pytest.raises(BontuneError, match=phrase):
        load_verifier(**options)


@pytest.mark.parametrize("pad", [-1, 84, 10_000])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_padding_token_outside_the_vocabulary_changes_no_score(kind: str, pad: int) -> None:
    model = classifier(kind)
    usual = RewardModel(model, tiny.tokenizer(), device="cpu").score(PROBLEMS, TEXTS)
    model.config.pad_token_id = pad
    beyond = RewardModel(model, tiny.tokenizer(), device="cpu").score(PROBLEMS, TEXTS)
    for one, other in zip(usual, beyond, strict=True):
        assert other == pytest.approx(one, abs=1e-5)
    assert model.config.pad_token_id == pad
