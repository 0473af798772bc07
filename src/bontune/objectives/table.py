"""The one table of objectives: what each is called, takes, trains on, and how it weighs a batch.

Recipes, their checks, help texts, documentation and the trainer read this table and nothing else. To add an objective,
write its function, a class of its options, and one row here. Rows name their functions, which are imported when they
are used: names and options are looked up without torch, which takes seconds to load.

Shapes: ``_P`` prompts, ``_S`` sequences of one prompt: the policy's own samples first, then the anchor's, then the
task's demonstration; ``_X`` the first kind of sequence that there is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bontune.objectives.budgets import Budgets
from bontune.objectives.options import (
    BonbonOptions,
    BonDistillationOptions,
    BondOptions,
    BonRlbOptions,
    BonRlbpOptions,
    BonRlOptions,
    BonSftOptions,
    NoOptions,
    PkpoOptions,
    RankOptions,
    RftOptions,
    VbonOptions,
)

if TYPE_CHECKING:
    from torch import Tensor

    from bontune.objectives.batch import Batch, Source, Sources


PFailSource = Literal["plugin", "running", "value_head"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """One row of the table."""

    path: str
    """Module of this room and name of the pure function that computes the objective, which names the objective, too."""
    summary: str
    """One sentence that says what the objective trains for."""
    source: str
    """The paper that the objective is from, or the file that derives it."""
    weigher: str | None = None
    """Module and name of the function from (batch, N, options) to weights (P, S); None: the function itself, given the
    rewards alone."""
    options: type = NoOptions
    """The class of the options; its fields are keys of the recipe's section ``objective``."""
    sources: tuple[Source, ...] = ("own",)
    """Writers of the sequences that the objective trains on or compares with."""
    logprobs: Literal["none", "policy", "ratio"] = "none"
    """Log-probabilities that it needs of the sequences of the first source: none, log π, or log π and the anchor's."""
    is_policy_gradient: bool = True
    """Whether weights are advantages in mean form; else they are weights of a loss, in sum form."""
    takes_any_reward: bool = True
    """Whether rewards other than 0 and 1, such as a verifier's scores, may be its rewards."""
    needs_answers: bool = False
    """Whether it asks which samples give the same answer, as the task's grader reads it."""
    takes_budgets: bool = False
    """Whether N may be several budgets with a weight for each."""

    @property
    def name(self) -> str:
        """The function's name, as in ``objective.name`` of a recipe."""
        return self.path.rpartition(".")[2]

    @property
    def function(self) -> Callable[..., Any]:
        """The pure function that computes the objective, with its documentation."""
        return imported(self.path)

    def sources_per_prompt(self, options: Any, num_samples: int) -> Sources:
        """The sequences that a prompt has, where ``num_samples`` are drawn."""
        from bontune.objectives.batch import Sources

        num_reference = getattr(options, "reference_samples", None)
        return Sources(
            own=num_samples if "own" in self.sources else 0,
            reference=(num_samples if num_reference is None else num_reference) if "reference" in self.sources else 0,
            demonstrated=1 if "demonstrated" in self.sources else 0,
        )

    @property
    def needs_p_fail(self) -> bool:
        """Whether the objective needs an estimate of P_fail, the chance that one sample fails."""
        return "p_fail" in {field.name for field in dataclasses.fields(self.options)}

    @property
    def takes_winners(self) -> bool:
        """Whether the objective can train on the winners of Best-of-N alone."""
        return "draw" in {field.name for field in dataclasses.fields(self.options)}

    def p_fail_source(self, options: Any) -> PFailSource:
        """Return where the estimate of P_fail comes from; ``plugin``, this batch, if the objective needs none."""
        return options.p_fail if self.needs_p_fail else "plugin"

    def trains_on_winners(self, options: Any) -> bool:
        """Return whether these options train on the winners of Best-of-N alone."""
        return self.takes_winners and options.draw == "winner"

    def advantages(self, batch: Batch, n: Budgets, options: Any) -> Tensor:
        """Advantages (P, S) in mean form: the update is ``(1/S) Σ A ∇log π``.

        Raises:
            ValueError: rewards, N or options that the objective cannot take.
        """
        weights_PS = self._weights(batch, n, options)
        return weights_PS if self.is_policy_gradient else weights_PS * batch.sources.total

    def check(self, n: Budgets, options: Any, num_samples: int) -> None:
        """Weigh one prompt of zeros: whatever the objective would refuse during a run, it refuses now.

        Raises:
            ValueError: there is something, such as N > M.
        """
        import torch

        from bontune.objectives.batch import Batch

        sources = self.sources_per_prompt(options, num_samples)
        zeros = torch.zeros(1, sources.total, dtype=torch.float64)
        some = zeros[:, : sources.measured] - 1
        batch = Batch(
            sources=sources,
            rewards_PS=zeros,
            scores_PS=zeros,
            same_as_PS=zeros.long(),
            answers_PS=zeros.long(),
            logprobs_PX=some if self.logprobs != "none" else None,
            ref_logprobs_PX=some if self.logprobs == "ratio" else None,
        )
        self._weights(batch, n, options)

    def _weights(self, batch: Batch, n: Budgets, options: Any) -> Tensor:
        if isinstance(n, Mapping) and not self.takes_budgets:
            able = [row.name for row in ROWS if row.takes_budgets]
            raise ValueError(f"it takes one n, not several with weights; {', '.join(able)} take several.")
        weights_PS: Tensor = (
            self.function(batch.rewards_PS) if self.weigher is None else imported(self.weigher)(batch, n, options)
        )
        return weights_PS


def imported(path: str) -> Callable[..., Any]:
    """The function that a path such as ``best_of_n.bon_rl`` names among the objectives' modules."""
    module, _, name = path.rpartition(".")
    function: Callable[..., Any] = getattr(__import__(f"bontune.objectives.{module}", fromlist=[name]), name)
    return function


CHOW = "Chow et al., arXiv 2412.15287"
ROWS = (
    Objective(
        path="policy_gradient.reinforce", summary="Trains for one sample, without a baseline.", source="Williams 1992"
    ),
    Objective(
        path="policy_gradient.rloo",
        summary="Trains for one sample, with the mean of the other samples as baseline.",
        source="Ahmadian et al., arXiv 2402.14740",
    ),
    Objective(
        path="policy_gradient.grpo",
        summary="Trains for one sample, with rewards centred and scaled within the group.",
        source="Shao et al., arXiv 2402.03300",
    ),
    Objective(
        path="policy_gradient.dr_grpo",
        summary="Trains for one sample: GRPO without its division by the standard deviation.",
        source="Liu et al., arXiv 2503.20783",
    ),
    Objective(
        path="policy_gradient.maxrl",
        summary="Maximises the log-probability of a right answer.",
        source="Tajwar et al., arXiv 2602.02710",
    ),
    Objective(
        path="policy_gradient.inference_loo",
        summary="Trains for any function of the pool, by default its best reward.",
        source="Tang et al., arXiv 2503.19595",
    ),
    Objective(
        path="max_at_k.pkpo",
        summary="Trains for pass@N, without bias, from all samples.",
        source="Walder and Karkhanis, arXiv 2505.15201",
        options=PkpoOptions,
        weigher="batch.weigh_pkpo",
        takes_budgets=True,
    ),
    Objective(
        path="max_at_k.passk_training",
        summary="Trains for pass@N, normalised within the groups of N.",
        source="Chen et al., arXiv 2508.10751",
        takes_any_reward=False,
        weigher="batch.weigh_passk_training",
        takes_budgets=True,
    ),
    Objective(
        path="best_of_n.bon_rl",
        summary="Trains for Best-of-N under any verifier and any reward, exactly, from all samples.",
        source="docs/estimators.md",
        options=BonRlOptions,
        weigher="batch.weigh_bon_rl",
        takes_budgets=True,
    ),
    Objective(
        path="ranks.rank",
        summary="Trains for any use of N samples that pays by rank: the mean of the best m, the tail, own weights.",
        source="docs/estimators.md",
        options=RankOptions,
        weigher="batch.weigh_rank",
        takes_budgets=True,
    ),
    Objective(
        path="votes.majority_vote",
        summary="Trains for a majority vote among N samples (self-consistency).",
        source="docs/estimators.md",
        weigher="batch.weigh_majority_vote",
        needs_answers=True,
        takes_budgets=True,
    ),
    Objective(
        path="closed_forms.bon_rlb",
        summary="Trains for Best-of-N with rewards of 0 and 1 by the paper's closed form.",
        source=f"{CHOW}, Lemma 3",
        options=BonRlbOptions,
        weigher="batch.weigh_bon_rlb",
        takes_budgets=True,
        takes_any_reward=False,
    ),
    Objective(
        path="closed_forms.bon_rlbp",
        summary="Trains for Best-of-N by the closed form's part on correct samples.",
        source=f"{CHOW}, Corollary 4",
        options=BonRlbpOptions,
        weigher="batch.weigh_bon_rlbp",
        takes_budgets=True,
        takes_any_reward=False,
    ),
    Objective(
        path="best_of_n.bon_rl_variational",
        summary="Trains for Best-of-N by the paper's variational form.",
        source=f"{CHOW}, eq. 5–6",
        options=BonRlOptions,
        weigher="batch.weigh_bon_rl_variational",
        takes_budgets=True,
    ),
    Objective(
        path="imitation.sft",
        summary="Imitates the task's demonstrations.",
        source="maximum likelihood",
        sources=("demonstrated",),
        is_policy_gradient=False,
        weigher="batch.weigh_sft",
    ),
    Objective(
        path="imitation.dco",
        summary="Imitates demonstrations for pass@N: it weighs down what the model already does.",
        source="Chen et al., arXiv 2502.07154",
        sources=("demonstrated",),
        logprobs="policy",
        is_policy_gradient=False,
        weigher="batch.weigh_dco",
    ),
    Objective(
        path="imitation.star",
        summary="Imitates the policy's own correct samples.",
        source="Zelikman et al., arXiv 2203.14465",
        is_policy_gradient=False,
    ),
    Objective(
        path="imitation.rft",
        summary="Imitates own correct samples, every prompt with the same weight.",
        source="Yuan et al., arXiv 2308.01825",
        options=RftOptions,
        is_policy_gradient=False,
        weigher="batch.weigh_rft",
    ),
    Objective(
        path="imitation.bon_distillation",
        summary="Imitates the policy's own Best-of-N winners.",
        source="docs/estimators.md",
        options=BonDistillationOptions,
        is_policy_gradient=False,
        weigher="batch.weigh_bon_distillation",
    ),
    Objective(
        path="likelihood.bon_sft",
        summary="Maximises the likelihood of demonstrations under Best-of-N.",
        source=f"{CHOW}, §4",
        options=BonSftOptions,
        sources=("own", "demonstrated"),
        is_policy_gradient=False,
        weigher="batch.weigh_bon_sft",
    ),
    Objective(
        path="distillation.bonbon",
        summary="Imitates the best of N samples of the anchor and keeps away from the worst.",
        source="Gui et al., arXiv 2406.00832",
        options=BonbonOptions,
        sources=("reference",),
        logprobs="ratio",
        is_policy_gradient=False,
        weigher="batch.weigh_bonbon",
    ),
    Objective(
        path="distillation.vbon",
        summary="Moves the policy to the anchor's Best-of-N law by its backward KL divergence.",
        source="Amini et al., arXiv 2407.06057",
        options=VbonOptions,
        sources=("own", "reference"),
        logprobs="ratio",
        is_policy_gradient=False,
        weigher="batch.weigh_vbon",
    ),
    Objective(
        path="distillation.bond",
        summary="Moves the policy to the anchor's Best-of-N law by both KL divergences.",
        source="Sessa et al., arXiv 2407.14622",
        options=BondOptions,
        sources=("own", "reference"),
        logprobs="ratio",
        is_policy_gradient=False,
        weigher="batch.weigh_bond",
    ),
)
TABLE = {row.name: row for row in ROWS}


def owners_of(option: str) -> list[str]:
    """The names of the objectives that have an option.

    >>> owners_of("sign")
    ['bon_rlb']
    """
    return [row.name for row in ROWS if option in {f.name for f in dataclasses.fields(row.options)}]


def is_default_somewhere(option: str, value: object) -> bool:
    """Whether a value of an option is the default of an objective that has it, so that another one may ignore it."""
    return any(f.name == option and f.default == value for row in ROWS for f in dataclasses.fields(row.options))
