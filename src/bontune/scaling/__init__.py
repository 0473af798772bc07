"""Co-scaling of N and temperature: how pass@N and best-of-N depend on both, and which pair to use.

From one pool per temperature, of the same problems: the measured grid, the law pass@N ≈ exp(a N^b) at each temperature
and smoothed across them, the best temperature for each N, the best pair within a budget of tokens, and the same by
difficulty. Uncertainty is the choice of problems: every interval comes from the same resamples of them, so that what
is compared is compared on the same problems. Beside it: what stopping before N saves. Pure functions of
arrays; no files, no models.

Shapes: ``_T`` temperatures, ``_N`` budgets N, ``_P`` problems, ``_M`` samples of a problem, ``_R`` resamples of the
problems, ``_C`` whatever is compared.
"""

from bontune.scaling.adaptive import PoolArrays, StoppingPoint, StoppingStudy, study_stopping
from bontune.scaling.advice import advise, advise_all, listed, metric_name
from bontune.scaling.law import Law, LawVerdict, fit_law, fit_laws
from bontune.scaling.resampling import Choice, choose, interval_of, resampled_means
from bontune.scaling.study import BudgetChoice, Grid, Group, Study, SweepPool, study
from bontune.scaling.surface import Optimum, Surface, fit_surface

__all__ = [
    "BudgetChoice",
    "Choice",
    "Grid",
    "Group",
    "Law",
    "LawVerdict",
    "Optimum",
    "PoolArrays",
    "StoppingPoint",
    "StoppingStudy",
    "Study",
    "Surface",
    "SweepPool",
    "advise",
    "advise_all",
    "choose",
    "fit_law",
    "fit_laws",
    "fit_surface",
    "interval_of",
    "listed",
    "metric_name",
    "resampled_means",
    "study",
    "study_stopping",
]
