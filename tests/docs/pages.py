"""The pages of the documentation: their blocks of code, their links, and the names they speak of."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
ANY_BLOCK = re.compile(r"^( *)```.*?^\1```$", flags=re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"[-−+]?\d+\.?\d*(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Page:
    """One Markdown page by its name, such as ``howto/weights``."""

    name: str

    @property
    def path(self) -> Path:
        return DOCS / f"{self.name}.md"

    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def blocks(self) -> list[tuple[str, str, int]]:
        """Language, content and first line of each block of Python and of what it prints."""
        text = self.text()
        return [
            (block[1], block[2], text.count("\n", 0, block.start()) + 2)
            for block in BLOCK.finditer(text)
            if block[1] in ("python", "text")
        ]

    def prose(self) -> str:
        """The page without its blocks."""
        return ANY_BLOCK.sub("", self.text())


def pages() -> list[Page]:
    """Every page of the site that is written by hand."""
    built = {DOCS / "_build", DOCS / "_ext"}
    paths = (path for path in DOCS.rglob("*.md") if not built & set(path.parents))
    return [Page(path.relative_to(DOCS).with_suffix("").as_posix()) for path in sorted(paths)]


def last_digit(number: str) -> float:
    """The worth of the last digit that is shown."""
    mantissa, _, power = number.partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(power or 0) - decimals)


def differences(printed: str, promised: str) -> str:
    """Where the two texts differ by more than the last digit shown of a number; "" where nowhere.

    That digit is left to the machine: another processor or another jax rounds differently.
    """
    shown = [" ".join(text.split()) for text in (printed, promised)]
    words = [NUMBER.sub("#", text) for text in shown]
    if words[0] != words[1]:
        return f"printed\n{printed}\nbut the page says\n{promised}"
    for ours, theirs in zip(*(NUMBER.findall(text) for text in shown), strict=True):
        distance = abs(float(ours.replace("−", "-")) - float(theirs.replace("−", "-")))
        if distance > 1.01 * max(last_digit(ours), last_digit(theirs)):
            return f"printed {ours} where the page says {theirs}"
    return ""
