"""What servers reply with, in either of OpenAI's APIs, as completions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bontune.base.client import BadReply
from bontune.base.texts import readable
from bontune.engines.contract import Completion, StopReason, cut_before


def read_completions(reply: Any, stop: Sequence[str], num_asked: int) -> list[Completion]:
    """The completions in a reply of either API, at most as many as were asked for.

    Raises:
        BadReply: it has none, or one of them is not a completion.
    """
    choices = reply["choices"]
    if not isinstance(choices, list) or not choices:
        raise BadReply("a reply without choices")
    usage = reply.get("usage") or {}
    num_tokens = usage.get("completion_tokens") if isinstance(usage, Mapping) and len(choices) == 1 else None
    return [_completion(choice, stop, num_tokens) for choice in choices[:num_asked]]


def _completion(choice: Any, stop: Sequence[str], num_tokens: Any) -> Completion:
    finish = choice.get("finish_reason")
    if finish in ("abort", "error"):
        raise BadReply(f"the server gave a completion up (finish_reason {finish})")
    text = _text(choice, finish)
    kept = cut_before(text, stop)
    logprobs = _token_logprobs(choice.get("logprobs"))
    if not isinstance(num_tokens, int) or isinstance(num_tokens, bool) or num_tokens < 0:
        num_tokens = len(logprobs) if logprobs else None
    return Completion(
        text=kept,
        stop=_stop_reason(choice, finish, stop, is_cut=len(kept) < len(text)),
        num_tokens=num_tokens,
        logprob=math.fsum(logprobs) if logprobs else None,
    )


def _text(choice: Mapping[str, Any], finish: Any) -> str:
    if "message" in choice:
        message = choice["message"]
        text = _joined(message.get("content"))
        # The model may have used all its tokens to reason, called a tool or been silenced: an empty answer, but one.
        # And where a stop string is its first word, some servers give null for the text before it.
        has_other = any(message.get(name) for name in ("refusal", "reasoning_content", "reasoning", "tool_calls"))
        empty = ("stop", "length", "content_filter", "tool_calls", "function_call")
        if text is None and (has_other or (finish in empty and "content" in message)):
            text = ""
    else:
        text = choice["text"]
    if not isinstance(text, str):
        raise BadReply(f"a completion whose text is {'null' if text is None else f'a {type(text).__name__}'}")
    return readable(text)


def _joined(content: Any) -> Any:
    """The text of a content that comes in parts."""
    if not isinstance(content, list):
        return content
    return "".join(part["text"] for part in content if part.get("type") in ("text", "output_text"))


def _stop_reason(choice: Mapping[str, Any], finish: Any, stop: Sequence[str], *, is_cut: bool) -> StopReason:
    if is_cut:
        return StopReason.STOP
    if finish == "length":
        return StopReason.LENGTH
    if finish in ("stop", "eos"):
        told = choice.get("stop_reason", choice.get("matched_stop"))  # vLLM and SGLang: the string, or a token's id
        return StopReason.STOP if isinstance(told, str) and told in stop else StopReason.END
    return StopReason.OTHER


def _token_logprobs(logprobs: Any) -> list[float]:
    """Log-probabilities of the drawn tokens; empty where the reply lacks them for any token."""
    if not isinstance(logprobs, Mapping):
        return []
    if isinstance(logprobs.get("content"), list):
        values = [part.get("logprob") for part in logprobs["content"]]
    else:
        values = logprobs.get("token_logprobs") or []
    is_whole = all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
    return [float(value) for value in values] if is_whole else []
