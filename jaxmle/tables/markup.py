"""A fit, or the digest of a batch, as HTML, LaTeX (booktabs) and Markdown."""

from __future__ import annotations

import re
from html import escape

from jaxmle.tables import digest, table
from jaxmle.tables.contents import Record
from jaxmle.tables.layout import ELLIPSIS, Grid, Page, columns_of
from jaxmle.tables.view import View

NUMBER_STYLE = "text-align:right;white-space:pre;font-family:monospace"
NAME_STYLE = "text-align:left"
DECIMAL = "r@{.}l"

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after \\ a bare bracket opens an optional argument, and a bare star is an option
    "*": "{*}",
    "]": "{]}",
} | {character: f"\\{character}" for character in "&%$#_{}"}
_POWER = re.compile(r"e([+-]\d+)$")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&])")


def page(fit: Record, view: View | float) -> Page:
    """The page of one fit, or the digest of a batch."""
    view = view if isinstance(view, View) else View(view)
    if not fit.batch_shape:
        return table.page(fit, view)
    if not view.is_plain:
        raise ValueError(
            "exponentiate, labels and terms are for a single fit: fits[i]. The digest of "
            "a batch shows what the members share; fits.to_frame(…) has a row for each"
        )
    return digest.page(fit, view.level)


def html(fit: Record, view: View | float = 0.95) -> str:
    """The summary as one HTML element for notebooks; every name and sentence is escaped.

    Args:
        fit: the record of one fit or of a batch.
        view: what is shown, or only the coverage of the intervals.

    Returns:
        A `<div class="jaxmle">` with the status, the facts, a `<table>` per grid, and the notes.
    """
    return html_page(page(fit, view))


def html_page(shown: Page) -> str:
    """A page as one HTML element."""
    facts = ", ".join(f"{label} = {value}" for label, value in shown.facts)
    head = f"<strong>{escape(shown.status)}</strong><br>" if shown.status else ""
    parts = [
        *([f"<p>{head}{escape(facts)}</p>"] if head or facts else []),
        *map(_html_grid, shown.grids),
        *(f"<p><small>{escape(note)}</small></p>" for note in shown.notes),
    ]
    return "\n".join(['<div class="jaxmle">', *parts, "</div>"])


def _html_grid(grid: Grid) -> str:
    caption = [f"<caption>{escape(grid.title)}</caption>"] if grid.title else []
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in grid.header)
    body = zip(*grid.columns(), strict=True)
    rows = [
        f"<tr>{''.join(_html_cell(j, cell, grid) for j, cell in enumerate(row))}</tr>"
        for row in body
    ]
    return "\n".join(
        [
            "<table>",
            *caption,
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *rows,
            "</tbody>",
            "</table>",
        ]
    )


def _html_cell(column: int, cell: str, grid: Grid) -> str:
    if column == 0:
        return f'<th scope="row" style="{NAME_STYLE}">{escape(cell)}</th>'
    return f'<td style="{NAME_STYLE if column in grid.words else NUMBER_STYLE}">{escape(cell)}</td>'


def markdown(fit: Record, view: View | float = 0.95) -> str:
    """The summary as Markdown with pipe tables; characters that Markdown reads are escaped in
    names.

    Args:
        fit: the record of one fit or of a batch.
        view: what is shown, or only the coverage of the intervals.

    Returns:
        The text, with numbers also aligned in the source.
    """
    return markdown_page(page(fit, view))


def markdown_page(shown: Page) -> str:
    """A page as Markdown."""
    facts = ", ".join(f"{label} = {value}" for label, value in shown.facts)
    status = [f"**{_markdown(shown.status)}**"] if shown.status else []
    below = [_markdown(facts)] if facts else []
    blocks = [*status, *below, *map(_markdown_grid, shown.grids)]
    return "\n\n".join([*blocks, *map(_markdown, shown.notes)]) + "\n"


def _markdown(words: str) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(words.split()))


def _markdown_grid(grid: Grid) -> str:
    columns = [
        [head, *(map(_markdown, cells) if j in grid.words else cells)]
        for j, (head, cells) in enumerate(zip(grid.header, grid.columns(), strict=True))
    ]
    padded = [_markdown_column(cells, j in grid.words) for j, cells in enumerate(columns)]
    lines = [f"| {' | '.join(row)} |" for row in zip(*padded, strict=True)]
    return "\n".join([f"{_markdown(grid.title)}\n"] * bool(grid.title) + lines)


def _markdown_column(cells: list[str], words: bool) -> list[str]:
    """The header, the rule that sets the alignment, and the cells, padded to the same width."""
    width = max(3, *map(columns_of, cells))
    rule = ":" + "-" * (width - 1) if words else "-" * (width - 1) + ":"
    blanks = [" " * (width - columns_of(cell)) for cell in cells]
    head, *body = (
        cell + blank if words else blank + cell for cell, blank in zip(cells, blanks, strict=True)
    )
    return [head, rule, *body]


def latex(fit: Record, view: View | float = 0.95) -> str:
    """The summary as LaTeX; it needs only `booktabs`.

    Numbers are in pairs of columns `r@{.}l`, so their decimal points align. The status is above the
    table, or in a comment if the fit converged.

    Args:
        fit: the record of one fit or of a batch.
        view: what is shown, or only the coverage of the intervals.

    Returns:
        The source of one `tabular` per grid, followed by the facts and the notes.
    """
    return latex_page(page(fit, view))


def latex_page(shown: Page) -> str:
    """A page as LaTeX."""
    facts = ", ".join(f"{label} = {value}" for label, value in shown.facts)
    status = (
        f"% {shown.status}"
        if shown.sound
        else rf"\noindent\textbf{{{_latex(shown.status)}}}\par\medskip"
    )
    below = [
        rf"\par\smallskip\noindent{{\footnotesize {line}}}"
        for line in (_latex_minus(facts), *map(_latex, shown.notes))
        if line
    ]
    grids = "\n\\par\\medskip\n".join(map(_latex_grid, shown.grids))
    return "\n".join([*([status] if shown.status else []), grids, *below]) + "\n"


def _latex(words: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(words.split()))


def _latex_minus(words: str) -> str:
    return re.sub(r"(?<=\s)-(?=\d|inf)", "$-$", _latex(words))


def _latex_grid(grid: Grid) -> str:
    kinds = [_latex_kind(j, cells, grid) for j, cells in enumerate(grid.columns())]
    heads = [_latex_head(head, kind) for head, kind in zip(grid.header, kinds, strict=True)]
    rows = [
        [_latex_cell(cell, kind) for cell, kind in zip(row, kinds, strict=True)]
        for row in grid.rows
    ]
    title = [rf"{_latex(grid.title)}\par\smallskip"] if grid.title else []
    lines = [" & ".join(cells) + r" \\" for cells in (heads, *rows)]
    body = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*title, rf"\begin{{tabular}}{{{' '.join(kinds)}}}", *body])


def _latex_kind(column: int, cells: tuple[str, ...], grid: Grid) -> str:
    """The column specification: text left, integers right, decimals in two columns around their
    point.
    """
    if column in grid.words:
        return "l"
    return DECIMAL if any("." in cell for cell in cells) else "r"


def _latex_head(head: str, kind: str) -> str:
    return rf"\multicolumn{{2}}{{c}}{{{_latex(head)}}}" if kind == DECIMAL else _latex(head)


def _latex_cell(cell: str, kind: str) -> str:
    if kind == "l":
        return r"$\vdots$" if cell == ELLIPSIS else _latex(cell)
    whole, dot, fraction = cell.partition(".")
    if cell.startswith("["):  # an interval, which has two points
        shown = re.sub(r"-(?=\d|inf)", "$-$", cell).replace("inf", r"$\infty$")
        return rf"\multicolumn{{2}}{{r}}{{{shown}}}" if kind == DECIMAL else shown
    if kind == "r" or not any(map(str.isdigit, cell)):
        shown = _latex_number(cell)
        return shown if kind == "r" else rf"\multicolumn{{2}}{{r}}{{{shown}}}"
    return (
        f"{_latex_number(whole)} & {_latex_number(fraction)}"
        if dot
        else rf"\multicolumn{{1}}{{r@{{}}}}{{{_latex_number(whole)}}} &"
    )


def _latex_number(digits: str) -> str:
    """Digits with a true minus, `<`, infinity and power of ten."""
    digits = digits.replace("inf", r"$\infty$").replace("<", "$<$")
    power = _POWER.sub(lambda match: rf"$\times10^{{{int(match[1])}}}$", digits)
    return re.sub(r"^(\(?)-", r"\1$-$", power)
