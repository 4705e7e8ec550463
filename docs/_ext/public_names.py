"""Code spans that name a public object become links: ``jm.fit(…)``, ``Fit``, ``fit.explain()``.

A span that begins with ``jm.`` must name something that the reference lists; where it does not,
the build warns, and a warning is a failure.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from targets import target_of


class LinkPublicNames(SphinxPostTransform):
    """Turns spans of code into references to the objects that they name."""

    default_priority = 5  # before references are resolved

    def run(self, **options: Any) -> None:
        """Wrap each span that names a public object in a reference to it."""
        for literal in list(self.document.findall(nodes.literal)):
            if self.is_linked(literal):
                continue
            target = target_of(literal.astext())
            if target is None:
                continue
            reference = addnodes.pending_xref(
                "",
                refdomain="py",
                reftype="obj",
                reftarget=target,
                refexplicit=True,
                refwarn=True,
                refdoc=self.env.docname,
            )
            literal.replace_self(reference)
            reference += literal

    @staticmethod
    def is_linked(literal: nodes.literal) -> bool:
        """Whether the span stands inside a link or a title already."""
        above = literal.parent
        while above is not None:
            if isinstance(above, nodes.reference | addnodes.pending_xref | nodes.title):
                return True
            above = above.parent
        return False


def setup(app: Any) -> dict[str, bool]:
    """Register the transform."""
    app.add_post_transform(LinkPublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
