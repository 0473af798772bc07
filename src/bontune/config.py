"""The recipe: one validated tree that says all of a run. Every key has a default; unknown keys name the nearest one."""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError
from pydantic import NonNegativeFloat as NotNegative
from pydantic import NonNegativeInt as NotNegativeInt

from bontune.base.errors import BontuneError
from bontune.base.validation import explain

RECIPES = Path(__file__).parent / "recipes"
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


class Section(BaseModel):
    """A part of a tree of settings: no unknown keys, nothing changes after validation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


class TaskSection(Section):
    """What to train on. Further keys go to the task itself (``jsonl``: ``data``, ``prompt``, ``grader`` …)."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    name: str = "countdown"
    """A task's name; ``bontune tasks`` lists them."""
    split: str = "train"
    """Problems to train on."""

    def options(self) -> dict[str, Any]:
        """The keys that belong to the task itself."""
        return dict(self.model_extra or {})


class VerifierSection(Section):
    """What Best-of-N selects by."""

    name: Literal["oracle", "majority", "reward_model", "endpoint", "python"] = "oracle"
    """``oracle``: the reward itself; ``majority``: votes for the answer; ``reward_model``: a trained scorer;
    ``endpoint``: a judge behind a server; ``python``: your own function."""
    path: str | None = None
    """For ``reward_model``: a shipped name, a folder, or a Hugging Face hub id."""
    function: str | None = None
    """For ``python``: ``module:function`` or ``file.py:function``, (problem, completion) -> float."""
    url: str | None = None
    """For ``endpoint``: the server's address, such as ``http://localhost:8000/v1``."""
    model: str | None = None
    """For ``endpoint``: the model's name there; null: its only one."""
    prompt: str | None = None
    """For ``endpoint``: what to ask, a text or a file; null: the judge's own."""

    def options(self) -> dict[str, str | None]:
        """All keys but the name."""
        return self.model_dump(exclude={"name"})


class ObjectiveSection(Section):
    """What to optimise; see ``bontune.objectives``."""

    name: str = "bon_rl"
    """One of ``bontune.objectives.names()``, or supervised: ``sft``, ``dco``, ``star``, ``rft``, ``bon_distillation``,
    ``bon_sft``, ``bonbon``, ``vbon``, ``bond``."""
    n: PositiveInt = 16
    """N, the Best-of-N budget that the model will be used with."""
    reward: Literal["environment", "verifier"] = "environment"
    """What a sample is worth: what the task says, or the verifier's score (the baseline that learns to please it)."""
    baseline: Literal["loo", "loo1", "none"] | None = None
    """Variance reduction of ``bon_rl``, ``pkpo``, ``bon_rl_variational`` and ``bon_sft`` (``loo`` or ``none``);
    null here and below: the objective's own default."""
    draw: Literal["all", "winner"] = "all"
    """``all`` samples carry credit, or only the ``winner`` of every N, as in the paper."""
    p_fail: Literal["plugin", "running", "value_head"] = "plugin"
    """Where BoN-RLB takes P_fail from: this batch, an average per prompt, or a value head on the prompt."""
    sign: Literal["exact", "published"] = "exact"
    """Sign of BoN-RLB's wrong samples."""
    law: Literal["exact", "no_ties", "variational"] | None = None
    """The law of Best-of-N in ``bon_sft`` and ``bond`` (which has no ``variational``)."""
    estimate: Literal["loo", "plugin", "harmonic"] | None = None
    """Of that law: ``loo`` or ``plugin`` in ``bon_sft``, ``plugin`` or ``harmonic`` in ``vbon`` and ``bond``."""
    alpha: float | None = Field(default=None, ge=0, le=1)
    """Share of SFT on winners in ``bonbon``; null: 0.005."""
    beta: float | None = Field(default=None, ge=0, le=1)
    """Share of the backward KL in ``bond``; null: 0.5."""
    distinct: bool | None = None
    """``rft`` keeps only the first of equal correct texts; null: false."""
    normalised: bool | None = None
    """``rft`` weighs the kept samples of a prompt by one over their number; null: true."""
    winners: Literal["all", "correct"] | None = None
    """Which winners ``bon_distillation`` trains on; null: ``all``."""
    reference_samples: NotNegativeInt | None = None
    """K, samples of the anchor that ``vbon`` and ``bond`` compare with; 0: the own ones; null: ``sampling.samples``."""


class SamplingSection(Section):
    """How completions are drawn in training."""

    samples: PositiveInt = 32
    """M, samples per prompt."""
    temperature: PositiveFloat = 1.0
    """T; the policy that is trained is the one at this temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus; below 1 the gradient estimate is biased, because truncated tokens are never drawn."""
    max_new_tokens: PositiveInt = 24
    """Longest completion, in tokens."""
    token_budget: PositiveInt = 65_536
    """Tokens held in the engine's cache at once; bounds memory, not results."""


class LoraSection(Section):
    """Low-rank adapters (peft)."""

    r: PositiveInt = 16
    """Rank."""
    alpha: PositiveFloat = 32.0
    """Scale: the update is multiplied by alpha / r."""
    targets: str | list[str] = "all-linear"
    """Modules to adapt."""


class TrainingSection(Section):
    """The optimisation."""

    steps: PositiveInt = 200
    """Updates."""
    prompts_per_step: PositiveInt = 32
    """P, prompts per update (over all processes)."""
    lr: PositiveFloat = 3e-4
    """Peak learning rate of AdamW."""
    warmup: NotNegativeInt = 10
    """Steps of linear warm-up."""
    decay: Literal["linear", "cosine", "constant"] = "linear"
    """Shape of the learning rate after the warm-up, down to ``lr_end``."""
    lr_end: NotNegative = 0.0
    """Learning rate that the decay ends at, one step after the last."""
    weight_decay: NotNegative = 0.0
    """AdamW's."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are scaled down to this norm."""
    value_lr: PositiveFloat = 1e-5
    """Learning rate of the value head (``objective.p_fail: value_head``)."""
    checkpoint_every: NotNegativeInt = 50
    """Steps between checkpoints; 0: only the last."""
    keep_checkpoints: int = Field(default=2, ge=2)
    """Checkpoints kept; at least 2, because the newest may be damaged."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 on a GPU that has it, float32 elsewhere."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Trade time for memory; ``auto``: on a GPU for models from 1e9 parameters."""
    token_budget: PositiveInt = 32_768
    """Tokens of a micro-batch; bounds memory, not results."""
    lora: LoraSection | None = None
    """Train adapters instead of all weights."""
    device: Literal["auto", "cpu"] = "auto"
    """``auto``: what accelerate finds."""
    max_grader_errors: float = Field(default=0.05, ge=0, le=1)
    """Share of a step's samples that may fail to be graded before the run stops."""
    track: list[Literal["tensorboard", "wandb"]] = []
    """Extra places for the metrics."""


class KLSection(Section):
    """The pull to the anchor, a moving average of the policy: the KL of whole completions, in nats."""

    start: NotNegative = 1.0
    """β at the beginning."""
    end: NotNegative = 0.075
    """β at the end."""
    steps: PositiveInt = 200
    """Length of the way from start to end."""
    delay: NotNegativeInt = 10
    """Steps at ``start`` before it begins."""
    shape: Literal["linear", "cosine", "exponential"] = "linear"
    """Of the way."""
    anchor_ema: float = Field(default=0.01, ge=0, le=1)
    """anchor ← ema·θ + (1 − ema)·anchor after each step; 0: the anchor stays the initial model."""
    share: float = Field(default=0.25, gt=0, le=1)
    """Share of each prompt's samples on which the KL is estimated (the first ones: they are exchangeable)."""


class EvalSection(Section):
    """Evaluation on held-out problems."""

    every: NotNegativeInt = 50
    """Steps between evaluations; 0: none during training."""
    task: TaskSection | None = None
    """Another task to evaluate on, such as ``humaneval`` after training on ``mbpp``; null: the one trained on."""
    split: str | None = None
    """Problems to evaluate on; null: ``validation`` where the task has it, else ``test``."""
    problems: PositiveInt | None = 200
    """How many of them; null: all."""
    k: list[PositiveInt] = Field(default=[1, 4, 16, 32], min_length=1)
    """Budgets to report."""
    samples: PositiveInt = 64
    """Samples per problem; at least the largest k, better twice."""
    temperature: NotNegative = 1.0
    """T of the evaluation."""
    keep: list[str] = []
    """Metrics such as ``pass@32``: the best model by each is kept in ``best/``, a folder for each."""


class Recipe(Section):
    """One run."""

    model: str = "countdown-tiny"
    """A shipped name, a folder, or a Hugging Face hub id."""
    task: TaskSection = TaskSection()
    verifier: VerifierSection = VerifierSection()
    objective: ObjectiveSection = ObjectiveSection()
    sampling: SamplingSection = SamplingSection()
    training: TrainingSection = TrainingSection()
    kl: KLSection = KLSection()
    eval: EvalSection = EvalSection()
    seed: int = 0
    """Of everything random in the run."""
    run: str = "runs/run"
    """The run folder."""

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Recipe:
        """Build and validate.

        Raises:
            BontuneError: an unknown key (the nearest is named) or a value outside its range.
        """
        try:
            recipe = cls.model_validate(tree)
        except ValidationError as error:
            see = "`bontune recipes show countdown` prints a whole recipe."
            raise BontuneError(explain(cls, error, "recipe", see)) from None
        if recipe.eval.every and max(recipe.eval.k) > recipe.eval.samples:
            raise BontuneError(
                f"eval.k asks for {max(recipe.eval.k)} of eval.samples = {recipe.eval.samples}: draw more or lower k."
            )
        from bontune.verifiers.load import check_options

        check_options(recipe.verifier.name, recipe.verifier.options())
        return recipe

    def to_yaml(self) -> str:
        """The whole tree as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def fingerprint(self) -> str:
        """Hash of everything that changes results; a checkpoint of one recipe is not resumed under another.

        ``run``, how often to save, tracking, and budgets that bound memory do not change results; more ``steps`` do
        (the schedules stretch).
        """
        tree = self.model_dump(mode="json")
        tree.pop("run")
        for section, key in (
            ("training", "checkpoint_every"),
            ("training", "keep_checkpoints"),
            ("training", "track"),
            ("training", "token_budget"),
            ("sampling", "token_budget"),
        ):
            tree[section].pop(key)
        if not tree["eval"]["keep"]:  # as before there was such a key
            tree["eval"].pop("keep")
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def shipped_recipes() -> list[str]:
    """Names of the recipes in the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(source: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply ``key=value`` overrides.

    Args:
        source: a shipped name, a YAML file, or a run folder.
        overrides: like ``training.steps=50``; values are YAML.

    Raises:
        BontuneError: no such recipe, broken YAML, or an override that is not ``key=value``; and see
            :meth:`Recipe.from_dict`.
    """
    return Recipe.from_dict(apply_overrides(read_recipe(source), overrides))


def read_recipe(source: str) -> dict[str, Any]:
    """The recipe's own tree, as written; of a run folder with ``run`` as it is called now."""
    path, folder = Path(source), None
    if source in shipped_recipes():
        path = RECIPES / f"{source}.yaml"
    elif path.is_dir() and (path / "recipe.yaml").is_file():
        path = path / "recipe.yaml"
        folder = source
    elif not path.is_file():
        near = difflib.get_close_matches(source, shipped_recipes(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BontuneError(f"No recipe {source!r}: neither a file nor one of {', '.join(shipped_recipes())}.{hint}")
    tree = read_yaml(path)
    return tree if folder is None else tree | {"run": folder}


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; none if it is empty.

    Raises:
        BontuneError: it is something else.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BontuneError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if tree is not None and not isinstance(tree, dict):
        raise BontuneError(f"{path} must hold keys and values, got {type(tree).__name__}.")
    return tree or {}


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of the tree with ``a.b=value`` set."""
    tree = copy.deepcopy(tree)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise BontuneError(f"{override!r} is not an override: write key=value, e.g. training.steps=50.")
        try:
            value = _plain(yaml.safe_load(text), text)
        except yaml.YAMLError:
            value = text
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            if not isinstance(node.setdefault(parent, {}), dict):
                node[parent] = {}
            node = node[parent]
        node[leaf] = value
    return tree


def _plain(value: Any, text: str) -> Any:
    """YAML reads 3e-4 as text, 2024-01-31 as a date and "Q: 1" as a mapping; people mean the number and the texts."""
    is_block = isinstance(value, (dict, list)) and text.lstrip()[0] not in "{["
    if isinstance(value, date) or is_block:
        return text
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return value
