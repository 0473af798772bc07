"""Prompts become tokens and tokens become texts, with any tokenizer as it was published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

from bontune.base.errors import BontuneError
from bontune.base.thoughts import is_tag
from bontune.engines.contract import cut_before
from bontune.engines.prompts import Prompt, as_text


def encode_prompts(model: Any, tokenizer: Any, prompts: Sequence[Prompt], max_new_tokens: int) -> list[list[int]]:
    """Return the token ids of each prompt.

    Raises:
        BontuneError: a prompt has no token, one that the model has no row for, or a character without a token; leaves
            no room for ``max_new_tokens`` in the model's context; or is a conversation that the chat template refuses.
    """
    texts = [as_text(prompt, tokenizer) for prompt in prompts]
    encoded = [encode_text(tokenizer, text, prompt) for text, prompt in zip(texts, prompts, strict=True)]
    context = context_of(model) or float("inf")
    num_tokens = getattr(model.config.get_text_config(), "vocab_size", None) or float("inf")
    missing = _missing_bytes(tokenizer)
    for text, ids in zip(texts, encoded, strict=True):
        lost = next((character for character in text if missing and missing & _as_bytes(character)), None)
        if lost is not None and text.strip() not in tokenizer.decode(ids):  # a special token may contain it
            raise BontuneError(
                f"The prompt {text[:60]!r} contains {lost!r}, for which the tokenizer has no token: take a tokenizer "
                "with all bytes, or leave the character out."
            )
        if not ids:
            raise BontuneError(f"The prompt {text[:60]!r} has no tokens; a prompt needs at least one.")
        if max(ids) >= num_tokens:
            raise BontuneError(
                f"The prompt {text[:60]!r} has the token {tokenizer.convert_ids_to_tokens(max(ids))!r}, for which the "
                f"model's vocabulary of {num_tokens} has no row: take the tokenizer that was saved with the model."
            )
        if len(ids) + max_new_tokens > context:
            raise BontuneError(
                f"The prompt {text[:60]!r}… has {len(ids)} tokens; with {max_new_tokens} new ones that is more than "
                f"the model's context of {context}: shorten the prompt or lower max_new_tokens."
            )
    return encoded


def _missing_bytes(tokenizer: Any) -> set[str]:
    """Return the letters of the bytes that a byte-level BPE without an unknown token drops, for want of a token."""
    core: Any = getattr(tokenizer, "backend_tokenizer", None)
    model = getattr(core, "model", None)
    is_lossy = isinstance(model, BPE) and model.unk_token is None and "ByteLevel(" in repr(core.decoder)
    if not is_lossy:
        return set()
    return {letter for letter in ByteLevel.alphabet() if core.token_to_id(letter) is None}


def _as_bytes(character: str) -> set[str]:
    """Return the letters that stand for a character's bytes in a byte-level vocabulary."""
    pieces = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(character)
    return {letter for piece, _ in pieces for letter in piece}


def encode_text(tokenizer: Any, text: str, prompt: Prompt) -> list[int]:
    """Return the token ids of a text that begins with this prompt, without an end token that the tokenizer appends."""
    is_text = isinstance(prompt, str)  # chat templates write their own special tokens
    ids: list[int] = tokenizer(text, add_special_tokens=is_text)["input_ids"]
    if is_text and ids and ids[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        bare = tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids[: len(ids) - 1][-len(bare) :] == bare:
            return ids[:-1]
    return ids


def context_of(model: Any) -> int | None:
    """Return the longest text that a model takes, in tokens; None if its config names no bound."""
    bound = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(bound) if bound else None


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Return all tokens that end a completion: a model's generation config may name more than the tokenizer."""
    config = getattr(model, "generation_config", None)
    ends = config.eos_token_id if config is not None else None
    ends = list(ends) if isinstance(ends, (list, tuple)) else [] if ends is None else [ends]
    return sorted({*ends, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])})


Front: TypeAlias = tuple[int, ...]
"""The last tokens of a prompt that are needed to decode the text behind it."""
LONGEST_FRONT = 8


class Decoder:
    """A decoder of completions, with the spaces that they have behind their prompts.

    Tokenizers whose word pieces include the space before a word (Llama, Gemma) drop it where a text begins. A
    completion is therefore decoded behind the prompt's last token, whose text is then removed; behind more tokens where
    the last one is only part of a character.
    """

    def __init__(self, tokenizer: Any, stop: tuple[str, ...]) -> None:
        """
        Args:
            tokenizer: the model's tokenizer.
            stop: strings that end a completion; they may contain special tokens.
        """
        self.tokenizer = tokenizer
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        special |= set(tokenizer.all_special_tokens)
        self._hidden = sorted((token for token in special if not is_tag(token)), key=len, reverse=True)
        is_shown = len(self._hidden) < len(special) or any(token in text for token in special for text in stop)
        self.shown_special = sorted(special) if is_shown else []
        """Special tokens that are decoded as text, because one marks thoughts or a stop string contains one; mostly
        none."""
        self.stop = stop
        # A character has at most four bytes, a token at least one; four more for a token that straddles the start.
        self._reach = 4 * max(map(len, stop), default=0) + 4
        self._text_of: dict[Front, str] = {(): ""}

    def texts(self, prompts: Sequence[Sequence[int]], tokens_BT: Tensor, lengths_B: Tensor) -> list[str]:
        """Return the texts of the completions, cut before the first stop string; tags of thoughts stay.

        Args:
            prompts: token ids of the P prompts; each has B / P completions, one after the other.
            tokens_BT: token ids of the completions.
            lengths_B: number of tokens of each completion.
        """
        rows = [row[:length] for row, length in zip(tokens_BT.tolist(), lengths_B.tolist(), strict=True)]
        each = len(rows) // max(len(prompts), 1)
        fronts = [self.front_of(prompt) for prompt in prompts]
        texts = self._behind([fronts[b // each] for b in range(len(rows))], rows)
        texts = [cut_before(text, self.stop) for text in texts]
        for token in self._hidden if self.shown_special else ():
            texts = [text.replace(token, "") for text in texts]
        return texts

    def front_of(self, prompt: Sequence[int]) -> Front:
        """Return a prompt's last tokens, with which completions are decoded; empty if it ends within a character."""
        for length in range(1, min(LONGEST_FRONT, len(prompt)) + 1):
            front = tuple(prompt[-length:])
            if front not in self._text_of:
                (self._text_of[front],) = self._decode([list(front)])
            if "\ufffd" not in self._text_of[front]:
                return front
        return ()

    def hits_stop(self, fronts: Sequence[Front], tokens_RT: Tensor) -> list[bool]:
        """Return whether each row contains a stop string; only its tail is searched, because earlier tokens have been.

        Args:
            fronts: last tokens of each row's prompt.
            tokens_RT: the tokens of each row so far, without padding.
        """
        if tokens_RT.shape[1] <= self._reach:
            tails = self._behind(fronts, tokens_RT.tolist())
        else:
            tails = self._decode(tokens_RT[:, -self._reach :].tolist())
        return [any(text in tail for text in self.stop) for tail in tails]

    def _behind(self, fronts: Sequence[Front], rows: list[list[int]]) -> list[str]:
        """Return the texts of rows behind the last tokens of their prompts."""
        wholes = self._decode([[*front, *row] for front, row in zip(fronts, rows, strict=True)])
        befores = [self._text_of[front] for front in fronts]
        is_behind = [whole.startswith(before) for whole, before in zip(wholes, befores, strict=True)]
        alone = iter(self._decode([row for row, is_in in zip(rows, is_behind, strict=True) if not is_in]))
        return [
            whole.removeprefix(before) if is_in else next(alone)
            for whole, before, is_in in zip(wholes, befores, is_behind, strict=True)
        ]

    def _decode(self, rows: list[list[int]]) -> list[str]:
        if not rows:
            return []
        texts: list[str] = self.tokenizer.batch_decode(
            rows, skip_special_tokens=not self.shown_special, clean_up_tokenization_spaces=False
        )
        return texts
