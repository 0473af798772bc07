"""Thoughts: what stands behind the last closing tag is the answer, and a thought that is not closed has none."""

from __future__ import annotations

import time

import pytest

from bontune.base.errors import BontuneError
from bontune.base.thoughts import TAGS, answer_behind, is_tag, thoughts_of

HARMONY = "<|channel|>analysis<|message|>5?<|end|><|start|>assistant<|channel|>final<|message|>It is 4."


@pytest.mark.parametrize(("opening", "closing"), TAGS)
def test_every_pair_of_tags(opening: str, closing: str) -> None:
    assert answer_behind(f"{opening}5?{closing}\nIt is 4.\n") == "It is 4."
    assert answer_behind(f"5?{closing} It is 4.") == "It is 4.", "where the prompt has opened it"
    assert answer_behind(f"{opening}It is 4.") is None
    assert answer_behind(f"{opening.upper()}5?{closing.upper()}4") == "4"
    assert is_tag(opening)
    assert is_tag(closing)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("4", "4"),
        (" 4\n", " 4\n"),
        ("", ""),
        ("42 </think> 17", "17"),
        ("42 </think>", ""),
        ("<think>1</think>2<think>3</think>4", "4"),
        ("<think>1<think>2</think>3</think>4", "4"),
        ("<think>1</think>2<think>3", None),
        ("4 <think> or 5", None),
        ("<think>1</reasoning>4", None),
        ("<think>1</reasoning></think>4", "4"),
        ("<think>\n\n</think>\n\n    return 4\n", "    return 4"),
        ("<think>5?</think><answer>4</answer>", "4"),
        ("<|begin_of_thought|>5?<|end_of_thought|>\n<|begin_of_solution|>\n4\n<|end_of_solution|>", "4"),
        ("Write '</think>' and <b>4</b>", "Write '</think>' and <b>4</b>"),
        ("The tag `<think>` opens a thought. 4", "The tag `<think>` opens a thought. 4"),
        ('<think>I end with "</think>". 5?</think>4', "4"),
        (HARMONY, "It is 4."),
        (HARMONY + "<|return|>", "It is 4."),
        ("<|channel|>analysis<|message|>5?<|end|>It is 4.", "It is 4."),
        ("<|channel|>analysis<|message|>5? <|channel|>commentary<|message|>4", None),
        ("<|channel|>final<|message|>4", "4"),
        ("analysisIt may be 5.assistantfinalIt is 4.", "It is 4."),
        ("analysisIt may be 5.", None),
        ("analysis: it is 4", "analysis: it is 4"),
        ("#### 4<|end|>", "#### 4<|end|>"),
    ],
)
def test_answers(text: str, answer: str | None) -> None:
    assert answer_behind(text) == answer


def test_settings() -> None:
    opened = thoughts_of("open")
    assert opened is not None
    assert [opened.answer(text) for text in ("4", "5?</think>4", "<think>5?</think>4", "5?</b>4")] == [
        None,
        "4",
        "4",
        None,
    ]
    own = thoughts_of(["<a>", "</a>"])
    assert own is not None
    assert [own.answer(text) for text in ("<a>5</a>4", "<think>5</think>4", "<a>4")] == ["4", "<think>5</think>4", None]
    spaced = thoughts_of(["<my plan>", "</my plan>"])
    assert spaced is not None
    assert spaced.answer("<my plan>5</my plan>4") == "4"
    both = thoughts_of([["<a>", "</a>"], ("«", "»")])
    assert both is not None
    assert both.answer("<a>5</a> «6» 4") == "4"
    assert thoughts_of("none") is thoughts_of(None) is None
    for wrong in (
        "thinking",
        [],
        ["<a>"],
        [["<a>"]],
        ["<a>", ""],
        [["<a>", "</a>", "<b>"]],
        [["<a>", "</a>"], 3],
        3,
        True,
    ):
        with pytest.raises(
            BontuneError, match=r"^The setting thoughts cannot be .*; it is auto, open, none, or pairs of an op"
        ):
            thoughts_of(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "tag"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>"),
        ("<|start|>assistant<|channel|>analysis<|message|>", "<|channel|>analysis<|message|>"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),
        ("Think within <think> tags.<|im_start|>assistant\n", ""),
        ("<|start|>assistant<|channel|>final<|message|>", ""),
        ("", ""),
    ],
)
def test_the_thought_that_a_prompt_opens(prompt: str, tag: str) -> None:
    thoughts = thoughts_of("auto")
    assert thoughts is not None
    assert thoughts.opened_by(prompt) == tag


def test_hostile_texts_take_no_time() -> None:
    for piece in (
        "<think>",
        "</think>",
        "<",
        "<|channel|>",
        "<|channel|>analysis",
        "[",
        " ",
        "analysis",
        "assistant ",
        "'<think>",
    ):
        start = time.perf_counter()
        answer_behind(piece * (400_000 // len(piece)))
        answer_behind("</think>" + piece * (400_000 // len(piece)))
        assert time.perf_counter() - start < 5.0, piece  # 0.2 s on an idle core
