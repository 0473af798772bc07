"""Reward models against the plain computation, one text at a time.

1. a score is the classifier's logit (with two labels, log-odds) of the text as the model alone would see it, whatever
   else is scored beside it, with or without a padding token;
2. equal texts get exactly equal scores, the order changes nothing, and each distinct text is computed once a call;
3. the cache is bounded and off by default;
4. texts that are too long lose their beginning; conversations go through the chat template;
5. what is no reward model is refused in one sentence;
6. a model that was trained with an end token behind its texts is read with one, by its trainer's record or when told.
"""

from __future__ import annotations

import json
import random
import re
import warnings
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
from bontune.verifiers import RewardModel, Verifier, as_verifier, load_verifier, verifier_from_text
from bontune.verifiers.input_format import InputFormat
from bontune.verifiers.load import verifier_digest
from bontune.verifiers.reward_model import doubt_about_end, load_reward_model, save_reward_model

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
    with pytest.raises(BontuneError, match=r"problem a: .*no assistants"):
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
    with pytest.raises(BontuneError, match=r"countdown-tiny is not a verifier.*verify fit"):
        load_reward_model("countdown-tiny")
    folder = saved(tmp_path / "v", classifier())
    for text, phrase in (
        ("{", "not JSON"),
        ("[]", "must contain an object"),
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
        ({"name": "oracle", "path": "x"}, "verifier.path belongs to verifier.name=reward_model"),
        ({"name": "reward_model", "path": "x", "url": "http://x"}, "verifier.url belongs to verifier.name=endpoint"),
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


# ---- the end of the text ----

CARD = "---\ntags:\n- generated_from_trainer\n- reward-trainer\n- trl\n---\n\n### Framework versions\n\n- TRL: {}\n"
SETTINGS = b"ctrl.trainer.reward_config\nRewardConfig\n"
"""How the pickle of a RewardConfig begins; newer ones have a setting for the end token."""


def written(folder: Path, *, chat: bool = False) -> Path:
    """A classifier as a trainer leaves it, without ``verifier.json``."""
    classifier("qwen2").save_pretrained(folder)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE if chat else None
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("record", "end"),
    [
        ({}, "none"),
        ({"training_args.bin": SETTINGS + b"X\x09\x00\x00\x00eos_tokenq"}, "eos"),
        ({"training_args.bin": SETTINGS}, "none"),
        ({"training_args.bin": b"ctrl.trainer.sft_config\nSFTConfig\nX\x09\x00\x00\x00eos_tokenq"}, "none"),
        ({"README.md": CARD.format("1.16.0")}, "eos"),
        ({"README.md": CARD.format("0.24.0")}, "eos"),
        ({"README.md": CARD.format("0.23.1")}, "none"),
        ({"README.md": CARD.format("1.16.0").replace("reward-trainer", "sft")}, "none"),
        ({"README.md": CARD.format("1.16.0"), "verifier.json": '{"input": {}}'}, "none"),
        ({"verifier.json": '{"input": {"end": "eos"}}'}, "eos"),
    ],
)
def test_the_trainers_record_tells_the_end(record: dict[str, Any], end: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "v")
    for name, contents in record.items():
        (folder / name).write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    score = load_reward_model(str(folder), device="cpu").score(PROBLEMS[:1], [["3", "4"]])[0]
    for text, found in zip(("3", "4"), score, strict=True):
        text = f"1+2={text}<eos>" if end == "eos" else f"1+2={text}"
        assert found == pytest.approx(alone(classifier("qwen2"), text).item(), abs=1e-5)


def test_the_end_can_be_said_and_what_cannot_be_found_out_is_warned_of(tmp_path: Path) -> None:
    """With a chat template the trainer may have had conversations, or plain texts with an end."""
    folder = str(written(tmp_path / "v", chat=True))
    (tmp_path / "v" / "README.md").write_text(CARD.format("1.16.0"))
    with pytest.warns(UserWarning, match=r"conversations are assumed\. Set verifier\.end=eos"):
        guessed = load_reward_model(folder, device="cpu").score(PROBLEMS[:1], [["3"]])[0][0]
    model = classifier("qwen2")
    assert guessed == pytest.approx(alone(model, "user: 1+2=\nassistant: 3\n").item(), abs=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for verifier in (
            load_verifier("reward_model", path=folder, end="eos", device="cpu"),
            verifier_from_text(f"{folder}#eos", device="cpu"),
        ):
            plain, ended = verifier.score(PROBLEMS[:1], [["3", "3<eos>"]], [])[0]
            assert plain == ended == pytest.approx(alone(model, "1+2=3<eos>").item(), abs=1e-5)
        told = verifier_from_text(f"{folder}#none", device="cpu")
        assert told.score(PROBLEMS[:1], [["3"]], [])[0][0] == guessed
    assert verifier_digest("reward_model", path=folder) != verifier_digest("reward_model", path=folder, end="eos")
    with pytest.raises(BontuneError, match=r"must be eos or none, got 'bos'\.$"):
        load_verifier("reward_model", path=folder, end="bos")
    with pytest.raises(BontuneError, match=r"verifier\.end belongs to verifier\.name=reward_model"):
        load_verifier("oracle", end="eos")
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(BontuneError, match="has no end token"):
        RewardModel(classifier(), tokenizer, input_format=InputFormat(end="eos"))


def test_a_model_trained_with_an_end_ranks_by_it(tmp_path: Path) -> None:
    """When to stop: right answers repeat the prompt's letters, wrong ones end before; all that counts is at the end."""
    rng = random.Random(0)
    rows = [(word, word[: rng.randint(1, 3)]) for word in ("".join(rng.choices("abcd", k=4)) for _ in range(256))]
    folder = written(tmp_path / "v")
    (folder / "README.md").write_text(CARD.format("1.16.0"))
    model, tokenizer = classifier("qwen2").train(), tiny.tokenizer()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for start in [*range(0, 256, 64)] * 6:
        both = [f"{row[0]}={row[side]}<eos>" for side in (0, 1) for row in rows[start : start + 64]]
        given = tokenizer(both, padding=True, padding_side="right", return_tensors="pt")
        right, wrong = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits.chunk(2)
        torch.nn.functional.softplus(wrong - right).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    problems = [Problem(id=str(i), prompt=f"{word}=", reference="") for i, (word, _) in enumerate(rows)]

    def share(spec: str) -> float:
        scores = verifier_from_text(spec, device="cpu").score(problems, [list(row) for row in rows], [])
        return sum(right > wrong for right, wrong in scores) / len(rows)

    assert share(str(folder)) == share(f"{folder}#eos") > 0.95
    assert share(f"{folder}#none") < share(str(folder))
    answers, rewards = [list(row) for row in rows], [[1.0, 0.0] for _ in rows]
    wrongly, rightly = (verifier_from_text(f"{folder}#{end}", device="cpu") for end in ("none", "eos"))
    assert isinstance(wrongly, RewardModel)
    assert isinstance(rightly, RewardModel)
    said = doubt_about_end(wrongly, problems, answers, rewards)
    assert said is not None
    assert re.search(r"With verifier\.end=eos .* ranks (9\d|100)% of pairs right, and with its present end=none", said)
    assert doubt_about_end(rightly, problems, answers, rewards) is None
    assert doubt_about_end(wrongly, problems[:9], answers[:9], rewards[:9]) is None, "too few problems"
    assert doubt_about_end(wrongly, problems, answers, [[1.0, 1.0] for _ in rows]) is None, "no pairs"


# ---- loaded models ----


def test_a_loaded_model_and_its_tokenizer_are_a_verifier(tmp_path: Path) -> None:
    model = classifier()
    usual = RewardModel(model, tiny.tokenizer()).score(PROBLEMS, TEXTS)
    assert as_verifier((model, tiny.tokenizer())).score(PROBLEMS, TEXTS, []) == usual
    model.add_model_tags(["trl", "reward-trainer"])  # as TRL's trainer marks what it trains
    ended = as_verifier((model, tiny.tokenizer())).score(PROBLEMS[:1], [["3"]], [])[0][0]
    assert ended == pytest.approx(alone(model, "1+2=3<eos>").item(), abs=1e-5)
    (written(tmp_path / "v") / "README.md").write_text(CARD.format("1.16.0"))
    loaded = Qwen2ForSequenceClassification.from_pretrained(tmp_path / "v")
    assert as_verifier((loaded, tiny.tokenizer())).score(PROBLEMS, TEXTS, []) == load_reward_model(
        str(tmp_path / "v"), device="cpu"
    ).score(PROBLEMS, TEXTS)
    with pytest.raises(BontuneError, match=r"give both as verifier=\(model, tokenizer\)"):
        as_verifier(model)
    with pytest.raises(BontuneError, match="3 labels"):
        as_verifier((classifier(num_labels=3), tiny.tokenizer()))
    with pytest.raises(BontuneError, match="or a pair"):
        as_verifier(("model", "tokenizer"))  # type: ignore[arg-type]
