"""The README's code runs, and prints what the README says it prints."""

import contextlib
import io
import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_readme_code_prints_what_it_says():
    """Blocks of Python share one namespace; a block of text after one is what it prints."""
    blocks = re.findall(
        r"```(python|text)\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    namespace, printed = {}, ""
    for language, block in blocks:
        if language == "text":
            assert block.rstrip() == printed.rstrip()
            continue
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            exec(compile(block, str(README), "exec"), namespace)
        printed = stream.getvalue()
    assert {language for language, _ in blocks} == {"python", "text"}
