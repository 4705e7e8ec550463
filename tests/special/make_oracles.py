"""Tables of the smaller tail of the gamma, beta and t distributions with derivatives in the shapes, by mpmath, for test_incomplete.py and test_student.py.

``python tests/special/make_oracles.py [t beta gamma]``: some ten minutes on two cores. Each tail is a series of positive terms or a continued fraction with 60 digits, or one minus it with as many more as cancel; the derivatives in the shapes are
central differences of steps 1e-15 (error 1e-30). Derivatives in the argument and the other tail follow from these in closed form and are formed by the tests.
"""

import sys
from multiprocessing import Pool
from pathlib import Path

import mpmath as mp
import numpy as np

HERE = Path(__file__).parent / "data"


def log_p(a, x):
    """log P(a, x): x^a e⁻ˣ/Γ(a + 1) · Σ xⁿ/((a + 1)…(a + n))."""
    term, total, n = mp.mpf(1), mp.mpf(1), 0
    while term > total * mp.eps or x > a + 1 + n:
        n += 1
        term *= x / (a + n)
        total += term
    return a * mp.log(x) - x - mp.loggamma(a + 1) + mp.log(total)


def log_q(a, x):
    """log Q(a, x) by Legendre's continued fraction, from the back, with twice the terms until nothing changes."""
    count, last = 100, None
    while True:
        tail = mp.mpf(0)
        for n in range(count, 0, -1):
            tail = n * (n - a) / (x + 2 * n + 1 - a - tail)
        value = x + 1 - a - tail
        if last is not None and abs(value - last) < abs(value) * mp.mpf(10) ** (4 - mp.mp.dps):
            return a * mp.log(x) - x - mp.loggamma(a) - mp.log(value)
        count, last = 2 * count, value


def log_i(a, b, x, y):
    """log I_x(a, b): x^a y^b/(a B(a, b)) · ₂F₁(a + b, 1; a + 1; x), summed term by term."""
    term, total, n = mp.mpf(1), mp.mpf(1), 0
    while term > total * mp.eps or (a + b + n) * x > a + 1 + n:
        term *= (a + b + n) * x / (a + 1 + n)
        total += term
        n += 1
    return (
        a * mp.log(x)
        + b * mp.log(y)
        - mp.log(a)
        - mp.loggamma(a)
        - mp.loggamma(b)
        + mp.loggamma(a + b)
        + mp.log(total)
    )


def complement(log_tail, *arguments):
    """log(1 − e^f) with as many digits more as cancel."""
    value = log_tail(*arguments)
    lost = int(-mp.log10(-mp.expm1(value))) if value < 0 else mp.mp.dps
    while True:
        with mp.workdps(mp.mp.dps + lost + 20):
            value = log_tail(*arguments)
            rest = -mp.expm1(value)
            if rest > mp.mpf(10) ** (-lost - 10):
                return mp.log(rest)
        lost = 2 * lost + 60


def gamma_row(point):
    a, x = map(mp.mpf, point)
    mp.mp.dps = 60

    def tail(s):
        return log_p(s, x) if x <= a else log_q(s, x) if x > 3 else complement(log_p, s, x)

    h = a * mp.mpf("1e-15")
    down, at, up = tail(a - h), tail(a), tail(a + h)
    return at, (up - down) / (2 * h), (up - 2 * at + down) / h**2


def beta_row(point):
    mp.mp.dps = 60
    a, b, x = map(mp.mpf, point)
    lower = x * (a + b) <= a

    def tail(s, t):
        if lower:
            return log_i(s, t, x, 1 - x) if x <= 0.98 else complement(log_i, t, s, 1 - x, x)
        return log_i(t, s, 1 - x, x) if x >= 0.02 else complement(log_i, s, t, x, 1 - x)

    h, k = a * mp.mpf("1e-15"), b * mp.mpf("1e-15")
    at, left, right, below, above = (
        tail(a, b),
        tail(a - h, b),
        tail(a + h, b),
        tail(a, b - k),
        tail(a, b + k),
    )
    far, near = tail(a + h, b + k), tail(a - h, b - k)
    mixed = (far + near - left - right - below - above + 2 * at) / (2 * h * k)
    return (
        at,
        (right - left) / (2 * h),
        (above - below) / (2 * k),
        (right - 2 * at + left) / h**2,
        mixed,
        (above - 2 * at + below) / k**2,
    )


def t_row(point):
    """log F(z) for z < 0, by the smaller variable: ½ I_x(ν/2, ½) or ½(1 − I_y(½, ν/2))."""
    mp.mp.dps = 60
    z, nu = map(mp.mpf, point)

    half = mp.mpf("0.5")

    def above(n):
        """log P(|T| < |z|), x and y formed at the precision of the moment."""
        return log_i(half, n / 2, z * z / (n + z * z), n / (n + z * z))

    def tail(n):
        x, y = n / (n + z * z), z * z / (n + z * z)
        return -mp.log(2) + (log_i(n / 2, half, x, y) if x <= 0.98 else complement(above, n))

    h = nu * mp.mpf("1e-15")
    down, at, up = tail(nu - h), tail(nu), tail(nu + h)
    return at, (up - down) / (2 * h), (up - 2 * at + down) / h**2


def gamma_points(count, rng):
    a = 10 ** rng.uniform(-2.5, 5, count)
    near = a * np.exp(rng.normal(0, 3, count) / np.sqrt(a + 1))
    wide = a * 10 ** rng.uniform(-2, 1.5, count)
    x = np.where(rng.uniform(size=count) < 0.75, near, wide)
    edges = [
        (s, x)
        for s in (0.003, 0.1, 0.5, 1, 1.5, 9.99, 10, 100)
        for x in (1e-6, 0.5, 0.999, 1, 1.001, s, 9.99, 10, 30)
    ]
    return [*edges, *zip(a, np.clip(x, 1e-8, None), strict=True)][:count]


def beta_points(count, rng):
    a, b = 10 ** rng.uniform(-2, 3.5, (2, count))
    logit = np.log(a / b) + rng.normal(0, 3, count) * np.sqrt(1 / a + 1 / b)
    x = np.where(
        rng.uniform(size=count) < 0.75,
        1 / (1 + np.exp(-np.clip(logit, -9, 9))),
        rng.uniform(0.001, 0.999, count),
    )
    edges = [
        (s, t, x)
        for s in (0.01, 0.5, 1, 9.99, 10, 60)
        for t in (0.01, 0.5, 1, 10, 60)
        for x in (1e-4, 0.25, 0.5, 0.9, 0.9999)
    ]
    return [*edges, *zip(a, b, x, strict=True)][:count]


def t_points(count, rng):
    nu = 10 ** rng.uniform(-1, 5, count)
    z = -np.abs(
        np.where(
            rng.uniform(size=count) < 0.8, rng.normal(0, 3, count), 10 ** rng.uniform(-4, 2, count)
        )
    )
    edges = [
        (-z, n)
        for n in (0.1, 1, 2, 10, 30, 1000, 1e6)
        for z in (1e-8, 0.01, 0.999, 1, 1.001, 5, 30)
    ]
    return [*edges, *zip(z, nu, strict=True)][:count]


KINDS = {
    "t": ("z,nu,f,f_n,f_nn", t_row, t_points, (18, 15, 11)),
    "beta": ("a,b,x,f,f_a,f_b,f_aa,f_ab,f_bb", beta_row, beta_points, (20, 16, 11)),
    # the hazard −∂f/∂x is formed from f: in the far tail of a gamma with a = 10⁵ that takes eight digits more
    "gamma": ("a,x,f,f_a,f_aa", gamma_row, gamma_points, (26, 16, 12)),
}


def line(job):
    """One row of a table: coordinates of four digits, then log of the tail and its derivatives, with so many digits by order. As text: an mpf is rounded on its way between processes."""
    kind, point = job
    head, row, _, digits = KINDS[kind]
    names = head.split(",")[len(point) :]
    values = row(tuple(mp.mpf(float(v)) for v in point))
    return ",".join(
        [
            *(f"{float(v):.4g}" for v in point),
            *(
                mp.nstr(v, digits[max(len(name) - 2, 0)])
                for v, name in zip(values, names, strict=True)
            ),
        ]
    )


if __name__ == "__main__":
    for kind in sys.argv[1:] or KINDS:
        head, _, points, _ = KINDS[kind]
        jobs = [
            (kind, tuple(f"{float(v):.4g}" for v in point))
            for point in points(2000, np.random.default_rng(5))
        ]
        with Pool(2) as pool:
            rows = pool.map(line, jobs, chunksize=8)
        (HERE / f"{kind}_tail.csv").write_text("\n".join([head, *rows]) + "\n")
