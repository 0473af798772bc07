"""Settings: read from YAML and from ``key=value``, validated with messages that help, and compared with each other.

The words of other libraries for the same settings are known here, so that a message can name ours.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePath
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from bontune.base.errors import BontuneError, did_you_mean, nearest
from bontune.base.text import repeated

_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_LEADING_ZERO = re.compile(r"[-+]?0[\d_]+")
_NULLS = ("", "~", "null")
_TEXTS = ("run", "model", "template", "prompt", "answer", "stop", "path", "function")
"""Keys whose values are texts: ``run=5`` names the folder 5."""
_ONE_WORD_IN_BRACKETS = re.compile(r"\[[^,\"'\[\]]*\]")
_CLOSING = {"{": "}", "[": "]", '"': '"', "'": "'"}
_ANY_TEXT = ("template", "prompt", "answer", "stop")
"""Keys whose values are texts in which braces and quotes may stand alone."""
_NO_SPACE = re.compile(r"\{\s*[\w'\"]+:[^\s:].*\}")
"""Matches a section whose colons have no space behind them, which YAML reads as keys without values."""
_WITH_ESCAPES = ("stop", "template")
"""Keys in which ``\\n`` and ``\\t`` on a command line mean a line break and a tab, hard to type in a shell."""


class _Loader(yaml.SafeLoader):
    """A loader that refuses a key twice in one mapping; YAML's own loader takes the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        key = repeated([key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
        if key is not None:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"the key {key!r} occurs twice in the section that starts in line {line}")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the keys and values of a YAML file; an empty file has none.

    Raises:
        BontuneError: the file is not valid YAML, or something else than keys and values.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BontuneError(f"{path} is not valid YAML{where}: {error.problem or error.context}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BontuneError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if tree is not None and not isinstance(tree, dict):
        raise BontuneError(f"{path} must contain keys and values, got {type(tree).__name__}.")
    return tree or {}


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of the tree with each ``a.b=value`` set.

    Values are YAML, except where users mean a text: ``#`` starts no comment, and ``007``, a date and ``{prompt}`` are
    texts. Quotes around a value are YAML's.

    Raises:
        BontuneError: an override is not ``key=value``.

    Example:
        >>> apply_overrides({"steps": 1}, ["steps=2", "lr=3e-4", "run=a #1", "task.template=### {prompt}"])
        {'steps': 2, 'lr': 0.0003, 'run': 'a #1', 'task': {'template': '### {prompt}'}}
    """
    tree = copy.deepcopy(tree)
    for override in overrides:
        key, equals, text = override.partition("=")
        *parents, leaf = key.split(".")
        if not equals or not leaf or not all(parents) or key != "".join(key.split()):
            raise BontuneError(
                f"{override!r} is not an override: write key=value without spaces around the equals sign, "
                "e.g. training.steps=50."
            )
        try:
            value = _plain(yaml.safe_load(text), text, is_text_key=leaf in _TEXTS)
        except yaml.YAMLError as error:
            _check_closed(key, text, error)
            value = text
        if value is text and _NO_SPACE.fullmatch(text.strip()) and leaf not in _TEXTS:
            raise BontuneError(f"{key}={text}: put a space behind each colon, as in {{name: jsonl, limit: 5}}.")
        if leaf in _WITH_ESCAPES and value is text:
            value = text.replace("\\n", "\n").replace("\\t", "\t")
        node = tree
        for parent in parents:
            if not isinstance(node.setdefault(parent, {}), dict):
                node[parent] = {}
            node = node[parent]
        node[leaf] = value
    return tree


def merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree with the changes of all levels; the weights of several N are one value, and replace the others.

    Example:
        >>> merged({"a": {"b": 1, "n": {1: 0.5, 4: 0.5}}}, {"a": {"n": {8: 1.0}}})
        {'a': {'b': 1, 'n': {8: 1.0}}}
    """
    result = dict(tree)
    for key, value in changes.items():
        both = key != "n" and isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def choose_size(tree: Mapping[str, Any], overrides: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Return settings in the size that the override ``size=NAME`` asks for, and the other overrides.

    Settings may hold ``sizes``: for each name the changes that suit them to a machine. The first is taken where no size
    is asked for. In settings without sizes ``size`` is a key like any other.

    Raises:
        BontuneError: there is no such size, or ``sizes`` does not consist of named changes.

    Example:
        >>> choose_size({"steps": 5, "sizes": {"cpu": {}, "gpu": {"steps": 50}}}, ["size=gpu", "lr=1"])
        ({'steps': 50}, ['lr=1'])
    """
    overrides, plain = list(overrides), dict(tree)
    if "sizes" not in plain:
        return plain, overrides
    sizes = plain.pop("sizes")
    if not isinstance(sizes, dict) or not sizes or not all(isinstance(changes, dict) for changes in sizes.values()):
        raise BontuneError("sizes takes names with the keys that each changes, such as {cores: {}, gpu: {lr: 1e-5}}.")
    chosen = [override for override in overrides if override.partition("=")[0] == "size"]
    name = chosen[-1].partition("=")[2] if chosen else next(iter(sizes))
    if name not in sizes:
        raise BontuneError(f"There is no size {name!r}{did_you_mean(name, sizes)}; there are {', '.join(sizes)}.")
    return merged(plain, sizes[name]), [override for override in overrides if override not in chosen]


def _check_closed(key: str, text: str, error: yaml.YAMLError) -> None:
    """Refuse a value that opens a section, a list or a quotation and does not close it; any other value is a text.

    Raises:
        BontuneError: the value is not closed, and its key is none whose texts may contain single braces and quotes.
    """
    closing = _CLOSING.get(text.lstrip()[:1])
    if closing is None or key.rpartition(".")[2] in _ANY_TEXT:
        return
    if text.rstrip().endswith(closing) and len(text.strip()) > 1:
        reason = getattr(error, "problem", None) or "it cannot be read"
        raise BontuneError(f"{key}={text} is not valid YAML: {reason}.")
    advice = f"close it, and put the whole into quotes, '{key}=…', where a shell would split it"
    raise BontuneError(f"{key}={text} begins with {text.lstrip()[0]} and has no {closing} at its end: {advice}.")


def _plain(value: Any, text: str, *, is_text_key: bool) -> Any:
    """Return the value that a user means on a command line where YAML would read something else."""
    bare = text.strip()
    if is_text_key and (isinstance(value, (bool, int, float)) or _ONE_WORD_IN_BRACKETS.fullmatch(bare)):
        return text  # "[/INST]" ends a turn; a list of one text needs no brackets
    is_text = (
        (isinstance(value, str) and bare[0] not in "\"'")
        or (value is None and bare.lower() not in _NULLS)  # YAML saw a comment only
        or isinstance(value, date)
        or _LEADING_ZERO.fullmatch(bare) is not None
        or (isinstance(value, (dict, list)) and bare[0] not in "{[")  # "Q: 1"
        or (isinstance(value, dict) and bool(value) and all(inner is None for inner in value.values()))  # "{prompt}"
    )
    if not is_text:
        return value
    return float(text) if _EXPONENT.fullmatch(bare) else text


def flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return the values of a tree by their dotted names.

    >>> flat({"training": {"steps": 3}, "seed": 0})
    {'training.steps': 3, 'seed': 0}
    """
    values: dict[str, Any] = {}
    for name, value in tree.items():
        values |= flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return values


_OUR_WORDS = {
    "be text": "be a valid string",
    "be a whole number": "be a valid integer",
    "be a number": "be a valid number",
    "be true or false": "be a valid boolean",
    "be at least": "be greater than or equal to",
    "be above": "be greater than",
    "be at most": "be less than or equal to",
    "be below": "be less than",
}
"""Our words for pydantic's; a longer phrase stands before one that it contains."""


def known_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the dotted keys of a section and of the sections inside it."""
    keys = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys += known_keys(kind, f"{prefix}{name}.")
    return keys


def explain(
    section: type[BaseModel],
    error: ValidationError,
    what: str,
    see: str,
    ours: Callable[[str], Ours | None] = lambda _: None,
) -> str:
    """Write pydantic's first complaint as one sentence.

    Args:
        section: class that was validated.
        error: pydantic's complaints.
        what: name of the settings in the message, such as "recipe".
        see: a sentence that says where all keys are shown.
        ours: returns our key for a word of other trainers, where the keys are those of a recipe.
    """
    keys = known_keys(section)
    first, *others = error.errors()
    where = _where(keys, first)
    if first["type"] in ("model_type", "dict_type") and f"{where}.name" in keys and isinstance(first["input"], str):
        return f"{where} is a section of keys and values: write {where}.name={first['input']}."
    if first["type"] == "value_error":  # our own sentence
        return f"{where}: {str(first['ctx']['error']).rstrip('.')}."
    if first["type"] == "extra_forbidden":
        return " ".join(
            filter(None, (f"The {what} has no key {where!r}.", _hint(where, first["input"], keys, ours), see))
        )
    same_place = [other for other in others if _where(keys, other) == where]  # one for each member of a union
    rules = dict.fromkeys(rule_of(complaint) for complaint in (first, *same_place))
    return f"{where}: {', or '.join(rules)}, got {shown(first['input'])}."


def _hint(where: str, value: Any, keys: list[str], ours: Callable[[str], Ours | None]) -> str:
    """Suggest a key for an unknown one: one of that name elsewhere, ours for another trainer's word, or a similar one.

    Returns:
        A sentence; empty if nothing is similar.
    """
    section, _, leaf = where.rpartition(".")
    within = f"{section}." if section else ""
    by_leaf: dict[str, list[str]] = {}
    for key in sorted(keys, key=lambda key: (not key.startswith(within), key.count("."))):
        by_leaf.setdefault(key.rpartition(".")[2], []).append(key)
    namesakes = by_leaf.get(leaf, [])
    near_sibling = nearest(leaf, [key.rpartition(".")[2] for key in keys if key.rpartition(".")[0] == section])
    inner = flat(value) if isinstance(value, dict) and not near_sibling else ()  # "rollout.n=8" is an unknown section
    other = next(filter(None, map(ours, (leaf, *inner))), None)
    is_inside = bool(within and namesakes and namesakes[0].startswith(within))
    if other is not None and not is_inside:
        here = f"{within}{(other.key or '').rpartition('.')[2]}"
        return Ours(here, other.note).hint() if within and here in keys else other.hint()
    near = leaf if namesakes else near_sibling or nearest(leaf, by_leaf)
    return f"Did you mean {by_leaf[near][0]!r}?" if near else ""


def shown(value: Any) -> str:
    """Write a value as it is written on a command line.

    >>> shown("many"), shown(None), shown(True)
    ("'many'", 'nothing', 'true')
    """
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _where(keys: list[str], complaint: Any) -> str:
    """Return the dotted key of a complaint, without the names that pydantic gives to members of a union."""
    where, parts = "", complaint["loc"]
    for number, part in enumerate(parts, start=1):
        dotted = f"{where}.{part}" if where else str(part)
        if isinstance(part, int):
            where += f"[{part}]"
        elif dotted in keys or (complaint["type"] == "extra_forbidden" and number == len(parts)):
            where = dotted
    return where


def rule_of(complaint: Any) -> str:
    """Return the rule that a complaint names, in our words."""
    kind = complaint["type"]
    if kind in ("model_type", "dict_type"):
        return "must be a section of keys and values"
    if kind == "list_type":
        return f"must be a list such as [{complaint['input']}]"
    if kind == "too_short":
        return "must not be empty"
    message = complaint["msg"].removeprefix("Input ")
    if kind != "literal_error":  # what follows the comma repeats the input
        message = message.partition(", ")[0]
    for ours, theirs in _OUR_WORDS.items():
        message = message.replace(theirs, ours)
    return message.replace("should", "must", 1)


@dataclass(frozen=True, slots=True)
class Ours:
    """Our setting for another trainer's word."""

    key: str | None
    """Key of a recipe; None: there is no such setting here."""
    note: str = ""
    """A sentence about what is different here; empty: the key says it all."""

    def hint(self) -> str:
        """Return the sentence for an error message."""
        return " ".join(part for part in (f"Did you mean {self.key!r}?" if self.key else "", self.note) if part)


def ours(word: str) -> Ours | None:
    """Find our setting for another trainer's word, in whatever section it was written.

    Example:
        >>> ours("training.learning_rate").key, ours("--max-new-tokens").key
        ('training.lr', 'sampling.max_new_tokens')
    """
    return _OURS.get(word.rpartition(".")[2].lstrip("-").replace("-", "_").lower())


OTHER_WORDS: tuple[tuple[str | None, str, str], ...] = (
    # ---- what is trained, on what ----
    ("model", "", "model_name model_name_or_path pretrained_model_name_or_path model_id model_path base_model"),
    (
        "task.data",
        "task.name=jsonl reads rows of your own.",
        "data dataset dataset_name dataset_path data_path data_files train_data train_dataset train_file train_files",
    ),
    ("task.prompt", "It names the column of the questions.", "prompt_column prompt_key text_column dataset_text_field"),
    ("task.answer", "It names the column of the answers.", "answer_column answer_key reference_column label_column"),
    ("task.template", "", "prompt_template system_prompt"),
    (
        "task.grader",
        "It takes exact, last_number, or your function as file.py:function.",
        "grader reward_fn reward_func reward_funcs reward_function reward_functions",
    ),
    ("task.split", "", "dataset_split dataset_train_split train_split"),
    ("task.stop", "", "stop stop_strings stop_sequences stop_words"),
    ("eval.split", "", "dataset_test_split eval_split test_split validation_split"),
    ("eval.task", "", "eval_data eval_dataset eval_file val_files validation_file test_file"),
    (
        "verifier.path",
        "With verifier.name=reward_model it selects; what a sample is worth is the task's reward.",
        "reward_model reward_model_path reward_model_name reward_model_name_or_path",
    ),
    (
        "objective.name",
        "`bontune objectives` lists them.",
        "loss_type algo algorithm adv_estimator advantage_estimator scale_rewards",
    ),
    ("objective.n", "", "n best_of best_of_n bon_n"),
    # ---- how completions are drawn ----
    (
        "sampling.samples",
        "",
        "num_generations num_return_sequences num_samples n_samples samples_per_prompt group_size rollout_n",
    ),
    ("sampling.temperature", "", "temperature"),
    ("sampling.top_p", "", "top_p"),
    (
        "sampling.max_new_tokens",
        "",
        "max_new_tokens max_tokens max_completion_length max_completion_tokens max_response_length response_length "
        "max_length max_seq_length generate_max_len",
    ),
    (
        None,
        "Training draws from the whole distribution, whose gradient it takes; only sampling.top_p can be lowered.",
        "top_k min_p repetition_penalty presence_penalty frequency_penalty",
    ),
    (
        None,
        "Prompts are never cut: one that does not fit the model is refused before work begins.",
        "max_prompt_length max_prompt_tokens prompt_max_len",
    ),
    ("engine.name", "vLLM is engine.name=vllm.", "use_vllm vllm vllm_mode rollout_backend backend"),
    ("engine.gpu_memory", "", "gpu_memory_utilization vllm_gpu_memory_utilization"),
    ("engine.context", "", "max_model_len vllm_max_model_len vllm_max_model_length"),
    ("engine.max_sequences", "", "max_num_seqs"),
    (
        None,
        "Each process draws from a whole copy of the model, on one GPU.",
        "tensor_parallel_size vllm_tensor_parallel_size",
    ),
    # ---- how it is trained ----
    ("training.lr", "", "lr learning_rate peak_lr actor_lr"),
    (
        "training.prompts_per_step",
        "It counts prompts, each with sampling.samples completions.",
        "batch_size train_batch_size per_device_train_batch_size global_batch_size generation_batch_size "
        "rollout_batch_size num_prompts prompts_per_batch",
    ),
    (
        "training.steps",
        "It counts updates: E epochs are E × problems / training.prompts_per_step of them.",
        "epochs num_epochs max_epochs total_epochs num_train_epochs",
    ),
    ("training.steps", "", "steps max_steps num_steps total_steps train_steps num_train_steps total_training_steps"),
    (
        None,
        "No key is needed: a step of training.prompts_per_step prompts is computed in parts of training.token_budget "
        "tokens, which changes no result.",
        "gradient_accumulation_steps gradient_accumulation micro_batch_size ppo_micro_batch_size_per_gpu",
    ),
    (
        None,
        "The memory of an evaluation is bounded by sampling.token_budget.",
        "eval_batch_size per_device_eval_batch_size",
    ),
    ("training.warmup", "", "warmup_steps num_warmup_steps lr_warmup_steps"),
    ("training.warmup", "It counts steps: the ratio times training.steps.", "warmup_ratio lr_warmup_steps_ratio"),
    (
        "training.decay",
        "It takes linear, cosine or constant.",
        "lr_scheduler lr_scheduler_type lr_schedule lr_decay_style",
    ),
    ("training.lr_end", "", "min_lr min_learning_rate lr_min"),
    ("training.weight_decay", "", "weight_decay wd"),
    (
        "training.max_grad_norm",
        "",
        "max_grad_norm grad_clip clip_grad clip_grad_norm gradient_clip_val gradient_clipping",
    ),
    (
        None,
        "The optimizer is AdamW with PyTorch's own settings.",
        "optim optimizer adam_beta1 adam_beta2 adam_epsilon betas",
    ),
    ("training.updates_per_batch", "", "num_iterations ppo_epochs num_ppo_epochs inner_epochs mu"),
    (
        "training.minibatches",
        "It counts the parts of a batch.",
        "num_mini_batches num_minibatches mini_batch_size ppo_mini_batch_size",
    ),
    ("training.clip_range", "", "epsilon epsilon_high epsilon_low clip_eps clip_epsilon clip_ratio cliprange"),
    ("training.clip", "It takes token or sequence.", "importance_sampling_level"),
    ("training.importance", "", "vllm_importance_sampling_correction vllm_importance_sampling_mode"),
    ("training.importance_cap", "", "vllm_importance_sampling_cap tis_imp_ratio_cap"),
    (
        "kl.start",
        "The coefficient moves from kl.start to kl.end.",
        "beta kl_coef kl_coeff kl_beta init_kl_coef kl_loss_coef",
    ),
    (
        "kl.anchor_ema",
        "The anchor is a moving average of the policy.",
        "ref_model sync_ref_model ref_model_sync_steps ref_model_mixup_alpha",
    ),
    ("training.lora", "training.lora={} trains adapters.", "use_peft use_lora peft peft_config lora_config"),
    ("training.lora.r", "", "r lora_r lora_rank rank"),
    ("training.lora.alpha", "", "alpha lora_alpha"),
    ("training.lora.targets", "", "target_modules lora_target_modules lora_targets"),
    ("training.lora.layers", "", "layers_to_transform lora_layers"),
    (None, "Adapters have no dropout here: a log-probability must not depend on chance.", "lora_dropout dropout"),
    ("training.precision", "It takes fp32, bf16 or auto.", "bf16 fp16 fp32 dtype torch_dtype mixed_precision"),
    ("training.device", "It takes auto or cpu.", "device cuda device_map use_cpu no_cuda"),
    (
        None,
        "Large models train inside TRL or verl (`bontune export`), see docs/clusters.md.",
        "fsdp fsdp_config deepspeed zero_stage shard",
    ),
    (None, "torchrun or `accelerate launch` starts several processes.", "num_gpus n_gpus num_processes nproc_per_node"),
    # ---- what is written, and when ----
    ("run", "", "output output_dir output_path out out_dir save_dir save_path log_dir logging_dir run_name run_dir"),
    ("seed", "", "seed random_seed data_seed"),
    (
        "eval.every",
        "It counts steps.",
        "eval_steps eval_every eval_freq eval_interval eval_strategy evaluation_strategy test_freq val_check_interval",
    ),
    (
        "training.checkpoint_every",
        "It counts steps.",
        "save_steps save_every save_freq save_interval save_strategy checkpoint_interval checkpoint_steps",
    ),
    ("training.keep_checkpoints", "", "save_total_limit max_checkpoints keep_last max_ckpt_to_keep"),
    ("eval.keep", "It is a list of metrics, such as [pass@16].", "metric_for_best_model load_best_model_at_end"),
    (None, "Every step is written to metrics.jsonl in the run's folder.", "logging_steps log_every log_interval"),
    (
        "training.track",
        "It is a list, such as [wandb].",
        "report_to logger log_with tracker trackers wandb tensorboard use_wandb wandb_project",
    ),
    (None, "The same command resumes the run from its last checkpoint.", "resume resume_from_checkpoint"),
    (None, "`bontune push RUN OWNER/NAME` uploads a finished run.", "push_to_hub hub_model_id"),
)
"""Our key, a sentence, and other trainers' words for the key."""
_OURS = {word: Ours(key, note) for key, note, words in OTHER_WORDS for word in words.split()}


_TASK = r"(?:task_options|(?:eval\.)?task)\."
_NAMING = {
    rf"{_TASK}(?:data|test_data|hub)(?:\..*)?": "the problems",
    rf"{_TASK}grader": "the grader's code",
    "model": "the weights of the model",
    r"verifier(?:\.(?:path|function|prompt))?": "what the verifier names",
}
"""Settings that name files, and the name under which settings keep the hash of the file's content."""
_SAME_AS = {"the model's weights": "the weights of the model"}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the dotted names of the settings in which two pools or runs differ.

    Names of files do not count as different where the files have the same content.

    Args:
        one: settings of a pool or a run, with the hashes of the contents that they name.
        other: settings of another.

    Example:
        >>> same = {"contents": {"the problems": "1f"}}
        >>> differing({"task_options": {"data": "a.jsonl"}, **same}, {"task_options": {"data": "b.jsonl"}, **same})
        []
        >>> differing({"task_options": {"data": "a.jsonl"}}, {"task_options": {"data": "b.jsonl"}})
        ['task_options.data']
    """
    ours, theirs = flat(one), flat(other)
    names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    return [name for name in names if not _is_same(name, ours, theirs)]


def _is_same(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Return whether a setting names files of the same content in both, as far as the hashes tell."""
    content = next((content for naming, content in _NAMING.items() if re.fullmatch(naming, name)), None)
    if content is None or not _hashes(content, ours) or _hashes(content, ours) != _hashes(content, theirs):
        return False
    return content == "the problems" or _last_part(ours.get(name)) == _last_part(theirs.get(name))


def _hashes(content: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hashes of this content; training and evaluation may have one each."""
    hashes = {name.removeprefix("contents."): value for name, value in settings.items()}
    hashes = {_SAME_AS.get(name, name): value for name, value in hashes.items()}
    return {name: value for name, value in hashes.items() if name.startswith(content) and str(value or "").strip("-")}


def _last_part(value: Any) -> str:
    """Return the function in ``file.py:function``, or the last part of a path.

    The last part must be equal as well: one file may define several functions, and the hash of a model covers its
    weights, not its whole folder.
    """
    source, colon, function = str(value).rpartition(":")
    return function if source and colon else PurePath(str(value)).name
