"""Prompts and completions as texts, with the tokenizers that people have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import tiny
from bontune.base.errors import BontuneError
from bontune.engines.contract import SamplingOptions, StopReason
from bontune.engines.texts import Decoder, encode_prompts
from bontune.engines.transformers import TransformersEngine
from bontune.training.rollouts import encode_demonstrations


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """Pieces with the space in front, unknown characters as bytes, and a space dropped where a text begins."""
    letters = "▁abcdefgrtunx():=0123456789\n"
    pieces = ["▁▁", "▁▁▁", "re", "▁re", "ret", "▁ret", "tu", "rn", "▁a", "▁="]
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, *letters, *pieces]
    merges = [
        ("▁", "▁"),
        ("▁▁", "▁"),
        ("r", "e"),
        ("▁", "re"),
        ("re", "t"),
        ("▁re", "t"),
        ("t", "u"),
        ("r", "n"),
        ("▁", "a"),
        ("▁", "="),
    ]
    core = Tokenizer(
        models.BPE({t: i for i, t in enumerate(tokens)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    core.add_special_tokens([AddedToken(token, special=True) for token in tokens[:3]])
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def texts_of(tokenizer: Any, prompt: list[int], *completions: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    lengths = torch.tensor([len(row) for row in completions])
    rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in completions], batch_first=True)
    return Decoder(tokenizer, stop).texts([prompt], rows, lengths)


@given(
    prompt=st.text("▁abrétu =(:\n😀", min_size=1, max_size=8).filter(lambda text: "▁" not in text),
    completion=st.text(" abretun():=\n1é😀", min_size=1, max_size=12),
)
@pytest.mark.parametrize("make", [llama_tokenizer, tiny.tokenizer], ids=["pieces with spaces", "characters"])
def test_a_completion_is_the_text_behind_its_prompt(make: Any, prompt: str, completion: str) -> None:
    if make is tiny.tokenizer:
        prompt, completion = ("".join(c for c in text if c in tiny.CHARACTERS) or "1" for text in (prompt, completion))
    tokenizer = make()
    ids, whole = tokenizer(prompt)["input_ids"], tokenizer(prompt + completion)["input_ids"]
    if whole[: len(ids)] == ids:  # elsewhere prompt and completion have grown together
        assert texts_of(tokenizer, ids, whole[len(ids) :]) == [completion]


def test_four_spaces_of_indentation_stay_four() -> None:
    tokenizer = llama_tokenizer()
    prompt = tokenizer("def f(x):\n")["input_ids"]
    body = tokenizer("def f(x):\n    return x")["input_ids"][len(prompt) :]
    assert tokenizer.decode(body) == "   return x", "decoded alone, a space is lost"
    assert texts_of(tokenizer, prompt, body) == ["    return x"]


def test_a_stop_string_that_begins_with_a_space_is_found_where_the_completion_begins() -> None:
    tokenizer = llama_tokenizer()
    prompt = tokenizer("a:")["input_ids"]
    drawn = tokenizer("a: ret")["input_ids"][len(prompt) :]
    for stop, is_hit in ((" ret", True), (":", False)):
        decoder = Decoder(tokenizer, (stop,))
        assert decoder.hits_stop([decoder.front_of(prompt)], torch.tensor([drawn])) == [is_hit]
    assert texts_of(tokenizer, prompt, drawn, stop=(" ret",)) == [""]


def test_a_character_that_begins_in_the_prompt_leaves_the_rest_readable() -> None:
    tokenizer = llama_tokenizer()
    smile = tokenizer.convert_tokens_to_ids(["<0xF0>", "<0x9F>", "<0x98>", "<0x80>"])
    (text,) = texts_of(tokenizer, smile[:2], [*smile[2:], *tokenizer("a", add_special_tokens=False)["input_ids"]])
    assert text.endswith("a")


def chat_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<|end|>"]})
    return tokenizer


@pytest.mark.parametrize("stop", [("<|im_end|>",), ("<|im_end|>", "9"), ("<|im_end|>2",), ("1<|im_end|>",)])
def test_a_special_token_stops_and_is_cut_off(stop: tuple[str, ...]) -> None:
    tokenizer = chat_tokenizer()
    end, other = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|end|>"])
    one, two = tokenizer("12")["input_ids"]
    drawn = [other, one, end, two]
    decoder = Decoder(tokenizer, stop)
    assert decoder.hits_stop([decoder.front_of([two])], torch.tensor([drawn])) == [True]
    (text,) = texts_of(tokenizer, [two], [*drawn, tokenizer.eos_token_id], stop=stop)
    assert text == ("" if stop[0].startswith("1") else "1")
    assert texts_of(tokenizer, [two], drawn) == ["12"], "without such a stop string special tokens are left out"


def test_special_tokens_that_mark_thoughts_stay_in_texts() -> None:
    """Mistral's, Cohere's and OpenAI's tags are special tokens: without them a thought would be read as an answer."""
    tokenizer = chat_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "[THINK]", "[/THINK]"]})
    opening, closing, end = tokenizer.convert_tokens_to_ids(["[THINK]", "[/THINK]", "<|im_end|>"])
    one, two = tokenizer("12")["input_ids"]
    assert texts_of(tokenizer, [two], [opening, one, closing, two, end]) == ["[THINK]1[/THINK]2"]
    assert texts_of(tokenizer, [opening], [one, closing, two, end, tokenizer.eos_token_id]) == ["1[/THINK]2"]


def test_the_model_stops_at_a_special_token() -> None:
    tokenizer = chat_tokenizer()
    model = tiny.model(vocab_size=len(tokenizer))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():  # the token after anything is mostly the end of the turn
        model.get_input_embeddings().weight[end] = model.get_input_embeddings().weight.mean(0) * 3
    engine = TransformersEngine(model, tokenizer)
    options = SamplingOptions(num_samples=16, max_new_tokens=24, temperature=1.5, stop=("<|im_end|>",))
    drawn = engine.draw(["1+2="], options, [(0,)])
    stopped = [b for b, stop in enumerate(drawn.stops) if stop is StopReason.STOP]
    assert stopped
    for b in range(16):
        tokens = drawn.tokens_BT[b, : drawn.lengths_B[b]].tolist()
        assert tokens.count(end) == (b in stopped)
        assert (tokens[-1] == end) == (b in stopped)
        assert "<|" not in drawn.texts[0][b]


def ending_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = tiny.tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    return tokenizer


def test_an_end_token_that_the_tokenizer_appends_is_taken_off_prompts() -> None:
    model, plain, ending = tiny.model(), tiny.tokenizer(), ending_tokenizer()
    assert ending("1+2=")["input_ids"][-1] == 1
    prompts = ["1+2=", "7*8="]
    assert encode_prompts(model, ending, prompts, 4) == encode_prompts(model, plain, prompts, 4)
    assert encode_prompts(model, ending, ["1+2=<eos>"], 4) == encode_prompts(model, plain, ["1+2=<eos>"], 4)
    options, keys = SamplingOptions(num_samples=4, max_new_tokens=6), [(0,), (1,)]
    drawn = [TransformersEngine(model, tokenizer).draw(prompts, options, keys) for tokenizer in (plain, ending)]
    assert torch.equal(drawn[0].tokens_BT, drawn[1].tokens_BT)


def test_a_demonstration_has_one_end_token() -> None:
    class Sums:
        name = "sums"

        def demonstration(self, problem: Any) -> str:
            return "3"

    from bontune.base.problems import Problem

    problem = Problem(id="a", prompt="1+2=", reference="3")
    found = encode_demonstrations(Sums(), [problem], tiny.model(), ending_tokenizer())
    assert found["a"] == [*tiny.tokenizer()("3")["input_ids"], 1]


def test_a_token_that_the_model_has_no_row_for_is_one_sentence() -> None:
    """A tokenizer with a token more than the model: its row does not exist, and torch would name an index."""
    larger = tiny.tokenizer()
    larger.add_special_tokens({"additional_special_tokens": ["<extra>"]})
    model = tiny.model()
    assert encode_prompts(model, larger, ["1+2="], 4) == encode_prompts(model, tiny.tokenizer(), ["1+2="], 4)
    with pytest.raises(BontuneError, match=r"token '<extra>', for which the model's vocabulary of \d+ has no row"):
        encode_prompts(model, larger, ["1+2=", "<extra>1="], 4)


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_character_that_a_pruned_tokenizer_drops_is_one_sentence(letter: str) -> None:
    """A byte-level BPE without all bytes and without an unknown token leaves characters out silently."""
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate("1234567890+=Ġab")}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken("<end>", special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<end>")
    model = tiny.model()
    text = f"a {letter} 1="
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == "a  1="
    with pytest.raises(BontuneError, match=f"contains '{letter}', for which the tokenizer has no token"):
        encode_prompts(model, tokenizer, ["1+2=", text], 4)
    assert len(encode_prompts(model, tokenizer, ["a b 1=<end>", "12"], 4)) == 2  # letters within a special token


def test_padding_outside_the_vocabulary_changes_nothing() -> None:
    """The tokenizer alone has got a padding token: the model has no row for it, and masks it."""
    padded = tiny.tokenizer()
    padded.add_special_tokens({"pad_token": "[PAD]"})
    model = tiny.model()
    assert padded.pad_token_id >= model.config.vocab_size
    options, keys = SamplingOptions(num_samples=4, max_new_tokens=6), [(0,), (1,)]
    prompts = ["1+2=", "7*8+123="]
    plain = TransformersEngine(model, tiny.tokenizer()).draw(prompts, options, keys)
    drawn = [plain, TransformersEngine(model, padded).draw(prompts, options, keys)]
    assert drawn[0].texts == drawn[1].texts
    assert torch.equal(drawn[0].logprobs_BT, drawn[1].logprobs_BT)
