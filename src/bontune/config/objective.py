"""The part of a recipe that says what to optimise; its keys are the options of the objective that it names."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    ConfigDict,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic import NonNegativeFloat as NotNegative

from bontune.base.errors import BontuneError, did_you_mean, nearest
from bontune.base.settings import ours, rule_of, shown
from bontune.config.sections import Section

if TYPE_CHECKING:
    from bontune.objectives.budgets import Budgets
    from bontune.objectives.table import Objective


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
            theirs = "" if (found := ours(key)) is None else found.hint()
            if owners:
                told = f"objective.{key} is for {', '.join(owners)}; {self.name} has no use for it. {theirs}"
                raise BontuneError(told.strip())
            hint = f"Did you mean 'objective.{near}'?" if near else theirs
            see = f"`bontune objectives show {self.name}` shows its keys."
            raise BontuneError(" ".join(filter(None, (f"The recipe has no key 'objective.{key}'.", hint, see))))
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
            where = ".".join(["objective", *map(str, first["loc"][:1])])
            raise BontuneError(f"{where}: {rule_of(first)}, got {shown(first['input'])}.") from None
