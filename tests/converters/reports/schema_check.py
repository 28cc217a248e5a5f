"""A check of JSON Schema, draft 2020-12, as far as our schema goes; stricter in one thing.

What a schema does not describe is an error here, so that no key is printed without being described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
_KEYWORDS = {
    *("$schema", "$defs", "title", "description", "const", "type", "required", "minimum"),
    *("items", "properties", "enum"),
}
"""Those that are checked in passing, are met, or check nothing."""


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$") -> list[str]:
    """Where a value is not what its schema says.

    Raises:
        NotImplementedError: If the schema has a keyword that is not checked here.
    """
    found = [
        fault
        for keyword, rule in schema.items()
        for fault in _broken(keyword, rule, value, schema, root, at)
    ]
    if "minimum" in schema and value is not None and value < schema["minimum"]:
        found.append(f"{at} is below {schema['minimum']}")
    return found


def _broken(  # noqa: PLR0913, PLR0917 -- one keyword, and where it stands
    keyword: str, rule: Any, value: Any, schema: dict[str, Any], root: dict[str, Any], at: str
) -> Iterator[str]:
    match keyword:
        case "$ref":
            yield from faults(value, root["$defs"][rule.removeprefix("#/$defs/")], root, at)
        case "const" if value != rule:
            yield f"{at} is not {rule}"
        case "enum" if value not in rule:
            yield f"{at} is none of {rule}"
        case "type" if not _is(value, rule):
            yield f"{at} is no {rule}"
        case "anyOf":
            options: list[list[str]] = [faults(value, option, root, at) for option in rule]
            yield from min(options, key=len)
        case "items" if isinstance(value, list):
            for index, item in enumerate(value):
                yield from faults(item, rule, root, f"{at}[{index}]")
        case "properties" if isinstance(value, dict):
            yield from _in_object(value, schema, root, at)
        case _ if keyword not in _KEYWORDS:
            raise NotImplementedError(keyword)


def _is(value: Any, kinds: str | list[str]) -> bool:
    names = [kinds] if isinstance(kinds, str) else kinds
    return any(
        isinstance(value, _KINDS[name]) and (name == "boolean" or not isinstance(value, bool))
        for name in names
    )


def _in_object(
    value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], at: str
) -> Iterator[str]:
    known = schema["properties"]
    yield from (f"{at} lacks {name}" for name in schema["required"] if name not in value)
    for name, item in value.items():
        if name in known:
            yield from faults(item, known[name], root, f"{at}.{name}")
        else:
            yield f"{at}.{name} is not described"
