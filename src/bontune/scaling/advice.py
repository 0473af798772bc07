"""What a sweep recommends, in words that claim no more than the data hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bontune.base.text import temperature_text
from bontune.metrics import Interval
from bontune.scaling.law import LawVerdict
from bontune.scaling.resampling import Choice
from bontune.scaling.study import Grid, Study


def advise(study: Study, n: int) -> str:
    """Which temperature to use with N samples.

    Args:
        study: of a sweep.
        n: one of its N.
    """
    grid, t = study.main, study.temperatures
    choice = grid.over_t_N[study.ns.index(n)]
    samples = "1 sample" if n == 1 else f"{n} samples"
    subject = "model" if study.bests is None else "model and verifier"
    possible = choice.possible(t)
    measured = (
        f"{metric_name(grid, n)} {100 * choice.value.value:.1f}, {_points(choice.gain)} more than "
        f"T = {temperature_text(t[choice.reference])}"
    )
    if len(possible) == 1:
        text = f"For this {subject}, with {samples}, use T = {temperature_text(t[choice.best])} ({measured})."
    elif len(possible) == len(t):
        text = (
            f"For this {subject}, with {samples}, no temperature measured is clearly better or worse than another on "
            f"{study.num_problems} problems; the highest is T = {temperature_text(t[choice.best])} ({measured})."
        )
    else:
        text = (
            f"For this {subject}, with {samples}, {listed(possible, t)} does as well as {study.num_problems} problems "
            f"can tell; the highest is T = {temperature_text(t[choice.best])} ({measured})."
        )
    if choice.best in (0, len(t) - 1) and len(possible) < len(t):
        side = "lowest" if choice.best == 0 else "highest"
        text += f" It is the {side} temperature measured: a better one may lie beyond."
    return text


def advise_all(study: Study) -> list[str]:
    """The recommendation for the N that the pools measure well, how T* moves with N, and what to beware of."""
    well_measured = [n for n in study.ns if 2 * n <= study.num_samples] or [study.ns[0]]
    lines = [advise(study, well_measured[-1])]
    if len(well_measured) > 1:
        lines.append(_movement(study, well_measured[0], well_measured[-1]))
    if study.bests is not None:
        lines.append(_fall(study))
    lines += _laws(study)
    return lines


def listed(possible: Sequence[float], measured: Sequence[float]) -> str:
    """Temperatures in words: a range where they are neighbours among the measured ones.

    >>> listed([0.8, 1.0, 1.2], [0.6, 0.8, 1.0, 1.2]), listed([0.6, 1.0], [0.6, 0.8, 1.0])
    ('any T between 0.8 and 1.2', 'T = 0.6 or 1.0')
    """
    places = [list(measured).index(t) for t in possible]
    if len(possible) == 1:
        return f"T = {temperature_text(possible[0])}"
    if len(possible) > 2 and places[-1] - places[0] == len(places) - 1:
        return f"any T between {temperature_text(possible[0])} and {temperature_text(possible[-1])}"
    return f"T = {', '.join(map(temperature_text, possible[:-1]))} or {temperature_text(possible[-1])}"


def metric_name(grid: Grid, n: int | str) -> str:
    """Name a metric: ``pass@32`` or ``best-of-32``."""
    return f"pass@{n}" if grid.metric == "pass" else f"best-of-{n}"


def _points(gain: Interval) -> str:
    return f"{100 * gain.value:.1f} [{100 * gain.low:.1f}, {100 * gain.high:.1f}] points"


def _movement(study: Study, few: int, many: int) -> str:
    t = study.temperatures
    at_few, at_many = (study.main.over_t_N[study.ns.index(n)] for n in (few, many))
    low, high = at_few.possible(t), at_many.possible(t)
    shown = f"from {listed(low, t)} at N = {few} to {listed(high, t)} at N = {many}"
    if max(low) < min(high):
        return f"The best temperature rises with N: {shown}."
    if max(high) < min(low):
        return f"The best temperature falls with N: {shown}."
    if at_few.best == at_many.best:
        same = temperature_text(t[at_few.best])
        return f"The best temperature measured is the same at N = {few} and {many}: T = {same}."
    return f"The best temperature measured moves {_moves(at_few, at_many, t)} ({shown}), but not clearly."


def _moves(at_few: Choice, at_many: Choice, t: Sequence[float]) -> str:
    return f"from T = {temperature_text(t[at_few.best])} to {temperature_text(t[at_many.best])}"


def _fall(study: Study) -> str:
    """Find where best-of-N under an imperfect verifier falls for good."""
    assert study.bests is not None
    falls = [
        (t, choice)
        for t, choice in zip(study.temperatures, study.bests.over_n_T, strict=True)
        if not choice.is_possible_C[-1]
    ]
    if not falls:
        return f"Best-of-N does not clearly fall with N, up to N = {study.ns[-1]}, at any temperature measured."
    worst_t, worst = max(falls, key=lambda fall: fall[1].gain.value)
    where = (
        "every temperature measured"
        if len(falls) == len(study.temperatures)
        else (f"T = {', '.join(temperature_text(t) for t, _ in falls)}")
    )
    most = "" if len(falls) == 1 else f"most at T = {temperature_text(worst_t)}, "
    t, n = np.unravel_index(int(study.bests.means_TN.argmax()), study.bests.means_TN.shape)
    return (
        f"More samples hurt under this verifier at {where}: {most}where best-of-N peaks at N = {study.ns[worst.best]} "
        f"and loses {_points(worst.gain)} by N = {study.ns[-1]}. The best pair measured is N = {study.ns[n]} at "
        f"T = {temperature_text(study.temperatures[t])} (best-of-{study.ns[n]} {100 * study.bests.means_TN[t, n]:.1f})."
    )


def _laws(study: Study) -> list[str]:
    verdicts = {law.verdict for law in study.laws}
    failing = [
        (t, law) for t, law in zip(study.temperatures, study.laws, strict=True) if law.verdict is LawVerdict.FAILS
    ]
    lines = []
    if failing:
        worst_t, worst = max(failing, key=lambda pair: pair[1].deviation)
        where = ", ".join(temperature_text(t) for t, _ in failing)
        lines.append(
            f"pass@N = exp(a N^b) does not describe T = {where}: at T = {temperature_text(worst_t)} it is off by "
            f"{100 * worst.deviation:.1f} points at N = {worst.deviation_at}. Go by the measured grid there."
        )
    elif verdicts == {LawVerdict.HOLDS}:
        worst_law = max(study.laws, key=lambda law: law.deviation)
        lines.append(
            f"pass@N = exp(a N^b) holds at every temperature: nowhere off by more than "
            f"{100 * worst_law.deviation:.1f} points."
        )
    if study.surface is not None:
        lines.append(
            f"Between the temperatures measured, the law with a(T) and b(T) of degree {study.surface.degree} predicts "
            f"one left out to {100 * study.surface.error:.1f} points on average, {100 * study.surface.worst_error:.1f} "
            "at worst."
        )
    return lines
