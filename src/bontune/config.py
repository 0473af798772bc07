"""The recipe: one validated tree that says all of a run. Every key has a default; unknown keys name the nearest one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic import NonNegativeFloat as NotNegative
from pydantic import NonNegativeInt as NotNegativeInt

from bontune.base.errors import BontuneError
from bontune.base.overrides import apply_overrides, flat, read_yaml
from bontune.base.suggest import did_you_mean, nearest
from bontune.base.validation import explain

if TYPE_CHECKING:
    from bontune.objectives.budgets import Budgets
    from bontune.objectives.table import Objective

RECIPES = Path(__file__).parent / "recipes"


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
    """Split to train on."""

    def options(self) -> dict[str, Any]:
        """The keys that belong to the task itself."""
        return dict(self.model_extra or {})


class VerifierSection(Section):
    """What Best-of-N selects by."""

    name: str = "oracle"
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
    """What to optimise. Further keys are the options of that objective; ``bontune objectives`` lists them all."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    name: str = "bon_rl"
    """One of ``bontune.objectives.names()``."""
    n: PositiveInt | dict[PositiveInt, NotNegative | tuple[NotNegative, NotNegative]] = 16
    """N, the Best-of-N budget that the model will be used with; or a weight for each of several, such as
    ``{1: 0.5, 16: 0.5}``, which sum to one. ``{1: [0.8, 0.5], 16: [0.2, 0.5]}`` moves them from the first to the last
    step."""
    reward: Literal["environment", "verifier"] = "environment"
    """What a sample is worth: the task's reward, or the verifier's score (a baseline that learns to please it)."""

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, given: Any) -> Any:
        """Fill in the defaults of the objective's options, and leave out other objectives' defaults.

        A recipe whose name alone was changed keeps the other objective's keys; at their defaults they mean nothing.
        """
        from bontune.objectives.table import TABLE, is_default_somewhere

        row = TABLE.get(given.get("name", "bon_rl")) if isinstance(given, dict) else None
        if row is None:
            return given
        own = {f.name: f.default for f in dataclasses.fields(row.options)}
        options = {key: given[key] if given.get(key) is not None else default for key, default in own.items()}
        others = {
            key: value
            for key, value in given.items()
            if key in cls.model_fields
            or (key not in own and value is not None and not is_default_somewhere(key, value))
        }
        return others | options

    @field_validator("n", mode="wrap")
    @classmethod
    def _check_n(cls, given: Any, read: ValidatorFunctionWrapHandler) -> Any:
        try:
            n = read(given)
        except ValidationError:
            raise ValueError(
                "must be a whole number from 1 up, or a weight for each of several as in {1: 0.5, 16: 0.5}, "
                f"got {given}"
            ) from None
        from bontune.objectives.budgets import check_schedule

        check_schedule(n)
        return n

    def n_at(self, progress: float = 1.0) -> Budgets:
        """N, or the weights of several budgets at a share ``progress`` of the training; by default at its end."""
        from bontune.objectives.budgets import budgets_at

        return budgets_at(self.n, progress)

    def row(self) -> Objective:
        """The objective's row in the table.

        Raises:
            BontuneError: no objective has that name.
        """
        from bontune.objectives.table import TABLE

        if self.name not in TABLE:
            hint = did_you_mean(self.name, TABLE, 0.5)
            raise BontuneError(f"no objective {self.name!r}{hint}; there are {', '.join(TABLE)}")
        return TABLE[self.name]

    def options(self) -> Any:
        """The objective's options, an instance of its options class.

        Raises:
            BontuneError: there is no such objective, it has no such option, or the option has no such value.
        """
        from bontune.objectives.table import owners_of

        row, given = self.row(), dict(self.model_extra or {})
        known = [f.name for f in dataclasses.fields(row.options)]
        for key in given.keys() - set(known):
            owners, near = owners_of(key), nearest(key, [*known, *ObjectiveSection.model_fields], 0.5)
            if owners:
                raise BontuneError(f"objective.{key} is for {', '.join(owners)}; {self.name} has no use for it.")
            hint = f" Did you mean 'objective.{near}'?" if near else ""
            raise BontuneError(
                f"The recipe has no key 'objective.{key}'.{hint} `bontune objectives` lists all options."
            )
        if self.reward == "verifier" and not (row.is_policy_gradient and row.takes_any_reward):
            raise BontuneError(
                f"objective.reward=verifier gives scores as rewards, and {self.name} "
                + ("takes rewards of 0 and 1 only." if row.is_policy_gradient else "takes rewards and scores apart.")
            )
        try:
            return TypeAdapter(row.options).validate_python(given)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "value_error":
                raise BontuneError(f"objective.{first['ctx']['error']}") from None
            where, rule = (
                ".".join(["objective", *map(str, first["loc"])]),
                first["msg"].replace("Input should", "must", 1),
            )
            raise BontuneError(f"objective.{where}: {rule.rstrip('.')}, got {first['input']!r}.") from None


class SamplingSection(Section):
    """How completions are drawn in training."""

    samples: PositiveInt = 32
    """M, samples per prompt."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature T; the policy is trained at this temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus of the sampling; below 1 the gradient estimate is biased, because truncated tokens are never drawn."""
    max_new_tokens: PositiveInt = 24
    """Longest completion, in tokens."""
    token_budget: PositiveInt = 65_536
    """Tokens held in the engine's cache at once; bounds memory, not results."""


class LoraSection(Section):
    """Low-rank adapters (peft)."""

    r: PositiveInt = 16
    """Rank of the adapters."""
    alpha: PositiveFloat = 32.0
    """Scale of the adapters: their update is multiplied by alpha / r."""
    targets: str | list[str] = "all-linear"
    """Names of the modules to adapt, or ``all-linear``."""


class TrainingSection(Section):
    """The optimiser, its schedule, and what keeps a run safe."""

    steps: PositiveInt = 200
    """Number of updates."""
    prompts_per_step: PositiveInt = 32
    """P, prompts per update, over all processes together."""
    lr: PositiveFloat = 3e-4
    """Peak learning rate of AdamW."""
    warmup: NotNegativeInt = 10
    """Number of steps in which the learning rate rises to its peak."""
    decay: Literal["linear", "cosine", "constant"] = "linear"
    """Shape of the learning rate after the warm-up, down to ``lr_end``."""
    lr_end: NotNegative = 0.0
    """Learning rate that the decay ends at, one step after the last."""
    weight_decay: NotNegative = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients with a larger norm are scaled down to this one."""
    value_lr: PositiveFloat | Literal["auto"] = "auto"
    """Learning rate of the value head (``objective.p_fail: value_head``); ``auto``: one that learns within the run's
    steps, 1.1e-5 for 2,500 steps of Gemma 2B."""
    checkpoint_every: NotNegativeInt = 50
    """Steps between checkpoints; 0: only the last."""
    keep_checkpoints: int = Field(default=2, ge=2)
    """Checkpoints kept; at least 2, because the newest may be damaged."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 on a GPU that has it, float32 elsewhere."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Whether to save memory by computing activations twice; ``auto``: on a GPU for models from 1e9 parameters."""
    token_budget: PositiveInt = 32_768
    """Tokens of a micro-batch; bounds memory, not results."""
    lora: LoraSection | None = None
    """Train low-rank adapters instead of all weights; null: all weights."""
    device: Literal["auto", "cpu"] = "auto"
    """``auto`` takes what accelerate finds: a GPU if there is one."""
    max_grader_errors: float = Field(default=0.05, ge=0, le=1)
    """Share of a step's samples that may fail to be graded before the run stops."""
    track: list[Literal["tensorboard", "wandb", "trackio"]] = []
    """Trackers that get the metrics beside ``metrics.jsonl``, with samples at each evaluation and the final report."""


class KLSection(Section):
    """The pull of the policy to its anchor, a moving average of itself: KL of whole completions, in nats."""

    start: NotNegative = 1.0
    """Coefficient β of the KL at the beginning."""
    end: NotNegative = 0.075
    """Coefficient β of the KL at the end."""
    steps: PositiveInt = 200
    """Number of steps in which β moves from ``start`` to ``end``."""
    delay: NotNegativeInt = 10
    """Number of steps at ``start`` before β begins to move."""
    shape: Literal["linear", "cosine", "exponential"] = "linear"
    """Shape of the schedule of β between ``start`` and ``end``."""
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
    """Split to evaluate on; null: ``validation`` where the task has it, else ``test``."""
    problems: PositiveInt | None = 200
    """Number of problems to evaluate on, the first of the split; null: all."""
    k: list[PositiveInt] = Field(default=[1, 4, 16, 32], min_length=1)
    """Budgets k for which pass@k and best@k are reported."""
    samples: PositiveInt = 64
    """Samples per problem; at least the largest k, better twice as many."""
    temperature: NotNegative = 1.0
    """Sampling temperature T of the evaluation."""
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
    """Seed for everything random in the run."""
    run: str = "runs/run"
    """Folder that the run writes."""

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
        recipe.objective.options()
        return recipe

    def to_yaml(self) -> str:
        """The whole tree as YAML."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)

    def deciding(self) -> dict[str, Any]:
        """The settings that change results, by their dotted names; a run is not resumed under others.

        ``run``, how often to save, tracking, and budgets that bound memory do not change results; more ``steps`` do
        (the schedules stretch).
        """
        return flat(self._deciding_tree())

    def fingerprint(self) -> str:
        """Hash of :meth:`deciding`."""
        return hashlib.sha256(json.dumps(self._deciding_tree(), sort_keys=True).encode()).hexdigest()

    def _deciding_tree(self) -> dict[str, Any]:
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
        if tree["objective"].get("p_fail") != "value_head":
            tree["training"]["value_lr"] = 1e-5  # decides nothing; what it was before ``auto``
        if self.objective.name in ("bon_rlb", "bon_rlbp") and tree["objective"]["baseline"] == "none":  # the same
            tree["objective"].pop("baseline")
        return tree


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


def is_run(path: Path) -> bool:
    """Whether a path is the folder of a training run."""
    return path.is_dir() and any((path / name).is_file() for name in ("recipe.yaml", "metrics.jsonl"))


def read_recipe(source: str) -> dict[str, Any]:
    """The recipe's own tree, as written; of a run folder with ``run`` as it is called now."""
    path, folder = Path(source), None
    if source in shipped_recipes():
        path = RECIPES / f"{source}.yaml"
    elif path.is_dir() and (path / "recipe.yaml").is_file():
        path = path / "recipe.yaml"
        folder = source
    elif not path.is_file():
        near = nearest(source, shipped_recipes())
        hint = f" Did you mean {near!r}?" if near else ""
        raise BontuneError(f"No recipe {source!r}: neither a file nor one of {', '.join(shipped_recipes())}.{hint}")
    tree = read_yaml(path)
    return tree if folder is None else tree | {"run": folder}
