"""Pruning of a vocabulary: a model keeps the tokens that a corpus uses, and computes the same for them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

import bontune.models as models
from bontune.base.errors import BontuneError
from bontune.base.problems import Message
from bontune.base.progress import Bar
from bontune.models.chat import has_chat_template, render_conversation
from bontune.models.precision import saved_dtype
from bontune.models.saving import save_model

BATCH = 512
"""Texts that are tokenised at once."""
NUM_CHECKED, LONGEST_CHECKED = 16, 64
"""Texts whose logits are compared, spread over the corpus, and the number of their first tokens that are read."""
ROUNDING = 1e-5
"""Largest difference of two logits, relative to the largest logit, that counts as float32 rounding."""
_ASK: Message = {"role": "user", "content": "Why?"}
_TURNS: tuple[tuple[Message, ...], ...] = (
    (_ASK,),
    (_ASK, {"role": "assistant", "content": "So."}, _ASK),
    ({"role": "system", "content": "Be brief."}, _ASK),
)
"""Conversations that make a chat template write all of its own text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """What pruning has kept, and what its check has found."""

    num_tokens_before: int
    """Rows of the embedding before pruning."""
    num_tokens: int
    """Rows of the pruned model's embedding."""
    num_parameters_before: int
    """Parameters of the model before pruning; a tied head counts once."""
    num_parameters: int
    """Parameters of the pruned model; a tied head counts once."""
    num_bytes: int
    """Bytes of the written weights."""
    num_texts: int
    """Texts of the corpus, each of which is tokenised as before."""
    largest_difference: float
    """Largest absolute difference between a kept token's logit now and before."""


def prune_vocabulary(model: str | Path, texts: Iterable[str], folder: str | Path, *, is_quiet: bool = True) -> Pruned:
    """Write a copy of a model that has only the tokens that a corpus uses.

    The tokens that are kept: those in the tokenised texts with all that they are merged from, every byte, every added
    or special token, and those that the chat template writes. Both promises are checked on the written folder: every
    text has the same tokens as before, under their new ids, and their logits are the same up to float32 rounding. Other
    texts may be split into smaller tokens than before; no text is lost, because all bytes are kept.

    Args:
        model: a shipped name, a folder, a GGUF file or a hub id; an adapter is merged.
        texts: the corpus.
        folder: the folder to write in Hugging Face format; it must not exist yet.
        is_quiet: show no progress on standard error.

    Returns:
        What was kept and found.

    Raises:
        BontuneError: the tokenizer is no byte-level or byte-fallback BPE, the corpus is empty or has a token that the
            model lacks, the folder exists, or a check fails; then nothing is written.

    References:
        Ushio et al., vocabulary trimming, arXiv 2305.15020.
    """
    folder, corpus = Path(folder).expanduser(), [text for text in texts if text]
    if folder.exists():
        raise BontuneError(f"{folder} exists already; name a folder that does not.")
    if not corpus:
        raise BontuneError("The corpus has no text; give files with the texts that the model shall read and write.")
    tokenizer = models.load_tokenizer(model)
    core = _core_of(tokenizer, str(model))
    used = _used(tokenizer, corpus, is_quiet=is_quiet)
    network, _ = models.load_model(model, dtype=torch.float32)
    num_tokens, num_parameters = _size(network)
    if max(used) >= num_tokens:
        raise _without_row(tokenizer.convert_ids_to_tokens(max(used)), str(model))
    # Some tokenizers have special tokens that the model lacks, and that are in no text.
    kept = [token for token in _kept(core, used | _named_ids(network)) if token < num_tokens]
    sample = [_ids(tokenizer, text)[:LONGEST_CHECKED] for text in corpus[:: -(-len(corpus) // NUM_CHECKED)]]
    before = [_logits(network, row)[:, kept] for row in sample]
    _keep_rows(network, kept)
    new_id = {old: new for new, old in enumerate(kept)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-prune-", dir=folder.parent) as place:
        pruned = _pruned_tokenizer(tokenizer, core, new_id, Path(place) / "tokenizer")
        written = Path(place) / "model"
        save_model(network, pruned, written, dtype=saved_dtype(model))
        network, pruned = models.load_model(written, dtype=torch.float32)
        _check_tokens(tokenizer, pruned, corpus, new_id, is_quiet=is_quiet)
        largest = _check_logits(network, [[new_id[token] for token in row] for row in sample], before)
        os.replace(written, folder)
    return Pruned(
        num_tokens_before=num_tokens,
        num_tokens=len(kept),
        num_parameters_before=num_parameters,
        num_parameters=_size(network)[1],
        num_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        num_texts=len(corpus),
        largest_difference=largest,
    )


def _without_row(token: str, name: str) -> BontuneError:
    return BontuneError(
        f"The corpus has the token {token!r}, for which {name} has no row: leave it out, or add a row with "
        "model.resize_token_embeddings and save the model."
    )


# ---- which tokens ----


def _core_of(tokenizer: Any, name: str) -> dict[str, Any]:
    """Return the tree of a tokenizer's ``tokenizer.json``.

    Raises:
        BontuneError: it is of a kind whose tokens cannot be left out without a change of the others.
    """
    core = json.loads(tokenizer.backend_tokenizer.to_str()) if getattr(tokenizer, "is_fast", False) else {}
    model = core.get("model", {})
    is_bytes = model.get("byte_fallback") or '"ByteLevel"' in json.dumps(core.get("pre_tokenizer"))
    if (
        model.get("type") != "BPE"
        or not is_bytes
        or model.get("continuing_subword_prefix")
        or model.get("end_of_word_suffix")
    ):
        raise BontuneError(
            f"The vocabulary of {name} cannot be pruned: its tokenizer is no byte-level or byte-fallback BPE, such as "
            "those of GPT-2, Llama, Qwen, Gemma and SmolLM2."
        )
    return core


def _kept(core: Mapping[str, Any], used: set[int]) -> list[int]:
    """Return the ids to keep in their new order: those of the BPE's vocabulary, then added tokens outside of it.

    That is the order in which tokenizers numbers tokens when it reads a file.
    """
    vocabulary: dict[str, int] = core["model"]["vocab"]
    ranks = {tuple(pair): rank for rank, pair in enumerate(core["model"]["merges"])}
    added = {entry["id"]: entry["content"] for entry in core["added_tokens"]}
    by_merges = {token for token, i in vocabulary.items() if i in used and i not in added}
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)] if core["model"]["byte_fallback"] else ByteLevel.alphabet()
    tokens = {*bytes_, *added.values(), core["model"]["unk_token"], *by_merges}
    for token in by_merges - {*bytes_}:
        tokens.update(_ancestors(token, ranks))
    inside = sorted(vocabulary[token] for token in tokens & vocabulary.keys())
    return inside + sorted(i for i in added if i not in set(inside))


def _ancestors(token: str, ranks: Mapping[tuple[str, ...], int]) -> Iterator[str]:
    """Yield what a token is merged from: its characters, and each result of a merge on the way.

    In a text where the token is found no merge crosses its borders, so that the same merges have made it there.
    """
    parts = list(token)
    yield from parts
    while True:
        pairs = [(ranks[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in ranks]
        if not pairs:
            return
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
        yield parts[i]


def _used(tokenizer: Any, texts: Sequence[str], *, is_quiet: bool) -> set[int]:
    """Return the ids that occur in texts and in the chat template's own text."""
    with Bar("tokenise", unit="texts", is_quiet=is_quiet) as bar:
        used = {token for rows in _tokenised(tokenizer, texts, bar) for row in rows for token in row}
    return used | {token for text in _template_texts(tokenizer) for token in _ids(tokenizer, text)}


def _tokenised(tokenizer: Any, texts: Sequence[str], bar: Bar) -> Iterator[list[list[int]]]:
    for start in range(0, len(texts), BATCH):
        yield tokenizer(list(texts[start : start + BATCH]))["input_ids"]
        bar.show(min(start + BATCH, len(texts)), len(texts))


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids


def _template_texts(tokenizer: Any) -> Iterator[str]:
    for turns in _TURNS if has_chat_template(tokenizer) else ():
        for asks in (True, False):
            try:
                yield render_conversation(tokenizer, turns, asks=asks)
            except BontuneError:  # many templates take no system turn
                continue


def _configs(network: Any) -> list[Any]:
    found = (network.config, network.config.get_text_config(), getattr(network, "generation_config", None))
    return list({id(config): config for config in found if config is not None}.values())


def _token_ids(config: Any) -> dict[str, Any]:
    """Return the settings of a config that hold an id, or a list of them."""
    return {
        key: value
        for key, value in vars(config).items()
        if key.endswith("_token_id") and isinstance(value, (int, list)) and not isinstance(value, bool)
    }


def _named_ids(network: Any) -> set[int]:
    values = [value for config in _configs(network) for value in _token_ids(config).values()]
    rows = _size(network)[0]
    flat = {i for value in values for i in (value if isinstance(value, list) else [value])}
    return {i for i in flat if 0 <= i < rows}


# ---- the smaller model ----


def _size(network: Any) -> tuple[int, int]:
    """Return the rows of the embedding, and the number of parameters."""
    rows = network.get_input_embeddings().weight.shape[0]
    return int(rows), sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def _keep_rows(network: Any, kept: Sequence[int]) -> None:
    """Keep these rows of the embedding and of the head, and the ids in the configs that name them."""
    ends = [network.get_input_embeddings(), network.get_output_embeddings()]
    tensors = [getattr(end, name, None) for end in ends for name in ("weight", "bias")]
    for tensor in {id(tensor): tensor for tensor in tensors if tensor is not None}.values():
        tensor[: len(kept)] = tensor[list(kept)].clone()
    network.resize_token_embeddings(len(kept))  # which cuts the rows behind, and knows how each family ties them
    new_id = {old: new for new, old in enumerate(kept)}
    for config in _configs(network):
        for key, value in _token_ids(config).items():
            mapped = [new_id[i] for i in value if i in new_id] if isinstance(value, list) else new_id.get(value)
            setattr(config, key, mapped)


def _pruned_tokenizer(tokenizer: Any, core: dict[str, Any], new_id: Mapping[int, int], folder: Path) -> Any:
    """Return a tokenizer with the kept tokens under their new ids, and otherwise the same settings."""
    model = core["model"]
    model["vocab"] = {token: new_id[i] for token, i in model["vocab"].items() if i in new_id}
    model["merges"] = [pair for pair in model["merges"] if {*pair, "".join(pair)} <= model["vocab"].keys()]
    added = [{**entry, "id": new_id[entry["id"]]} for entry in core["added_tokens"] if entry["id"] in new_id]
    core["added_tokens"] = sorted(added, key=lambda entry: entry["id"])
    core["padding"] = core["truncation"] = None
    _renumber(core["post_processor"], new_id)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        if path.name not in ("tokenizer_config.json", "chat_template.jinja") and path.is_file():
            path.unlink()  # the vocabulary in other formats
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings.pop("added_tokens_decoder", None)  # by old ids
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # which reads tokenizer.json as it is
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False, indent=2), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(core, ensure_ascii=False), encoding="utf-8")
    return models._read_tokenizer(str(folder))


def _renumber(tree: Any, new_id: Mapping[int, int]) -> None:
    """Change the ids of special tokens in a post-processor, in each of the forms that tokenizers writes."""
    if isinstance(tree, list):
        for part in tree:
            _renumber(part, new_id)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key == "ids":
                tree[key] = [new_id[i] for i in value]
            elif key in ("sep", "cls"):
                tree[key] = [value[0], new_id[value[1]]]
            else:
                _renumber(value, new_id)


# ---- the checks ----


def _check_tokens(
    tokenizer: Any, pruned: Any, texts: Sequence[str], new_id: Mapping[int, int], *, is_quiet: bool
) -> None:
    """Raise an error unless every text has the same tokens as before, under their new ids."""
    with Bar("check", unit="texts", is_quiet=is_quiet) as bar:
        before = (row for rows in _tokenised(tokenizer, texts, Bar("", is_quiet=True)) for row in rows)
        after = (row for rows in _tokenised(pruned, texts, bar) for row in rows)
        for text, old, new in zip(texts, before, after, strict=True):
            if [new_id.get(token) for token in old] != new:
                raise BontuneError(
                    f"The pruned tokenizer splits the text {text[:60]!r} in another way than before, so nothing was "
                    "written: this tokenizer cannot be pruned."
                )


@torch.no_grad()
def _logits(network: Any, row: Sequence[int]) -> Tensor:
    """Return the logits behind each token of a text, of shape (tokens, vocabulary)."""
    logits: Tensor = network(torch.tensor([list(row)]), use_cache=False).logits[0]
    return logits.float()


def _check_logits(network: Any, rows: Sequence[Sequence[int]], before: Sequence[Tensor]) -> float:
    """Return the largest difference of a logit.

    Raises:
        BontuneError: it is larger than rounding explains.
    """
    pairs = [(_logits(network, row), expected) for row, expected in zip(rows, before, strict=True)]
    largest = max(float((logits - expected).abs().max()) for logits, expected in pairs)
    scale = max(1.0, max(float(expected.abs().max()) for expected in before))
    if not largest <= ROUNDING * scale:
        raise BontuneError(
            f"The pruned model's logits differ from the model's by {largest:.2g}, so nothing was written: this model "
            "uses its vocabulary in more places than the embedding and the head."
        )
    return largest
