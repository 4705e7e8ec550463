"""HTML, LaTeX and Markdown."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxmle.solvers.status import Status
from jaxmle.tables.markup import html, latex, markdown
from tests.report.records import admissions, batch, record

HOSTILE = ("<script>alert('x')</script>", 'a & "b"', "rate_1|x%$#{y}~^\\z", "[0]", "*b* `c`")


class Cells(HTMLParser):
    """The rows of all tables of a document, and whether its tags match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def parsed(document: str) -> Cells:
    cells = Cells()
    cells.feed(document)
    assert cells.open == []
    return cells


def hostile(**fields):
    return record(np.arange(5) - 2.0, np.full(5, 0.5), HOSTILE, **fields)


def test_html_is_well_formed_and_gives_every_name_back():
    assert [row[0] for row in parsed(html(hostile())).rows[1:]] == list(HOSTILE)
    assert "<script" not in html(hostile())


def test_html_escapes_the_sentence_of_the_status():
    document = html(
        hostile(status=np.int32(Status.SADDLE), explain=lambda: "curves upwards along <b> & c")
    )
    assert "SADDLE: curves upwards along &lt;b&gt; &amp; c" in document


def test_html_numbers_are_aligned():
    cells = [row[1] for row in parsed(html(admissions())).rows[1:]]
    assert len({(len(cell), cell.index(".")) for cell in cells}) == 1


@pytest.mark.parametrize("write", [html, latex, markdown])
def test_a_batch_is_written_as_its_digest(write):
    text = write(batch(1000, failures={7: Status.SEPARATED}))
    assert "999 of 1000 fits CONVERGED" in text and "Worst members" in text and len(text) < 20_000


@pytest.mark.parametrize("write", [html, latex, markdown])
def test_the_level_and_the_status_are_written(write):
    assert "99" in write(admissions(), 0.99) and "CONVERGED" in write(admissions())


def unescaped(source: str) -> str:
    """LaTeX without its escaped characters."""
    return re.sub(r"\\[&%$#_{}]", "", source)


def test_latex_names_hold_no_active_character():
    for line in (
        latex(hostile()).split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    ):
        name = re.sub(r"\\text\w+\{\}|\{[\[\]*]\}", "", unescaped(line.split(" & ")[0]))
        assert not set(name) & set("\\&%$#_{}~^<>|[]*")


def test_latex_rows_have_as_many_cells_as_the_table_has_columns():
    fit = record(
        [1.0, np.inf, 123456.0, 2e-9], [np.nan, np.nan, 4321.0, 1e-10], ("a", "b", "c", "d")
    )
    source = latex(fit)
    columns = source.split(r"\begin{tabular}")[1].splitlines()[0]
    wanted = columns.count("l") + columns.count("r")
    body = [line for line in source.splitlines() if line.endswith(r" \\")]
    assert len(body) == 5
    for line in body:
        spans = [int(k) - 1 for k in re.findall(r"\\multicolumn\{(\d)\}", line)]
        assert unescaped(line).count("&") + 1 + sum(spans) == wanted


def test_latex_is_booktabs_with_true_minus_infinity_and_powers():
    source = latex(record([-1.5, -np.inf, 2e-9], [0.5, np.nan, 1e-10], ("a", "b", "c"), bic=-7.5))
    for part in (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        "$-$1 & 5000",
        r"{$-$$\infty$}",
        "BIC = $-$7.500",
        r"000$\times10^{-9}$",
    ):
        assert part in source
    assert r"\hline" not in source


def test_latex_shows_a_failure_and_hides_a_success_in_a_comment():
    assert latex(admissions()).startswith("% CONVERGED\n")
    failed = admissions(status=np.int32(Status.MAX_STEPS), explain=lambda: "100% of the steps")
    assert latex(failed).startswith(r"\noindent\textbf{MAX\_STEPS: 100\% of the steps}")


def table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_markdown_rows_have_seven_cells_of_one_width():
    lines = table_lines(markdown(hostile()))
    assert len(lines) == 7 and len({len(line) for line in lines}) == 1
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {9}
    assert re.fullmatch(r"\| :-+ (\| -+: ){6}\|", lines[1])


def test_markdown_names_are_literal():
    name = re.split(r"(?<!\\)\|", table_lines(markdown(hostile()))[-1])[1].strip()
    assert name == r"\*b\* \`c\`"
    assert r"\[0\]" in markdown(hostile()) and r"\<script\>" in markdown(hostile())
