"""Docstrings as the site shows them: names in brackets become links, and the help of an argument is its docstring."""

from __future__ import annotations

import ast
import importlib
import re
from typing import Any

import griffe

import recross_hf

_NAME = re.compile(r"\[`([A-Za-z_][\w.]*)`\](?![\[(])")


class Docstrings(griffe.Extension):
    """Makes links of [`Name`], and docstrings of `field(metadata={"help": ...})`."""

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        if obj.is_attribute and obj.docstring is None and str(obj.value).startswith("field("):
            _document(obj)
        if obj.docstring is not None:
            obj.docstring.value = _NAME.sub(lambda match: _link(match[1], obj), obj.docstring.value)


def _document(field: griffe.Attribute) -> None:
    """Takes the help of a dataclass's field from the class itself, and the default from its call of `field`."""
    owner = getattr(importlib.import_module(field.module.path), field.parent.name)
    known = owner.__dataclass_fields__[field.name]
    if "help" in known.metadata:
        field.docstring = griffe.Docstring(known.metadata["help"], parent=field)
        keywords = {keyword.arg: keyword.value for keyword in ast.parse(str(field.value), mode="eval").body.keywords}
        field.value = ast.unparse(keywords["default"]) if "default" in keywords else None


def _link(name: str, obj: griffe.Object) -> str:
    """A link to a public name, or to a member of the class that speaks of it; another name is code alone."""
    head = name.partition(".")[0]
    if head in recross_hf.__all__:
        return f"[`{name}`][recross_hf.{name}]"
    owner = obj if obj.is_class else obj.parent
    if owner is not None and owner.name in recross_hf.__all__ and name in owner.members:
        return f"[`{name}`][recross_hf.{owner.name}.{name}]"
    return f"`{name}`"
