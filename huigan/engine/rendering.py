"""What a parsed template means: renders it with a mapping of values. Pure; knows nothing of messages or models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from huigan.engine.template import (
    FUNCTIONS,
    Action,
    Branch,
    Jump,
    Literal,
    Node,
    Operand,
    Path,
    Pipeline,
    TemplateError,
    Text,
    Word,
)


def render(nodes: Sequence[Node], values: Mapping[str, Any]) -> str:
    """Render with `values` as the dot and as `$`. Raises TemplateError."""
    output = _Output(values)
    try:
        output.run(nodes, values)
    except _Jumped:
        raise TemplateError("template: :1: break or continue outside of range") from None
    except RecursionError:
        raise TemplateError("template: nested too deeply") from None
    return "".join(output.pieces)


class _Jumped(Exception):
    def __init__(self, keyword: str) -> None:
        super().__init__(keyword)
        self.keyword = keyword


class _Output:
    """The text so far, and the variables in scope."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.pieces: list[str] = []
        self._scope: list[tuple[str, Any]] = [("$", values)]

    def run(self, nodes: Sequence[Node], dot: Any) -> None:
        outer = len(self._scope)
        for node in nodes:
            match node:
                case Text(text):
                    self.pieces.append(text)
                case Action(pipeline):
                    value = self._value(pipeline, dot)
                    if pipeline.variables:
                        self._bind(pipeline, [value])
                    else:
                        self.pieces.append(_written(value))
                case Jump(keyword):
                    raise _Jumped(keyword)
                case Branch():
                    self._branch(node, dot)
        del self._scope[outer:]

    def _branch(self, node: Branch, dot: Any) -> None:
        outer = len(self._scope)
        value = self._value(node.pipeline, dot)
        if node.keyword == "range":
            self._range(node, value, dot)
        else:
            if node.pipeline.variables:
                self._bind(node.pipeline, [value])
            if _true(value):
                self.run(node.body, value if node.keyword == "with" else dot)
            else:
                self.run(node.otherwise, dot)
        del self._scope[outer:]

    def _range(self, node: Branch, value: Any, dot: Any) -> None:
        outer, pairs = len(self._scope), _pairs(value)
        for key, item in pairs:
            if node.pipeline.variables:
                self._bind(node.pipeline, [key, item] if len(node.pipeline.variables) == 2 else [item])
            try:
                self.run(node.body, item)
            except _Jumped as jump:
                if jump.keyword == "break":
                    break
            if node.pipeline.declares:
                del self._scope[outer:]
        if not pairs:
            self.run(node.otherwise, dot)

    def _bind(self, pipeline: Pipeline, values: Sequence[Any]) -> None:
        for name, value in zip(pipeline.variables, values, strict=True):
            if pipeline.declares:
                self._scope.append((name, value))
            else:
                at = max(index for index, (known, _) in enumerate(self._scope) if known == name)
                self._scope[at] = (name, value)

    def _value(self, pipeline: Pipeline, dot: Any) -> Any:
        piped: list[Any] = []
        for command in pipeline.commands:
            piped = [self._command(command, piped, dot)]
        return piped[0]

    def _command(self, command: tuple[Operand, ...], piped: list[Any], dot: Any) -> Any:
        first, *rest = command
        if not isinstance(first, Word):
            return self._operand(first, dot)
        if first.name in ("and", "or"):
            return self._choice(first.name, rest, piped, dot)
        return _call(first.name, [*(self._operand(operand, dot) for operand in rest), *piped])

    def _choice(self, name: str, rest: Sequence[Operand], piped: list[Any], dot: Any) -> Any:
        """`and` and `or` give back one of their arguments, and look no further than they must."""
        value: Any = None
        for value in (*(self._operand(operand, dot) for operand in rest), *piped):
            if _true(value) == (name == "or"):
                return value
        return value

    def _operand(self, operand: Operand, dot: Any) -> Any:
        match operand:
            case Literal(value):
                return value
            case Word(name):
                return _call(name, [])
            case Path(base, fields):
                value = dot if base == "" else self._base(base, dot)
                for field in fields:
                    value = _field(value, field)
                return value

    def _base(self, base: str | Pipeline, dot: Any) -> Any:
        if isinstance(base, Pipeline):
            return self._value(base, dot)
        return next(value for name, value in reversed(self._scope) if name == base)


def _field(value: Any, field: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(field)
    if value is None:
        raise TemplateError(f"template: :1: nil data; no entry for key {field!r}")
    raise TemplateError(f"template: :1: can't evaluate field {field} in type {_kind(value)}")


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if value is None:
        return []
    if isinstance(value, bool) or not isinstance(value, int | list | tuple | Mapping):
        raise TemplateError(f"template: :1: range can't iterate over {_written(value)}")
    if isinstance(value, int):
        return [(number, number) for number in range(value)]
    return sorted(value.items()) if isinstance(value, Mapping) else list(enumerate(value))


def _true(value: Any) -> bool:
    return bool(value)


def _written(value: Any) -> str:
    match value:
        case str():
            return value
        case None:
            return "<no value>"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{' '.join(_written(item) for item in value)}]"
    return str(value)


def _kind(value: Any) -> str:
    return {bool: "bool", str: "string", int: "int", float: "float64", list: "[]interface {}"}.get(type(value), "value")


def _call(name: str, values: list[Any]) -> Any:
    function, least, most = _FUNCTIONS[name]
    if not least <= len(values) <= most:
        raise TemplateError(f"template: :1: wrong number of args for {name}: want {least} got {len(values)}")
    try:
        return function(*values)
    except (TypeError, IndexError, KeyError, ValueError) as error:
        raise TemplateError(f"template: :1: error calling {name}: {error}") from None


def _equal(value: Any, *others: Any) -> bool:
    return any(type(value) is type(other) and value == other for other in others)


def _length(value: Any) -> int:
    return len(value.encode()) if isinstance(value, str) else len(value)  # Go counts a string's bytes


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(key, int) and key < 0:
            raise IndexError(f"index out of range: {key}")
        value = value[key]
    return value


def _slice(value: Any, *bounds: int) -> Any:
    start, stop = (*bounds, *(0, len(value))[len(bounds) :])
    if not 0 <= start <= stop <= len(value):
        raise IndexError(f"index out of range: {max(start, stop)}")
    return value[start:stop]


_ANY = 1 << 10
_FUNCTIONS: Mapping[str, tuple[Callable[..., Any], int, int]] = {
    "eq": (_equal, 2, _ANY),
    "ne": (lambda a, b: not _equal(a, b), 2, 2),
    "lt": (lambda a, b: a < b, 2, 2),
    "le": (lambda a, b: a <= b, 2, 2),
    "gt": (lambda a, b: a > b, 2, 2),
    "ge": (lambda a, b: a >= b, 2, 2),
    "not": (lambda value: not _true(value), 1, 1),
    "len": (_length, 1, 1),
    "index": (_index, 1, _ANY),
    "slice": (_slice, 1, 3),
    "print": (lambda *values: "".join(map(_written, values)), 0, _ANY),
    "json": (lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")), 1, 1),
}
assert {"and", "or", *_FUNCTIONS} == FUNCTIONS
