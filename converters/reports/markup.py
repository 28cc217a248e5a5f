"""Elements of HTML and SVG: text becomes markup only through :func:`tag`, which escapes it."""

from __future__ import annotations

from html import escape

from converters.errors import escaped

_VOID = {"meta", "link", "rect", "line", "circle", "polyline"}
"""Elements without an end tag, or without content in SVG."""


class Markup(str):
    """A string that is markup already."""

    __slots__ = ()


def tag(name: str, /, *content: str, **attributes: str) -> Markup:
    """Build an element.

    Args:
        name: Of the element.
        content: Markup as it is; anything else is text and is escaped.
        attributes: Their values are text; a trailing ``_`` of a name is dropped and other ``_``
            become ``-``, so that ``class_`` and ``aria_label`` can be given.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_text(value)}"'
        for key, value in attributes.items()
    )
    if name in _VOID:
        return Markup(f"<{name}{given}/>")
    inner = "".join(part if isinstance(part, Markup) else _text(part) for part in content)
    return Markup(f"<{name}{given}>{inner}</{name}>")


def _text(content: str) -> Markup:
    """Escape text, for an element or an attribute in double quotes."""
    return Markup(escape(escaped(content)))
