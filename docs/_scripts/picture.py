"""Directive `picture`: a drawing in its light and its dark form, with a caption."""

from __future__ import annotations

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Picture(SphinxDirective):
    """`{picture} name` shows `_static/pictures/name.svg` or `name-dark.svg`; the body: caption."""

    required_arguments = 1
    has_content = True
    option_spec = {"alt": directives.unchanged_required}  # noqa: RUF012 - docutils reads it so

    def run(self) -> list[nodes.Node]:
        """Build the figure."""
        figure = nodes.figure(classes=["drawing"])
        for ending, theme in (("", "only-light"), ("-dark", "only-dark")):
            place = f"/_static/pictures/{self.arguments[0]}{ending}.svg"
            figure += nodes.image(uri=place, alt=self.options["alt"], classes=[theme])
        caption = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, caption)
        if caption.children:
            figure += nodes.caption("", "", *caption.children[0].children)
        return [figure]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
