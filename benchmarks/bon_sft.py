"""What BoN-SFT trains for, without any noise: a small policy whose every outcome is enumerated.

python benchmarks/bon_sft.py

Problems share the weights of a linear softmax over 96 answers, four of them right by a rule that the weights can only
partly express. Every loss is exact: the true P_fail, all outcomes, no sampling. Learning is by Adam; the checkpoint is
chosen by pass@16 on 300 other problems, and measured on 300 more; means over five worlds.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bontune.objectives import lambda_n

PROBLEMS, ANSWERS, RIGHT, WIDTH, N, STEPS, WORLDS = 300, 96, 4, 32, 16, 400, 5
KS = (1, 4, 16, 32)


class World(NamedTuple):
    """Problems of three splits: training, validation, test."""

    features: Tensor
    is_right: Tensor
    start: Tensor
    demonstration: Tensor


def world(seed: int) -> World:
    """Right are the four answers of the highest worth: a linear rule with noise."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rule = 3 * normal(WIDTH) / WIDTH**0.5
    features = normal(3 * PROBLEMS, ANSWERS, WIDTH)
    worth = features @ rule + 6 * normal(3 * PROBLEMS, ANSWERS)
    is_right = worth >= worth.topk(RIGHT, -1).values[:, -1:]
    start = normal(WIDTH) / WIDTH**0.5
    demonstration = torch.multinomial(is_right.double(), 1, generator=generator).squeeze(-1)
    return World(features, is_right, start, demonstration)


def loss_of(name: str, logp: Tensor, is_right: Tensor, wanted: Tensor) -> Tensor:
    """The negative objective; ``wanted`` is the distribution (P, K) of demonstrations."""
    s = (logp.exp() * is_right).sum(-1).clamp(1e-12, 1 - 1e-12)
    likelihood, solved = (wanted * logp).sum(-1), torch.log1p(-((1 - s) ** N))
    if name == "SFT":
        value = likelihood
    elif name == "DCO":
        value = (wanted * torch.log1p(-((1 - logp.exp()) ** N))).sum(-1)
    elif name == "BoN-SFT, exact law":  # log π_bon(y) = log π(y | right) + log pass@N
        value = likelihood - s.log() + solved
    elif name == "BoN-SFT, variational law":
        weight = lambda_n(N)
        value = likelihood + weight - torch.log(s * torch.tensor(weight).exp() + (1 - s) * (weight * (1 - s)).exp())
    else:  # log pass@N alone, which needs no demonstration
        value = solved
    return -value.mean()


def measured(part: slice, of: World, weights: Tensor) -> list[float]:
    """pass@k in percent."""
    s = ((of.features[part] @ weights).softmax(-1) * of.is_right[part]).sum(-1)
    return [100 * float((1 - (1 - s) ** k).mean()) for k in KS]


def trained(name: str, of: World, start: Tensor, *, anew: bool, chosen_by: int = 16) -> Tensor:
    """The best weights on validation, those at the start among them."""
    training, validation = slice(0, PROBLEMS), slice(PROBLEMS, 2 * PROBLEMS)
    all_right = of.is_right[training].double() / RIGHT
    one = torch.nn.functional.one_hot(of.demonstration[training], ANSWERS).double()
    wanted = all_right if anew else one
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=0.02)
    best, reached = start, measured(validation, of, start)[KS.index(chosen_by)]
    for _ in range(STEPS):
        optimizer.zero_grad()
        logp = (of.features[training] @ weights).log_softmax(-1)
        loss_of(name, logp, of.is_right[training], wanted).backward()
        optimizer.step()
        now = measured(validation, of, weights.detach())[KS.index(chosen_by)]
        if now > reached:
            best, reached = weights.detach().clone(), now
    return best


def main() -> None:
    """Print a table for a base model that knows nothing, and for one that has been trained by SFT."""
    torch.set_num_threads(1)
    test = slice(2 * PROBLEMS, 3 * PROBLEMS)
    worlds = [world(seed) for seed in range(WORLDS)]
    names = ("SFT", "DCO", "BoN-SFT, variational law", "BoN-SFT, exact law", "log pass@16 alone")
    tutored = [trained("SFT", of, of.start, anew=False, chosen_by=1) for of in worlds]
    for title, starts in (("from scratch", [of.start for of in worlds]), ("after SFT", tutored)):
        print(f"\n| {title} | demonstrations | {' | '.join(f'pass@{k}' for k in KS)} |\n|---|---|{'---:|' * len(KS)}")
        rows = [("base", "", starts)]
        for name in names:
            for anew in (False, True) if "alone" not in name else (False,):
                found = [trained(name, of, start, anew=anew) for of, start in zip(worlds, starts, strict=True)]
                which = "" if "alone" in name else "every right answer" if anew else "one of each problem"
                rows.append((name, which, found))
        for name, which, found in rows:
            values = torch.tensor([measured(test, of, weights) for of, weights in zip(worlds, found, strict=True)])
            print(f"| {name} | {which} | {' | '.join(f'{x:.1f}' for x in values.mean(0).tolist())} |", flush=True)


if __name__ == "__main__":
    main()
