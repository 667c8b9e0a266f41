"""A Jinja environment for templates that are data: none of their code runs, and what they can use up is bounded.

Templates may use what text needs: conditions, loops, the filters and methods named here. Loops, the size of values and
of the output are charged to a budget for each rendering and not to a clock: a hostile template ends in an error after
the same steps on every machine.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextvars import ContextVar
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.filters import (
    do_batch,
    do_indent,
    do_int,
    do_join,
    do_replace,
    do_round,
    do_title,
    do_tojson,
    do_wordcount,
    make_attrgetter,
    pass_environment,
    pass_eval_context,
)
from jinja2.runtime import LoopContext
from jinja2.sandbox import SandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer
from markupsafe import soft_str

MAX_STEPS = 1_000_000
MAX_CHARACTERS = 1_000_000

_NODES = (
    *(nodes.Template, nodes.TemplateData, nodes.Output, nodes.Name, nodes.NSRef, nodes.Const, nodes.Assign),
    *(nodes.AssignBlock, nodes.With),
    *(nodes.If, nodes.For, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Keyword),
    *(nodes.Getitem, nodes.Getattr, nodes.Slice, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Concat),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos),
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod),
)
_FILTERS = {
    *("abs", "batch", "capitalize", "choice", "count", "d", "default", "e", "escape", "first", "float", "format"),
    *("indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "most_frequent"),
    *("random", "reject", "rejectattr", "replace", "reverse", "round", "select", "selectattr", "sort", "string"),
    *("sum", "title", "tojson", "trim", "truncate", "unique", "upper", "wordcount"),
}
_UNCHARGED = {"d", "default", "truncate"}  # do not go through the value
_BY_ITEM = {  # go through a text character by character
    *("batch", "list", "map", "max", "min", "most_frequent", "reject", "rejectattr", "select", "selectattr", "sort"),
    *("sum", "unique"),
}
_TESTS = {
    *("boolean", "defined", "divisibleby", "eq", "equalto", "even", "false", "float", "ge", "greaterthan", "gt"),
    *("integer", "iterable", "le", "lessthan", "lower", "lt", "mapping", "ne", "none", "number", "odd", "sequence"),
    *("string", "true", "undefined", "upper", "==", "!=", "<", "<=", ">", ">="),
}
_FUNCTIONS = ("dict", "namespace", "range", "zip")
_METHODS = {
    *("append", "capitalize", "count", "cycle", "endswith", "find", "get", "index", "isdigit", "items", "join"),
    *("keys", "lower", "lstrip", "pop", "removeprefix", "removesuffix", "replace", "rstrip", "split", "splitlines"),
    *("startswith", "strip", "swapcase", "update", "upper", "values"),
}


class PromptError(ValueError):
    """A template that cannot be read, uses what is not allowed, or cannot be rendered for an example."""


class PromptBudgetError(PromptError):
    """A template that takes more steps or makes more text than it may: it would on any row."""


class _Budget:
    def __init__(self, rng: random.Random) -> None:
        self.steps = MAX_STEPS
        self.length = 0  # of what blocks make
        self.rng = rng

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise PromptBudgetError(f"the template takes more than {MAX_STEPS:,} steps: an endless loop?")


_budget: ContextVar[_Budget] = ContextVar("budget")


def render(template: Template, values: dict[str, Any], rng: random.Random) -> str:
    """Renders a template of [`ENVIRONMENT`].

    Args:
        rng: what the filters `choice` and `random` draw from.

    Raises:
        PromptError: the template fails on these values, or uses up too much.
    """
    token = _budget.set(_Budget(rng))
    try:
        parts, length = [], 0
        for part in template.generate(values):
            parts.append(part)
            length += len(part)
            _check_length(length)
        return "".join(parts)
    except PromptError:
        raise
    except (RecursionError, MemoryError):
        raise PromptError("the template's values are too large") from None
    except (
        *(TemplateError, ArithmeticError, AttributeError, LookupError),
        *(RuntimeError, TypeError, ValueError),
    ) as error:
        raise PromptError(f"{type(error).__name__}: {error}") from error
    finally:
        _budget.reset(token)


# ---- the limits ------------------------------------------------------------------------------------------------------


def _check_length(length: int) -> None:
    if length > MAX_CHARACTERS:
        raise PromptBudgetError(f"the template makes more than {MAX_CHARACTERS:,} characters")


def _bounded(value: Any) -> Any:
    """The value, if it is not too large; its size is charged to the budget."""
    if isinstance(value, str):
        _check_length(len(value))
        _budget.get().spend(len(value) // 1000)
    elif isinstance(value, int):
        if abs(value) > 10**30:
            raise PromptError("the template makes a number of more than 30 digits")
    elif isinstance(value, (list, tuple, dict)):
        spend = _budget.get().spend
        pending: list[Any] = [value]
        while pending:
            # What is inside is counted as often as it is reached, as printing or comparing would reach it.
            item = pending.pop()
            inner = [*item.keys(), *item.values()] if isinstance(item, dict) else item
            spend(1 + len(inner) + sum(len(part) // 16 for part in inner if isinstance(part, str)))
            pending += [part for part in inner if isinstance(part, (list, tuple, dict))]
    return value


def _charged(value: Any) -> Any:
    """A value that is gone through, by a filter, a method or a comparison; its size is charged to the budget."""
    if isinstance(value, Iterator):
        return _counted(value)
    if isinstance(value, Sized) and not isinstance(value, (str, list, tuple, dict)):
        _budget.get().spend(len(value))
    return _bounded(value)


def _itemized(value: Any) -> Any:
    """As `_charged`, where a text is gone through character by character."""
    if isinstance(value, str):
        _budget.get().spend(len(value))
    return _charged(value)


def _written(value: Any) -> str:
    """What a block prints, as text; all blocks of a rendering may make as much together as the whole template."""
    budget = _budget.get()
    text = soft_str(_bounded(value))
    budget.length += len(text)
    _check_length(budget.length)
    return text


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    spend = _budget.get().spend
    for item in items:
        spend(1)
        yield item


def _check_join(separator: str, items: Sequence[Any]) -> None:
    _check_length(len(separator) * len(items) + sum(len(item) for item in items if isinstance(item, str)))


def _check_replace(text: str, old: str, new: str) -> None:
    _check_length(len(text) + text.count(old) * max(0, len(new) - len(old)))


# ---- filters ---------------------------------------------------------------------------------------------------------


def _choice(items: Sequence[Any]) -> Any:
    return _budget.get().rng.choice(items)


def _random(items: Sequence[Any]) -> Any:
    return _choice(items) if items else ENVIRONMENT.undefined("No random item, sequence was empty.")


def _int(value: Any, default: int = 0, base: int = 10) -> int:
    return _bounded(do_int(value, default, base))


def _round(value: float, precision: int = 0, method: str = "common") -> float:
    if abs(precision) > 30:
        raise PromptError("the template rounds to more than 30 digits")
    return do_round(value, precision, method)


def _zip(*columns: Iterable[Any]) -> list[tuple[Any, ...]]:
    return list(zip(*map(_counted, columns), strict=False))


class _PromptNamespace(Namespace):
    """A namespace of plain values: one in another could grow out of sight."""

    # No method of its own: a namespace looks all its attributes up among its values.
    def __init__(self, **values: Any) -> None:
        super().__init__(**{name: _plain(value) for name, value in values.items()})

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, _plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Namespace):
        raise PromptError("a namespace within another is not allowed in a template")
    return _bounded(value)


def _most_frequent(items: Sequence[Any]) -> list[Any] | None:
    if not items:
        return None
    counts = Counter(items).most_common()
    return [item for item, count in counts if count == counts[0][1]]


@pass_eval_context
def _join(eval_ctx: Any, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    items = list(_counted(value))
    _bounded(items)
    _check_join(str(d), items)
    return _bounded(do_join(eval_ctx, items, d, attribute))


@pass_eval_context
def _replace(eval_ctx: Any, s: str, old: str, new: str, count: int | None = None) -> str:
    _check_replace(str(s), str(old), str(new))
    return do_replace(eval_ctx, s, old, new, count)


def _format(value: str, *args: Any, **kwargs: Any) -> str:
    return _formatted(value, kwargs or args)


def _formatted(text: str, values: Any) -> str:
    """The operator `%`."""
    text = soft_str(_bounded(text))
    if re.search(r"%\((?![^()%]{0,100}\))", text):
        raise PromptError("the template formats with a key that is no plain name")
    if re.search(r"%(\([^()%]{0,100}\))?[^a-zA-Z%]*(\d{4}|\*)", text):
        raise PromptError("the template formats with a width of more than three digits")
    _bounded(values)
    parts = values if isinstance(values, tuple) else [values]
    if isinstance(values, dict):
        parts = [values, *values.values()]
    longest = max((len(soft_str(part)) for part in parts), default=0)
    _check_length(len(text) + text.count("%") * max(2000, longest))  # a width and a precision of three digits
    return _bounded(text % values)


@pass_environment
def _sum(environment: Any, iterable: Iterable[Any], attribute: str | int | None = None, start: float = 0) -> float:
    values = list(_counted(iterable))
    if attribute is not None:
        values = [make_attrgetter(environment, attribute)(value) for value in values]
    if not all(isinstance(value, (int, float)) for value in (start, *values)):
        raise PromptError("the template adds up what is no number")
    return _bounded(sum(map(_bounded, values), start))


def _batch(value: Iterable[Any], linecount: int, fill_with: Any = None) -> list[list[Any]]:
    items = list(_counted(value))
    if fill_with is not None:
        _budget.get().spend(max(0, linecount))
    return _bounded(list(do_batch(items, linecount, fill_with)))


def _indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    by = len(width) if isinstance(width, str) else width
    _check_length(len(s) + (1 + len(s.splitlines())) * by)
    return _bounded(do_indent(s, width, first, blank))


@pass_eval_context
def _tojson(eval_ctx: Any, value: Any) -> str:
    return _bounded(do_tojson(eval_ctx, value))


def _title(s: str) -> str:
    return do_title(_by_words(s))


def _wordcount(s: str) -> int:
    return do_wordcount(_by_words(s))


def _by_words(value: Any) -> str:
    """The text, charged for a way through it that is slow."""
    text = soft_str(_bounded(value))
    _budget.get().spend(len(text) // 16)
    return text


# ---- the environment -------------------------------------------------------------------------------------------------


class _Bounding(NodeTransformer):
    """Puts the limits around what is looped over, around values that can grow and around what blocks print."""

    _blocks = 0  # around the node that is visited

    def _wrapped(self, node: nodes.Expr, name: str) -> nodes.Filter:
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


class _PromptEnvironment(SandboxedEnvironment):
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for node in tree.find_all(nodes.Node):
            if refused := _refused(node):
                raise PromptError(f"line {node.lineno}: {refused} is not allowed in a template")
        return _Bounding().visit(tree)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            return _formatted(left, right)
        _bounded(left)
        _bounded(right)
        if operator == "*":
            for items, number in ((left, right), (right, left)):
                if isinstance(items, (list, tuple)) and isinstance(number, int):
                    _budget.get().spend(max(0, len(items) * number))
                elif isinstance(items, str) and isinstance(number, int):
                    _check_length(len(items) * number)
        return _bounded(super().call_binop(context, operator, left, right))

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        # Decided by what is called and not by its name in the text, which can be another's.
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if type(owner) in (str, list, dict, tuple) and name in _METHODS:
            _charged(owner if name not in _CONSTANT_TIME else None)
        elif not (isinstance(owner, LoopContext) and name == "cycle") and not any(
            obj is self.globals[function] for function in _FUNCTIONS
        ):
            raise PromptError(f"a call of {name or type(obj).__name__!r} is not allowed in a template")
        for value in (*args, *kwargs.values()):
            _bounded(value)
        if type(owner) is str and name == "join" and len(args) == 1:
            args = (_bounded(list(_counted(args[0]))),)
            _check_join(owner, args[0])
        elif type(owner) is str and name == "replace" and len(args) > 1:
            _check_replace(owner, *args[:2])
        result = super().call(context, obj, *args, **kwargs)
        # Views could hide what is in them.
        return _bounded(list(result) if type(result) in _VIEWS else result)


def _refused(node: nodes.Node) -> str | None:
    """What a template must not use, if this is it; None if it is allowed."""
    if not isinstance(node, _NODES):
        return f"{type(node).__name__.lower()!r}"
    if isinstance(node, nodes.For) and node.recursive:
        return "a recursive loop"
    if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
        return f"the filter {node.name!r}"
    if isinstance(node, nodes.Test) and node.name not in _TESTS:
        return f"the test {node.name!r}"
    if isinstance(node, nodes.Call):
        if isinstance(node.node, nodes.Getattr):
            return None if node.node.attr in _METHODS else f"the method {node.node.attr!r}"
        name = node.node.name if isinstance(node.node, nodes.Name) else "an expression"
        return None if name in _FUNCTIONS else f"a call of {name}"
    return None


ENVIRONMENT = _PromptEnvironment(optimized=False)  # nothing is computed while a template is read, without a budget
ENVIRONMENT.globals = {name: ENVIRONMENT.globals.get(name) for name in _FUNCTIONS} | {
    "namespace": _PromptNamespace,
    "zip": _zip,
}
ENVIRONMENT.tests = {name: ENVIRONMENT.tests[name] for name in _TESTS}
ENVIRONMENT.filters = {name: ENVIRONMENT.filters[name] for name in _FILTERS - {"choice", "most_frequent"}} | {
    **{"choice": _choice, "random": _random, "most_frequent": _most_frequent},
    **{"int": _int, "round": _round, "join": _join, "replace": _replace, "format": _format},
    **{"batch": _batch, "indent": _indent, "sum": _sum, "title": _title, "tojson": _tojson, "wordcount": _wordcount},
    **{"_bounded": _bounded, "_charged": _charged, "_counted": _counted, "_itemized": _itemized, "_written": _written},
}
