"""A subset of Go's text/template, enough for chat templates: its syntax. `rendering` gives it its meaning.

Stands: text, comments, trim markers, `if`/`else if`/`else`, `range` (with `$i, $m :=`, `else`, `break`, `continue`),
`with`, variables, `$`, pipelines, parentheses, and the functions below. `define`, `template`, `block` and the rest of
Go's functions do not: they are refused when parsed, in Go's words. Pure; knows nothing of messages or models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn


class TemplateError(Exception):
    """The template cannot be parsed or rendered; the message is Go's."""


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Path:
    """`.A.B`, `$x.A` or `(pipeline).A`: a base and the fields looked up in it."""

    base: str | Pipeline
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Literal:
    value: Any


@dataclass(frozen=True)
class Word:
    """A function's name."""

    name: str


Operand = Path | Literal | Word


@dataclass(frozen=True)
class Pipeline:
    """`$a, $b := command | command`; each command is its operands."""

    commands: tuple[tuple[Operand, ...], ...]
    variables: tuple[str, ...] = ()
    declares: bool = False


@dataclass(frozen=True)
class Action:
    pipeline: Pipeline


@dataclass(frozen=True)
class Branch:
    """`if`, `range` or `with`."""

    keyword: str
    pipeline: Pipeline
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Jump:
    """`break` or `continue`."""

    keyword: str


Node = Text | Action | Branch | Jump

_TOKEN = re.compile(
    r"""(?P<close>\s-\}\}|\}\})
      | (?P<space>\s+)
      | (?P<field>\.[A-Za-z_]\w*)
      | (?P<number>[+-]?\d+(?:\.\d+)?\b)
      | (?P<dot>\.)
      | (?P<variable>\$\w*)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<raw>`[^`]*`)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<sign>:=|[=|(),])""",
    re.VERBOSE,
)
_COMMENT = re.compile(r"/\*.*?\*/(?P<close>\s-\}\}|\}\})", re.DOTALL)
_BLANK = " \t\r\n"
_BRANCHES = ("if", "range", "with")
FUNCTIONS = frozenset(
    ["and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index", "slice", "print", "json"]
)
_CONSTANTS = {"true": True, "false": False, "nil": None}


def parse(source: str) -> tuple[Node, ...]:
    """Parse a template. Raises TemplateError."""
    try:
        return _Parser(_lex(source)).whole()
    except RecursionError:
        raise TemplateError("template: :1: nested too deeply") from None


def names(nodes: Sequence[Node]) -> frozenset[str]:
    """Every field name the template mentions, in lower case."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, Action | Branch):
            found |= _pipeline_names(node.pipeline)
        if isinstance(node, Branch):
            found |= names(node.body) | names(node.otherwise)
    return frozenset(found)


def up_to(nodes: Sequence[Node], field: str) -> tuple[tuple[Node, ...], bool]:
    """The nodes up to the first action that writes `field`, and whether there is one."""
    kept: list[Node] = []
    for node in nodes:
        if isinstance(node, Action) and field.lower() in _pipeline_names(node.pipeline):
            return (*kept, node), True
        if isinstance(node, Branch):
            body, found = up_to(node.body, field)
            otherwise, also = ((), False) if found else up_to(node.otherwise, field)
            kept.append(replace(node, body=body, otherwise=otherwise))
            if found or also:
                return tuple(kept), True
        else:
            kept.append(node)
    return tuple(kept), False


def _pipeline_names(pipeline: Pipeline) -> set[str]:
    found: set[str] = set()
    for operand in (operand for command in pipeline.commands for operand in command):
        if isinstance(operand, Path):
            found.update(field.lower() for field in operand.fields)
            if isinstance(operand.base, Pipeline):
                found |= _pipeline_names(operand.base)
    return found


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int
    spaced: bool = False


def _lex(source: str) -> list[_Token]:
    """Text and the tokens of actions, with the text already trimmed."""
    tokens: list[_Token] = []
    at, trim = 0, False
    while True:
        opening = source.find("{{", at)
        text = source[at:] if opening < 0 else source[at:opening]
        text = text.lstrip(_BLANK) if trim else text
        if opening < 0:
            tokens.append(_Token("text", text, source.count("\n") + 1))
            return tokens
        at = opening + 2
        if source[at : at + 1] == "-" and source[at + 1 : at + 2] in tuple(_BLANK):
            text, at = text.rstrip(_BLANK), at + 1
        tokens.append(_Token("text", text, source.count("\n", 0, opening) + 1))
        at, trim = _lex_action(source, at, tokens)


def _lex_action(source: str, at: int, tokens: list[_Token]) -> tuple[int, bool]:  # noqa: RET503 _fail never returns
    """Add one action's tokens; returns where it ends, and whether the text after it is trimmed."""
    line = source.count("\n", 0, at) + 1
    begin = len(source) - len(source[at:].lstrip(_BLANK))
    if source.startswith("/*", begin):
        comment = _COMMENT.match(source, begin)
        if comment is None:
            _fail(line, "unclosed comment")
        return comment.end(), comment["close"] != "}}"
    spaced = False
    while at < len(source):
        found = _TOKEN.match(source, at)
        if found is None:
            _fail(line, _unknown(source[at]))
        at = found.end()
        kind = str(found.lastgroup)
        if kind == "close":
            tokens.append(_Token("close", "}}", line))
            return at, found.group() != "}}"
        if kind != "space":
            tokens.append(_Token(kind, found.group(), line, spaced))
        spaced = kind == "space"
    _fail(line, "unclosed action")


def _unknown(character: str) -> str:
    quotes = {'"': "unterminated quoted string", "`": "unterminated raw quoted string"}
    return quotes.get(character, f"unrecognized character in action: U+{ord(character):04X} '{character}'")


def _fail(line: int, message: str) -> NoReturn:
    raise TemplateError(f"template: :{line}: {message}")


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens, self._at = tokens, 0
        self._variables = ["$"]
        self._ranges = 0

    def whole(self) -> tuple[Node, ...]:
        nodes, ended_by = self._nodes()
        if ended_by is not None:
            _fail(ended_by.line, f"unexpected {{{{{ended_by.text}}}}}")
        return nodes

    def _nodes(self) -> tuple[tuple[Node, ...], _Token | None]:
        """Nodes up to `end`, `else` or the end of the template; that keyword's token is taken."""
        nodes: list[Node] = []
        while self._at < len(self._tokens):
            token = self._next()
            if token.kind == "text":
                if token.text:
                    nodes.append(Text(token.text))
            elif token.text in ("end", "else") and token.kind == "word":
                return tuple(nodes), token
            else:
                nodes.append(self._action(token))
        return tuple(nodes), None

    def _action(self, token: _Token) -> Node:
        if token.kind == "word" and token.text in _BRANCHES:
            return self._branch(token)
        if token.kind == "word" and token.text in ("break", "continue"):
            if not self._ranges:
                _fail(token.line, f"{{{{{token.text}}}}} outside {{{{range}}}}")
            self._expect_close(token.text)
            return Jump(token.text)
        if token.kind == "word" and token.text in ("define", "template", "block"):
            _fail(token.line, f'unexpected "{token.text}": this engine has no {{{{{token.text}}}}}')
        self._at -= 1
        pipeline = self._pipeline("command")
        self._expect_close("command")
        return Action(pipeline)

    def _branch(self, token: _Token) -> Branch:
        outer = len(self._variables)
        pipeline = self._pipeline(token.text, in_range=token.text == "range")
        self._expect_close(token.text)
        self._ranges += token.text == "range"
        body, ended_by = self._nodes()
        self._ranges -= token.text == "range"
        otherwise: tuple[Node, ...] = ()
        if ended_by is not None and ended_by.text == "else":
            otherwise, ended_by = self._otherwise(token)
        if ended_by is None:
            _fail(self._tokens[-1].line, "unexpected EOF")
        if ended_by.text == "else":
            _fail(ended_by.line, "expected end; found {{else}}")
        if ended_by.kind != "chained":
            self._expect_close("end")
        del self._variables[outer:]
        return Branch(token.text, pipeline, body, otherwise)

    def _otherwise(self, token: _Token) -> tuple[tuple[Node, ...], _Token | None]:
        chained = self._peek()
        if chained is not None and chained.kind == "word" and chained.text == token.text != "range":
            nested = self._branch(self._next())  # `else if` shares the outer `end`
            return (nested,), _Token("chained", "end", token.line)
        self._expect_close("else")
        return self._nodes()

    def _pipeline(self, context: str, *, in_range: bool = False) -> Pipeline:
        variables, declares = self._declaration(in_range)
        commands = [self._command(context)]
        while (token := self._peek()) is not None and token.text == "|" and token.kind == "sign":
            self._next()
            commands.append(self._command(context))
        for later in commands[1:]:
            if not isinstance(later[0], Word):
                _fail(self._line(), "non executable command in pipeline stage 2")
        if declares:
            self._variables += variables
        return Pipeline(tuple(commands), variables, declares)

    def _declaration(self, in_range: bool) -> tuple[tuple[str, ...], bool]:
        """`$x :=`, `$x =` or, in a range, `$i, $x :=`; takes nothing where there is none."""
        start, variables = self._at, []
        while (token := self._peek()) is not None and token.kind == "variable":
            variables.append(self._next().text)
            sign = self._peek()
            if sign is not None and sign.text in (":=", "="):
                self._next()
                for name in variables if sign.text == "=" else ():
                    self._known(name)
                return tuple(variables), sign.text == ":="
            if not (in_range and sign is not None and sign.text == "," and len(variables) == 1):
                break
            self._next()
        self._at = start
        return (), False

    def _command(self, context: str) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        while (token := self._peek()) is not None and token.kind != "close" and token.text not in ("|", ")"):
            operands.append(self._operand(self._next()))
        if not operands:
            _fail(self._line(), f"missing value for {context}")
        if len(operands) > 1 and not isinstance(operands[0], Word):
            _fail(self._line(), "can't give argument to non-function")
        return tuple(operands)

    def _operand(self, token: _Token) -> Operand:
        match token.kind:
            case "field":
                return Path("", (token.text[1:], *self._fields()))
            case "dot":
                return Path("")
            case "variable":
                return Path(self._known(token.text), self._fields())
            case "string":
                return Literal(_unquote(token))
            case "raw":
                return Literal(token.text[1:-1])
            case "number":
                return Literal(float(token.text) if "." in token.text else int(token.text))
            case "word" if token.text in _CONSTANTS:
                return Literal(_CONSTANTS[token.text])
            case "word" if token.text in FUNCTIONS:
                return Word(token.text)
            case "word":
                _fail(token.line, f'function "{token.text}" not defined')
        if token.text == "(":
            inner = self._pipeline("parenthesized pipeline")
            closing = self._peek()
            if closing is None or closing.text != ")":
                _fail(token.line, "unclosed left paren")
            self._next()
            return Path(inner, self._fields())
        _fail(token.line, f'unexpected "{token.text}" in operand')

    def _fields(self) -> tuple[str, ...]:
        fields = []
        while (token := self._peek()) is not None and token.kind == "field" and not token.spaced:
            fields.append(self._next().text[1:])
        return tuple(fields)

    def _known(self, variable: str) -> str:
        if variable not in self._variables:
            _fail(self._line(), f'undefined variable "{variable}"')
        return variable

    def _expect_close(self, context: str) -> None:
        token = self._next()
        if token.kind != "close":
            _fail(token.line, f'unexpected "{token.text}" in {context}')

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _line(self) -> int:
        return self._tokens[min(self._at, len(self._tokens) - 1)].line


def _unquote(token: _Token) -> str:
    try:
        return str(json.loads(token.text))
    except json.JSONDecodeError:
        _fail(token.line, f"invalid syntax in the string {token.text}")
