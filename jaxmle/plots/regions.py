"""Profile likelihood of one parameter, and the joint region of two, with Wald's approximation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy

from jaxmle._types import Tree, ndarray
from jaxmle.inference.profiles.contour import Contour
from jaxmle.inference.profiles.profile import END_MEANING, Profile
from jaxmle.inference.profiles.root_finder import End
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Layout
from jaxmle.plots.canvas import (
    GREY,
    INK,
    POINTS_OF_ELLIPSE,
    axes,
    entry,
    one_fit,
    percent,
    remark,
)
from jaxmle.record.fit import Fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS_BETWEEN_COMPUTED = 20  # drawn between two computed points of a profile


@with_keyword_hints
def profile(
    profile: Profile, name: str | None = None, fit: Fit | None = None, *, ax: Axes | None = None
) -> Axes:
    """The profile deviance 2(ℓ̂ − ℓ_p) of one quantity, with the cut-off of its interval and Wald's
    parabola.

    Args:
        profile: of one fit, with the points of its curve.
        name: one of its quantities; may be left out if there is only one.
        fit: the fit, for Wald's parabola ((ψ − ψ̂)/SE)² of a parameter; None leaves it out.
        ax: where to draw; None for a new figure.

    Returns:
        The ``Axes``. Markers are the computed points; between them the signed root of the deviance,
        a straight line for a normal likelihood, is interpolated monotonically. The title names an
        end that is not FOUND.

    Raises:
        ValueError, TypeError: for a batch, an unknown name, a profile without points.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.profiles.profile import profile
    >>> from jaxmle import plots
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> plots.profile(profile(exponential, result, y), "rate", result).get_xlabel()
    'rate'
    """
    j = _which(profile, name)
    value = np.asarray(profile.curve[j])
    root = np.asarray(profile.root[j])
    computed = np.isfinite(value) & np.isfinite(root)
    if computed.sum() < 2:
        raise ValueError(
            f"the profile of {profile.names[j]} has no points to draw: profile(…, "
            "points=5) stores some if the fit has a maximum"
        )
    value = value[computed]
    root = root[computed]
    cut = float(scipy.special.ndtri(0.5 + profile.level / 2)) ** 2
    ax = axes(ax)
    ax.plot(*_smooth(value, root), color=INK, linewidth=1.8, label="profile")
    ax.plot(value, root**2, "o", color=INK, markersize=4)
    if fit is not None:
        _parabola(ax, fit, profile.names[j], value, float(np.max(root**2)))
    ax.axhline(
        cut,
        color=GREY,
        linewidth=1.0,
        linestyle=":",
        label=f"{percent(profile.level)} cut-off, {cut:.3g}",
    )
    ends = (
        ("lower", float(profile.lower[j]), profile.lower_status[j]),
        ("upper", float(profile.upper[j]), profile.upper_status[j]),
    )
    for _, end, status in ends:
        if int(status) == End.FOUND:
            _mark_end(ax, end, cut)
    remark(
        ax,
        [
            f"{side} end {END_MEANING[End(int(status))]}"
            for side, _, status in ends
            if int(status) != End.FOUND
        ],
    )
    ax.set(xlabel=profile.names[j], ylabel=r"$2(\hat{\ell} - \ell)$")
    highest = max(cut, float(np.max(root**2)))
    ax.set_ylim(-0.07 * highest, 1.08 * highest)
    ax.legend(frameon=False, loc="upper center")
    return ax


def _mark_end(ax: Axes, end: float, cut: float) -> None:
    """Draw a line from the end of an interval to the cut-off, with its value below."""
    ax.plot([end, end], [0.0, cut], color=GREY, linewidth=1.0)
    ax.annotate(
        f"{end:.4g}",
        (end, 0.0),
        xytext=(0, -3),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize="small",
        color=GREY,
    )


def _which(record: Tree, name: str | None) -> int:
    if not isinstance(record, Profile):
        raise TypeError(f"this plot needs a Profile; got {type(record).__name__}")
    if record.batch_shape:
        raise ValueError(
            "this plot shows a single profile, but this is a batch of shape "
            f"{record.batch_shape}: give profile[i]"
        )
    if name is None and len(record.names) == 1:
        return 0
    if isinstance(name, str) and name not in record.names:
        entries = _entries(record.layout, name)
        name = record.layout.names[entries[0]] if len(entries) == 1 else name
    if not isinstance(name, str) or name not in record.names:
        raise ValueError(
            f"this profile has no quantity called {shown(name)}; there are "
            f"{', '.join(record.names[:20])}"
        )
    return record.names.index(name)


def _entries(layout: Layout, name: str) -> list[int]:
    try:
        return list(layout.find(name))
    except ValueError:  # the caller lists the names
        return []


def _smooth(value: ndarray, root: ndarray) -> tuple[ndarray, ndarray]:
    """The curve through the computed points: the value as a monotone function of the signed
    root.
    """
    from scipy.interpolate import PchipInterpolator

    order = np.argsort(root)
    apart = order[np.concatenate([[True], np.diff(root[order]) > 0])]
    if len(apart) < 2:
        return value, root**2
    fine = np.interp(
        np.arange((len(apart) - 1) * POINTS_BETWEEN_COMPUTED + 1) / POINTS_BETWEEN_COMPUTED,
        np.arange(len(apart)),
        root[apart],
    )
    return PchipInterpolator(root[apart], value[apart])(fine), fine**2


def _parabola(ax: Axes, fit: Fit, name: str, value: ndarray, height: float) -> None:
    """Draw Wald's ((ψ − ψ̂)/SE)², within the plot."""
    one_fit(fit)
    if name not in fit.names:
        return  # a function of the parameters: the fit does not have its standard error
    j = fit.names.index(name)
    centre = float(fit.x[j])
    se = float(fit.se[j])
    if not np.isfinite([centre, se]).all() or se <= 0:
        return
    reach = np.sqrt(height) * se
    abscissae = np.linspace(
        max(value.min(), centre - reach), min(value.max(), centre + reach), POINTS_OF_ELLIPSE
    )
    ax.plot(
        abscissae,
        ((abscissae - centre) / se) ** 2,
        color=GREY,
        linewidth=1.2,
        linestyle="--",
        label="Wald",
    )


@with_keyword_hints
def contour(contour: Contour, fit: Fit | None = None, *, ax: Axes | None = None) -> Axes:
    """The boundary of the joint region of two parameters, with Wald's ellipse.

    Args:
        contour: of one fit.
        fit: the fit, for Wald's ellipse (θ − θ̂)'V⁻¹(θ − θ̂) = χ²₂(level); None leaves it out.
        ax: where to draw; None for a new figure.

    Returns:
        The ``Axes``. Boundary points that were not found, or lie at infinity, leave a gap; the
        title says how many.

    Raises:
        ValueError, TypeError: for a batch, a contour without points, or a fit of other parameters.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.profiles.contour import contour
    >>> from jaxmle import plots
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> normal = lambda params, data: (
    ...     -0.5 * ((data - params["mu"]) / params["sigma"]) ** 2 - jnp.log(params["sigma"])
    ... )
    >>> result = jm.fit(normal, {"mu": 2.5, "sigma": 2.0}, y, constraints={"sigma": jm.positive})
    >>> plots.contour(contour(normal, result, y, ("mu", "sigma"), points=32), result).get_ylabel()
    'sigma'
    """
    if not isinstance(contour, Contour):
        raise TypeError(f"this plot needs a Contour; got {type(contour).__name__}")
    if np.ndim(contour.curve) != 2:
        raise ValueError(
            "this plot shows a single contour, but this is that of a batch: compute it "
            "for one fit, fit[i]"
        )
    edge = np.where(
        np.all(np.isfinite(contour.closed), axis=1, keepdims=True), contour.closed, np.nan
    )
    lost = int(np.isnan(edge[:-1, 0]).sum())
    if lost == len(edge) - 1:
        raise ValueError(
            f"no point of this contour is finite: {END_MEANING[End(int(contour.status[0]))]}"
        )
    ax = axes(ax, (6.0, 5.0))
    coverage = percent(contour.level)
    ax.plot(*edge.T, color=INK, linewidth=1.8, label=f"likelihood, {coverage}")
    if fit is not None:
        ellipse = _ellipse(one_fit(fit), contour)
        if ellipse is not None:
            ax.plot(
                *ellipse.T, color=GREY, linewidth=1.2, linestyle="--", label=f"Wald, {coverage}"
            )
    ax.plot(*contour.estimate, "X", color=INK, markersize=8, linestyle="none", label="estimate")
    ax.set(xlabel=contour.names[0], ylabel=contour.names[1])
    why = (
        f"of {len(edge) - 1} boundary points {'is' if lost == 1 else 'are'} not drawn: at "
        "infinity, or not found"
    )
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=3,
        frameon=False,
        borderaxespad=0.2,
        title=f"{lost:,} {why}" if lost else None,
        title_fontsize="small",
        alignment="left",
    )
    return ax


def _ellipse(fit: Fit, contour: Contour) -> ndarray | None:
    """Wald's ellipse (181, 2), or None if the two have no covariance."""
    places = [entry(fit.layout, name) for name in contour.names]
    vcov = np.asarray(fit.vcov)[np.ix_(places, places)]
    centre = np.asarray(fit.x)[places]
    if not np.isfinite(vcov).all() or np.linalg.det(vcov) <= 0:
        return None
    angle = np.linspace(0.0, 2 * np.pi, POINTS_OF_ELLIPSE)
    radius = np.sqrt(-2 * np.log1p(-contour.level))  # χ²₂ is exponential with mean 2
    return (
        centre
        + radius * np.column_stack([np.cos(angle), np.sin(angle)]) @ np.linalg.cholesky(vcov).T
    )
