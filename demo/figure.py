"""The demo's figure: fitted survival over Kaplan–Meier steps, and the z values of the simulated fits."""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxmle as jm

GROUPS = ((1, "men", "#1a1a1a", "-", (40, 0.3)), (2, "women", "#6a6a6a", "--", (530, 0.54)))
CUT = 1.959963984540054  # the 97.5 % point of the normal distribution
STYLE = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
}


def draw(
    fit: jm.Fit, lung: Mapping[str, np.ndarray], z: np.ndarray, caption: str, path: Path
) -> None:
    """Both panels, written to `path` as PNG.

    Args:
        fit: the Weibull regression of `lung`.
        z: (estimate − true)/SE of one coefficient in the simulated fits, (b,).
        caption: which coefficient it is.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.1), dpi=180, layout="constrained")
        left, right = figure.subplots(1, 2)
        survival_panel(left, fit, lung)
        z_panel(right, z, caption)
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path)


def survival_panel(ax: Axes, fit: jm.Fit, lung: Mapping[str, np.ndarray]) -> None:
    days = np.linspace(1.0, 1000.0, 120)
    for sex, label, colour, dash, place in GROUPS:
        group = {name: column[lung["sex"] == sex] for name, column in lung.items()}
        curve, low, high = mean_survival(fit, group, days)
        ax.fill_between(days, low, high, color=colour, alpha=0.16, linewidth=0)
        ax.step(
            *kaplan_meier(group["time"], group["death"]), where="post", color=colour, linewidth=0.8
        )
        ax.plot(days, curve, color=colour, linestyle=dash, linewidth=2.0)
        ax.annotate(f"{label}, n = {group['time'].size}", place, color=colour)
    ax.set(xlim=(0, 1000), ylim=(0, 1), xlabel="days", ylabel="share alive")
    ax.set_title(
        "Weibull regression of 227 lung cancer patients:\nfitted survival, 95 % band, Kaplan–Meier steps"
    )


def mean_survival(
    fit: jm.Fit, group: Mapping[str, np.ndarray], days: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Survival averaged over the patients of a group, with 95 % ends by the delta method on the scale of log(−log S), each (t,)."""

    def log_cumulative_hazard(params: Mapping[str, jax.Array]) -> jax.Array:
        mean = params["const"] + sum(params[name] * group[name] for name in ("age", "sex", "ecog"))
        survival = jnp.exp(-jnp.exp((jnp.log(days)[:, None] - mean[None, :]) / params["sigma"]))
        return jnp.log(-jnp.log(survival.mean(axis=1)))

    at = jm.delta(log_cumulative_hazard, fit)
    curve, low, high = (
        np.exp(-np.exp(at.estimate + shift * at.stderr)) for shift in (0.0, CUT, -CUT)
    )
    return curve, low, high


def kaplan_meier(time: np.ndarray, death: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The product-limit estimate: times (m,) and the share alive from each on (m,)."""
    moments = np.unique(time[death == 1])
    at_risk = (time >= moments[:, None]).sum(axis=1)
    died = ((time == moments[:, None]) & (death == 1)).sum(axis=1)
    alive = np.cumprod(1 - died / at_risk)
    return np.concatenate([[0.0], moments, [time.max()]]), np.concatenate(
        [[1.0], alive, alive[-1:]]
    )


def z_panel(ax: Axes, z: np.ndarray, caption: str) -> None:
    bins = np.arange(-4.1 * CUT, 4.11 * CUT, 0.1 * CUT)  # an edge falls on each cut
    for inside, colour in ((True, "#c4c4c4"), (False, "#4d4d4d")):
        chosen = z[(np.abs(z) <= CUT) == inside]
        ax.hist(
            chosen,
            bins=bins,
            weights=np.full(chosen.size, 1 / (z.size * 0.1 * CUT)),
            color=colour,
            edgecolor="white",
            linewidth=0.4,
        )
    grid = np.linspace(-4, 4, 201)
    ax.plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), color="black", linewidth=1.5)
    share = np.mean(np.abs(z) <= CUT)
    error = np.sqrt(share * (1 - share) / z.size)
    ax.annotate(
        f"95 % interval\nholds the truth:\n{100 * share:.2f} % ± {100 * error:.2f}", (1.65, 0.27)
    )
    for side, (x, y) in ((-1, (-3.35, 0.055)), (1, (2.35, 0.055))):
        ax.annotate(f"{100 * np.mean(side * z > CUT):.2f} %", (x, y))
    ax.annotate(
        "N(0, 1)",
        xy=(-0.9, 0.266),
        xytext=(-2.6, 0.3),
        arrowprops={"arrowstyle": "-", "linewidth": 0.6},
    )
    ax.set(xlim=(-4, 4), ylim=(0, 0.45), xlabel="z = (estimate − true) / SE", ylabel="density")
    ax.set_title(f"{z.size:,} logistic regressions in one batch:\n{caption}")
