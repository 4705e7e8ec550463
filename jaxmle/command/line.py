"""``python -m jaxmle``: fit a built-in model to a file, fit each group of its rows, describe its
columns. The numbers are those of the calls ``from_formula``, ``fit`` and ``fit_groups``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jaxmle._types import DataFrame
from jaxmle.command.describe import describe
from jaxmle.command.files import extension_of, read_table, write
from jaxmle.data.frame import Frame, from_formula
from jaxmle.data.groups import fit_groups
from jaxmle.data.leaves import WITHOUT_CONSTANT
from jaxmle.distributed.public_fit import fit
from jaxmle.likelihood.combinators import Weights, frequency, sampling
from jaxmle.models import Model
from jaxmle.models.made_again import made_again
from jaxmle.record.fit import Fit
from jaxmle.solvers.status import Status

# what a shell sees
SUCCESS = 0
NOT_CONVERGED = 1
REFUSED = 2
WEIGHTS = {"frequency": frequency, "sampling": sampling}
EXAMPLES = """examples:
  python -m jaxmle fit data.csv "y ~ age + C(group)" --model logistic --vcov HC1 --out table.md
  python -m jaxmle fit data.csv "n ~ x" --model "poisson(exposure='t')" --also t=years
  python -m jaxmle groups data.csv "y ~ x" --by site --model poisson --out fits.csv
  python -m jaxmle describe data.csv
exit codes: 0 if every fit has converged, 1 if one has not, 2 if the input is refused"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after ``python -m jaxmle``; those of the process if None.

    Returns:
        The status for the shell: 0 where every fit has converged, 1 where one has not, 2 where the
        input is refused, with the sentence on standard error.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "data.csv")
    ...     _ = path.write_text("y,x\\n1,0\\n2,1\\n6,2\\n")
    ...     main(["describe", str(path)])
    column    kind  n  missing  mean   sd  min  median  max levels
         y numbers  3        0     3 2.65    1       2    6
         x numbers  3        0     1    1    0       1    2
    0
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"jaxmle {options.command}: {error}", file=sys.stderr)
        return REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxmle",
        description="Maximum-likelihood fits of the rows of a file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run, sentence in (
        ("fit", _fit, "fit a built-in model to all rows, and print its table"),
        ("groups", _groups, "fit a built-in model to each group of rows"),
        ("describe", _describe, "list the columns of a file"),
    ):
        command = commands.add_parser(name, help=sentence, description=sentence)
        command.set_defaults(run=run)
        command.add_argument("data", help="a file: .csv, .tsv or .parquet")
        if name != "describe":
            _add_options(command)
        if name == "groups":
            command.add_argument("--by", action="append", required=True, help="a column of keys")
        outputs = ".csv or .parquet" if name == "groups" else ".md, .tex, .html, .csv or .txt"
        more = ", or .npz for the record" if name == "fit" else ""
        command.add_argument("--out", help=f"a file to write the result to: {outputs}{more}")
    return parser


def _add_options(command: argparse.ArgumentParser) -> None:
    """What ``fit`` and ``groups`` share."""
    command.add_argument("formula", help="such as 'y ~ x + C(group)'")
    command.add_argument(
        "--model", default="normal", help="the name of a built-in model, or the call that makes it"
    )
    command.add_argument("--vcov", default="auto", help="HC0 … HC3, cluster, expected, opg, …")
    command.add_argument("--clusters", help="a column")
    command.add_argument("--weights", help="a column")
    command.add_argument("--weights-kind", choices=tuple(WEIGHTS), default="frequency")
    command.add_argument(
        "--also", action="append", default=[], metavar="LEAF=COLUMN", help="a further leaf"
    )
    command.add_argument("--level", type=float, default=0.95, help="of the intervals")
    command.add_argument(
        "--exponentiate", action="store_true", help="show odds ratios, rate ratios, hazard ratios"
    )


# ---------------------------------------------------------------- the commands


def _fit(options: argparse.Namespace) -> int:
    table = read_table(options.data)
    frame = _frame(options, table, ())
    fitted = fit(_model(options.model, frame), data=frame, vcov=options.vcov, progress=False)
    if frame.account:
        print(frame.account, file=sys.stderr)
    if options.exponentiate:
        print(fitted.to_markdown(options.level, exponentiate=True))
    else:
        print(fitted.summary(options.level))
    if options.out is not None:
        _write_fit(options.out, fitted, options.level, options.exponentiate)
    return SUCCESS if fitted.verdict is Status.CONVERGED else NOT_CONVERGED


def _write_fit(path: str, fitted: Fit, level: float, exponentiate: bool) -> None:
    extension = extension_of(path, (".md", ".tex", ".html", ".csv", ".txt", ".npz"))
    if extension == ".npz":
        fitted.save(path)
    elif extension == ".csv":
        rows = fitted.to_frame(level, "pandas", exponentiate=exponentiate)
        write(path, rows.to_csv(index=False))
    elif extension == ".txt":
        write(path, fitted.summary(level))
    else:
        text = {".md": fitted.to_markdown, ".tex": fitted.to_latex, ".html": fitted.to_html}
        write(path, text[extension](level, exponentiate=exponentiate))


def _groups(options: argparse.Namespace) -> int:
    table = read_table(options.data)
    frame = _frame(options, table, tuple(options.by))
    if options.exponentiate:
        raise ValueError(
            "--exponentiate works only with fit: the table of groups holds coefficients"
        )
    model = _model(options.model, frame)
    by = options.by[0] if len(options.by) == 1 else options.by
    fits = fit_groups(model, None, frame, by=by, vcov=options.vcov, progress=False)
    if frame.account:
        print(frame.account, file=sys.stderr)
    rows = fits.to_frame(options.level, "pandas")
    print(fits)
    if options.out is not None:
        extension = extension_of(options.out, (".csv", ".parquet"))
        content = rows.to_csv(index=False) if extension == ".csv" else rows.to_parquet(index=False)
        write(options.out, content)
    return SUCCESS if all(bool(fitted.converged) for _, fitted in fits) else NOT_CONVERGED


def _describe(options: argparse.Namespace) -> int:
    columns = describe(read_table(options.data), "pandas")
    shown = columns.to_string(index=False, na_rep="", float_format=lambda number: f"{number:.3g}")
    print("\n".join(line.rstrip() for line in shown.splitlines()))
    if options.out is not None:
        extension = extension_of(options.out, (".csv", ".txt"))
        write(options.out, columns.to_csv(index=False) if extension == ".csv" else shown)
    return SUCCESS


# ---------------------------------------------------------------- what they are made of


def _frame(options: argparse.Namespace, table: DataFrame, by: tuple[str, ...]) -> Frame:
    """The rows coded by the formula; the constant is left out where a model has none."""
    return from_formula(
        options.formula,
        table,
        weights=_weights(options),
        clusters=options.clusters,
        also=_also(options.also),
        by=by,
        intercept=options.model.partition("(")[0].strip() not in WITHOUT_CONSTANT,
        missing="drop",
    )


def _weights(options: argparse.Namespace) -> Weights | None:
    return None if options.weights is None else WEIGHTS[options.weights_kind](options.weights)


def _also(words: list[str]) -> dict[str, str] | None:
    pairs = [word.partition("=") for word in words]
    wrong = [word for word, (_, sign, _) in zip(words, pairs, strict=True) if not sign]
    if wrong:
        raise ValueError(f"--also takes LEAF=COLUMN, such as exposure=years; got {wrong[0]!r}")
    return {leaf.strip(): column.strip() for leaf, _, column in pairs} or None


def _model(text: str, frame: Frame) -> Model:
    """The built-in model that a word, or a call as text, means; nothing is evaluated."""
    call = text.strip()
    if call in ("multinomial", "ordinal"):
        call = f"{call}(classes={len(frame.levels or ())})"
    try:
        model = made_again(call if "(" in call else f"{call}()")
    except TypeError as error:
        raise ValueError(f"--model {text!r}: {error}") from error
    if model is None:
        raise ValueError(
            f"--model {text!r} is not a built-in model: give a name such as logistic, poisson or "
            "gamma, or a call such as \"poisson(exposure='years')\""
        )
    return model
