"""The reward model: any Hugging Face sequence classifier that scores prompt and completion.

Shapes: ``_B`` distinct texts of a call.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bontune.base.errors import BontuneError
from bontune.base.files import use_umask
from bontune.base.problems import Problem
from bontune.models import resolve
from bontune.models.classifiers import load_classifier
from bontune.verifiers.base import Grades, Texts
from bontune.verifiers.input_format import ENDS, InputFormat, file_of, is_marked, recorded_end

SIDECAR = "verifier.json"
"""File beside a model of ``bontune verify fit`` with its input format, its calibration and its origin."""


class RewardModel:
    """A verifier that scores with a sequence classifier: its one logit, or with two labels the log-odds of label 1.

    A text is scored once in a call, however often it occurs, so that equal completions of a prompt tie exactly. Scores
    do not depend on the order of the call's completions, and on the other completions only by rounding.

    Texts longer than the model's context lose their beginning, never the completion's end; ``num_truncated`` counts
    them.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str = "reward_model",
        input_format: InputFormat | None = None,
        calibration: tuple[float, float] = (1.0, 0.0),
        token_budget: int | None = None,
        cache_size: int = 0,
        device: str | torch.device | None = None,
    ) -> None:
        """
        Args:
            model: a Hugging Face sequence classifier with 1 or 2 labels.
            tokenizer: its tokenizer.
            name: name in pools and reports.
            input_format: format of the texts; None: the default one, with the end that is recorded in the
                folder of the model, or that follows from a trainer's mark on it.
            calibration: slope > 0 and intercept with which the sigmoid of a score is a probability.
            token_budget: texts × longest text computed at once; it bounds memory. None: 4,096 on a CPU, whose
                caches are small (twice as fast as 32,768 for a tiny model), 32,768 elsewhere.
            cache_size: number of recent texts whose scores are kept from call to call. Off by default: a score kept
                from another batch may differ in its last bit from the one computed again after a restart, and then a
                resumed run would not be bitwise the same.
            device: device of the computation; None: the current GPU, or the CPU.

        Raises:
            BontuneError: another number of labels, a calibration that reverses the order, or texts that shall end
                with an end token that the tokenizer does not have.
        """
        self.num_labels = int(model.config.num_labels)
        if self.num_labels not in (1, 2):
            raise BontuneError(
                f"The verifier {name} has {self.num_labels} labels; it needs 1, the score, or 2, wrong and right."
            )
        if not (0 < calibration[0] < math.inf and math.isfinite(calibration[1])):
            raise BontuneError(f"The calibration of {name} must have a slope above 0, got {calibration}.")
        self.name = name
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.input_format = input_format or InputFormat(end=_end_of_loaded(model, tokenizer))
        if self.input_format.end == "eos" and tokenizer.eos_token is None:
            raise BontuneError(f"The tokenizer of {name} has no end token, but texts are to end with one (end=eos).")
        self.calibration = calibration
        self.token_budget = token_budget
        self.cache_size = cache_size
        self.device = device
        self.num_truncated = 0
        """Number of texts cut so far to fit the context."""
        self._cache: OrderedDict[str, float] = OrderedDict()

    def score(self, problems: Sequence[Problem], completions: Texts, grades: Grades = ()) -> list[list[float]]:
        """Score P × M completions; the grades are not used."""
        texts_PM = []
        for problem, row in zip(problems, completions, strict=True):
            texts = {text: self.input_format.text(problem, text, self.tokenizer) for text in set(row)}
            texts_PM.append([texts[text] for text in row])
        scores = {text: self._cache[text] for row in texts_PM for text in row if text in self._cache}
        new = sorted({text for row in texts_PM for text in row} - scores.keys())
        scores |= zip(new, self._compute(new), strict=True)
        for text in scores if self.cache_size else ():
            self._cache[text] = scores[text]
            self._cache.move_to_end(text)
        while len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)
        return [[scores[text] for text in row] for row in texts_PM]

    @torch.inference_mode()
    def _compute(self, texts_B: list[str]) -> list[float]:
        """Compute the scores of distinct texts, in batches of similar length."""
        if self.device is None:
            self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model.to(self.device)
        encoded, num_cut = encode_texts(
            self.model, self.tokenizer, texts_B, is_chat=self.input_format.is_chat(self.tokenizer)
        )
        self.num_truncated += num_cut
        scores_B = torch.zeros(len(texts_B), dtype=torch.float64)
        slope, intercept = self.calibration
        budget = self.token_budget or (4096 if torch.device(self.device).type == "cpu" else 32_768)
        for rows in batches_by_length(encoded, budget):
            logits = classifier_logits(self.model, [encoded[i] for i in rows]).double().cpu()
            raw = logits[:, 0] if self.num_labels == 1 else logits[:, 1] - logits[:, 0]
            scores_B[rows] = slope * raw + intercept
        scores: list[float] = scores_B.tolist()
        return scores


def load_reward_model(
    name_or_path: str, *, device: str | None = None, cache_size: int = 0, end: str | None = None
) -> RewardModel:
    """Load a reward model by its shipped name, folder or hub id, with the settings in its ``verifier.json``.

    Args:
        name_or_path: a classifier, or an adapter of one.
        end: see :class:`InputFormat`; None: from ``verifier.json``, else from the trainer's files.
        device, cache_size: see :class:`RewardModel`.

    Raises:
        BontuneError: there is no such model, it has no trained head, or its ``verifier.json`` cannot be used.

    Example:
        >>> from bontune.tasks import load_task
        >>> problem = load_task("countdown").problems("test")[0]
        >>> verifier = load_reward_model("countdown-verifier", device="cpu")
        >>> right, wrong = verifier.score([problem], [[problem.reference, "1+1"]])[0]
        >>> right > wrong
        True
    """
    model, tokenizer = load_classifier(name_or_path)
    settings = _read_sidecar(resolve(name_or_path))
    try:
        input_format = InputFormat(**settings.get("input", {}))
        input_format = replace(input_format, end=end or end_of(name_or_path, tokenizer))
        calibration = settings.get("calibration", {"slope": 1.0, "intercept": 0.0})
        line = (float(calibration["slope"]), float(calibration["intercept"]))
    except (TypeError, KeyError, ValueError) as error:
        reason = str(error).rstrip(".") if isinstance(error, BontuneError) else f"{type(error).__name__}: {error}"
        raise BontuneError(f"The {SIDECAR} of {name_or_path} cannot be used: {reason}.") from None
    return RewardModel(
        model,
        tokenizer,
        name=name_or_path,
        input_format=input_format,
        calibration=line,
        cache_size=cache_size,
        device=device,
    )


def end_of(name_or_path: str, tokenizer: Any) -> str:
    """Return the end of the texts that a model was trained on, from ``verifier.json`` or its trainer's files."""
    settings = _read_sidecar(resolve(name_or_path))
    if settings:
        return str(settings.get("input", {}).get("end", "none"))
    return recorded_end(resolve(name_or_path), tokenizer)


def _end_of_loaded(model: Any, tokenizer: Any) -> str:
    folder = str(getattr(model, "name_or_path", ""))
    if is_marked(model) and tokenizer.chat_template is None:
        return "eos"
    return end_of(folder, tokenizer) if folder and Path(folder).is_dir() else "none"


def save_reward_model(verifier: RewardModel, folder: Path, facts: dict[str, Any]) -> None:
    """Write a plain Hugging Face folder with ``verifier.json``, in which ``facts`` are written as well."""
    slope, intercept = verifier.calibration
    verifier.model.save_pretrained(folder)
    verifier.tokenizer.save_pretrained(folder)
    use_umask(folder)
    settings = {
        "input": asdict(verifier.input_format),
        "calibration": {"slope": slope, "intercept": intercept},
        **facts,
    }
    (folder / SIDECAR).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _read_sidecar(where: str) -> dict[str, Any]:
    path = file_of(where, SIDECAR)
    if path is None:
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BontuneError(f"{path} is not JSON: {error}.") from None
    if not isinstance(settings, dict):
        raise BontuneError(f"{path} must contain an object, got {type(settings).__name__}.")
    return settings


def encode_texts(model: Any, tokenizer: Any, texts_B: Sequence[str], *, is_chat: bool) -> tuple[list[list[int]], int]:
    """Return the token ids of each text, cut at the left to the model's context, and the number of texts that were cut.

    Args:
        model, tokenizer: the classifier and its tokenizer.
        texts_B: texts to score.
        is_chat: whether a chat template wrote the texts, special tokens included.

    Raises:
        BontuneError: a text has no tokens.
    """
    if not texts_B:
        return [], 0
    encoded = tokenizer(list(texts_B), add_special_tokens=not is_chat, verbose=False)["input_ids"]
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf
    context = min(positions, tokenizer.model_max_length)
    too_long = [i for i, ids in enumerate(encoded) if len(ids) > context]
    tokenizer.truncation_side = "left"  # the tokenizer cuts, so that an encoder's special tokens stay in place
    for i in too_long:
        encoded[i] = tokenizer(texts_B[i], add_special_tokens=not is_chat, truncation=True, max_length=int(context))[
            "input_ids"
        ]
    if not all(encoded):
        raise BontuneError("A text to be scored has no tokens: prompt and completion are both empty.")
    return encoded, len(too_long)


def batches_by_length(encoded: Sequence[Sequence[int]], token_budget: int) -> Iterator[list[int]]:
    """Yield the indices of texts of similar length, longest first, with rows × longest within the budget."""
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
    while order:
        num_rows = max(1, token_budget // len(encoded[order[0]]))
        yield order[:num_rows]
        order = order[num_rows:]


def classifier_logits(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return logits (rows, labels) in float32, on the model's device, with padding at the right.

    A decoder pools the last token that is not its padding token. One that names none, or one outside its vocabulary, is
    padded with a token that the rows do not contain, so that it pools the last token of each text.
    """
    config = model.config.get_text_config()
    pad = config.pad_token_id
    is_usable = pad is not None and 0 <= pad < config.vocab_size
    if not is_usable and len(rows) > 1:
        used = {token for row in rows for token in row}
        free = next((token for token in range(config.vocab_size) if token not in used), None)
        if free is None:  # every token of a small vocabulary occurs: halve the batch; a single row needs no padding
            half = len(rows) // 2
            return torch.cat([classifier_logits(model, rows[:half]), classifier_logits(model, rows[half:])])
        config.pad_token_id = free
    elif not is_usable:
        config.pad_token_id = None  # a row alone is not padded
    try:
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[config.pad_token_id] * (longest - len(row))] for row in rows], device=model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
        logits: Tensor = model(input_ids=ids, attention_mask=mask).logits
        return logits.float()
    finally:
        config.pad_token_id = pad


PROBLEMS, SAMPLES, FEWEST = 64, 8, 10
"""Largest number of problems and of samples of each that are scored, and the smallest number of problems."""
MARGIN = 0.05
"""Share of pairs by which another end must rank better before it is suggested."""


def doubt_about_end(
    verifier: RewardModel,
    problems: Sequence[Problem],
    completions: Sequence[Sequence[str]],
    rewards: Sequence[Sequence[float | None]],
) -> str | None:
    """Return a sentence if the verifier ranks clearly better with the other end of its input, else None.

    Args:
        verifier: the reward model with its present end.
        problems, completions: P problems with M completions each; the first ones are scored both ways.
        rewards: rewards of the completions; a pair counts if one reward is higher than the other.
    """
    rows = [
        (problem, texts[:SAMPLES], [-math.inf if r is None or math.isnan(r) else r for r in values[:SAMPLES]])
        for problem, texts, values in zip(problems, completions, rewards, strict=True)
    ]
    rows = [row for row in rows if len(set(row[2])) > 1][:PROBLEMS]
    if len(rows) < FEWEST or verifier.tokenizer.eos_token is None:
        return None
    current = verifier.input_format.end
    other = next(end for end in ENDS if end != current)
    shares, others = (_shares(verifier, end, rows) for end in (current, other))
    gains = [new - old for old, new in zip(shares, others, strict=True)]
    gain = sum(gains) / len(gains)
    error = math.sqrt(sum((g - gain) ** 2 for g in gains) / (len(gains) - 1) / len(gains))
    if gain < max(MARGIN, 2 * error):
        return None
    return (
        f"With verifier.end={other} (#{other} behind its name) {verifier.name} ranks {sum(others) / len(gains):.0%} of "
        f"pairs right, and with its present end={current} {sum(shares) / len(shares):.0%}: it was probably trained so."
    )


def _shares(
    verifier: RewardModel, end: str, rows: Sequence[tuple[Problem, Sequence[str], Sequence[float]]]
) -> list[float]:
    """Return each problem's share of pairs (better, worse answer) that are ranked right; a tie is half right."""
    reader = RewardModel(
        verifier.model,
        verifier.tokenizer,
        name=verifier.name,
        input_format=replace(verifier.input_format, end=end),
        token_budget=verifier.token_budget,
        device=verifier.device,
    )
    shares = []
    scores_PM = reader.score([row[0] for row in rows], [row[1] for row in rows])
    for (_, _, rewards), scores in zip(rows, scores_PM, strict=True):
        pairs = [(i, j) for i in range(len(rewards)) for j in range(len(rewards)) if rewards[i] > rewards[j]]
        right = sum(1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0 for i, j in pairs)
        shares.append(right / len(pairs))
    return shares
