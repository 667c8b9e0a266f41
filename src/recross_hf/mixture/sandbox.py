"""A Jinja environment for templates that are data: none of their code runs, and a budget bounds what they can use up.

Templates may use what text needs: conditions, loops, and the filters, tests, functions and methods that are named here and in
`sandbox_filters`. The code that Jinja makes of a template is bounded by `sandbox_budget`.
"""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.runtime import LoopContext
from jinja2.sandbox import SandboxedEnvironment
from jinja2.visitor import NodeTransformer

from .sandbox_budget import (
    PromptError,
    bounded,
    charged,
    check_join,
    check_length,
    check_replace,
    counted,
    itemized,
    spend,
    written,
)
from .sandbox_filters import FILTERS, FUNCTIONS, TESTS, formatted

_NODES = (
    *(nodes.Template, nodes.TemplateData, nodes.Output, nodes.Name, nodes.NSRef, nodes.Const, nodes.Assign),
    *(nodes.AssignBlock, nodes.With),
    *(nodes.If, nodes.For, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Keyword),
    *(nodes.Getitem, nodes.Getattr, nodes.Slice, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Concat),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos),
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod),
)
_UNCHARGED = {"d", "default", "truncate"}  # do not go through the value
_BY_ITEM = {  # go through a text character by character
    *("batch", "list", "map", "max", "min", "most_frequent", "reject", "rejectattr", "select", "selectattr", "sort"),
    *("sum", "unique"),
}
_METHODS = {
    *("append", "capitalize", "count", "cycle", "endswith", "find", "get", "index", "isdigit", "items", "join"),
    *("keys", "lower", "lstrip", "pop", "removeprefix", "removesuffix", "replace", "rstrip", "split", "splitlines"),
    *("startswith", "strip", "swapcase", "update", "upper", "values"),
}


class _Bounding(NodeTransformer):
    """Puts the limits around loops, around values that can grow and around the text that blocks print."""

    _blocks = 0  # around the node that is visited

    def _wrapped(self, node: Any, name: str) -> nodes.Filter:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno, environment=node.environment)

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = self._wrapped(node.iter, "_counted")
        return node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.AssignBlock:
        self._blocks += 1
        self.generic_visit(node)
        self._blocks -= 1
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Output:
        self.generic_visit(node)
        if self._blocks:
            node.nodes = [self._wrapped(self._as_value(part), "_written") for part in node.nodes]
        return node

    def _as_value(self, node: nodes.Expr) -> nodes.Expr:
        if isinstance(node, nodes.TemplateData):
            return nodes.Const(node.data, lineno=node.lineno, environment=node.environment)
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Filter:
        self.generic_visit(node)
        if node.node is not None and node.name not in _UNCHARGED:
            node.node = self._wrapped(node.node, "_itemized" if node.name in _BY_ITEM else "_charged")
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Test:
        self.generic_visit(node)
        if node.name not in ("defined", "undefined"):
            node.node = self._wrapped(node.node, "_charged")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Getitem:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = self._wrapped(node.node, "_charged")
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        self.generic_visit(node)
        node.expr = self._wrapped(node.expr, "_charged")
        for operand in node.ops:
            operand.expr = self._wrapped(operand.expr, "_charged")
        return node

    def _visit_growing(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        # A target of an assignment (`{% for a, b in ... %}`) is a tuple, too.
        return node if getattr(node, "ctx", "load") != "load" else self._wrapped(node, "_bounded")

    visit_Concat = visit_List = visit_Tuple = visit_Dict = _visit_growing


_CONSTANT_TIME = {"append", "get", "pop"}
_VIEWS = tuple(type(getattr({}, name)()) for name in ("keys", "values", "items"))


class _SandboxedEnvironment(SandboxedEnvironment):
    """An environment that refuses what is not named, and charges operators and calls to the budget."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%"})

    def compile(self, source: Any, name: str | None = None, filename: str | None = None, *args: Any) -> Any:
        # The base class would parse a text by a method of its own.
        tree = self.parse(source, name, filename) if isinstance(source, str) else source
        return super().compile(tree, name, filename, *args)

    def parse(self, source: str, name: str | None = None, filename: str | None = None) -> nodes.Template:
        tree = super().parse(source, name, filename)
        for node in tree.find_all(nodes.Node):
            if refused := _refused(node):
                raise PromptError(f"line {node.lineno}: {refused} is not allowed in a template")
        return _Bounding().visit(tree)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            return formatted(left, right)
        bounded(left)
        bounded(right)
        if operator == "*":
            for items, number in ((left, right), (right, left)):
                if isinstance(items, (list, tuple)) and isinstance(number, int):
                    spend(max(0, len(items) * number))
                elif isinstance(items, str) and isinstance(number, int):
                    check_length(len(items) * number)
        return bounded(super().call_binop(context, operator, left, right))

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        # Decided by what is called and not by its name in the text, which can be another's.
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if type(owner) in (str, list, dict, tuple) and name in _METHODS:
            charged(owner if name not in _CONSTANT_TIME else None)
        elif not (isinstance(owner, LoopContext) and name == "cycle") and not any(
            obj is self.globals[function] for function in FUNCTIONS
        ):
            raise PromptError(f"a call of {name or type(obj).__name__!r} is not allowed in a template")
        for value in (*args, *kwargs.values()):
            bounded(value)
        if type(owner) is str and name == "join" and len(args) == 1:
            args = (bounded(list(counted(args[0]))),)
            check_join(owner, args[0])
        elif type(owner) is str and name == "replace" and len(args) > 1:
            check_replace(owner, *args[:2])
        result = super().call(context, obj, *args, **kwargs)
        # Views could hide what is in them.
        return bounded(list(result) if type(result) in _VIEWS else result)


def _refused(node: nodes.Node) -> str | None:
    """The name of a thing that no template may use, where the node is one; None where it is allowed."""
    if not isinstance(node, _NODES):
        return f"{type(node).__name__.lower()!r}"
    if isinstance(node, nodes.For) and node.recursive:
        return "a recursive loop"
    if isinstance(node, nodes.Filter) and node.name not in FILTERS:
        return f"the filter {node.name!r}"
    if isinstance(node, nodes.Test) and node.name not in TESTS:
        return f"the test {node.name!r}"
    if isinstance(node, nodes.Call):
        if isinstance(node.node, nodes.Getattr):
            return None if node.node.attr in _METHODS else f"the method {node.node.attr!r}"
        name = node.node.name if isinstance(node.node, nodes.Name) else "an expression"
        return None if name in FUNCTIONS else f"a call of {name}"
    return None


ENVIRONMENT = _SandboxedEnvironment(optimized=False)  # nothing is computed while a template is read, without a budget
"""The environment that all templates are compiled in."""
ENVIRONMENT.globals = dict(FUNCTIONS)
ENVIRONMENT.tests = dict(TESTS)
# The limits go by names that no template may use.
_LIMITS = {"_bounded": bounded, "_charged": charged, "_counted": counted, "_itemized": itemized, "_written": written}
ENVIRONMENT.filters = FILTERS | _LIMITS
