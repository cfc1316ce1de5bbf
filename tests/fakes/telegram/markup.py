"""HTML, MarkdownV2 and Markdown to text and entities, refusing what Telegram's parser refuses, in its words and with
its byte offsets. Custom emoji and date entities are not told apart from their text. Knows no message."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from .entities import Entity, utf16_length
from .refusals import Refusal, bad_request

_HTML_KINDS = {
    "b": "bold", "strong": "bold", "i": "italic", "em": "italic", "u": "underline", "ins": "underline",
    "s": "strikethrough", "strike": "strikethrough", "del": "strikethrough", "tg-spoiler": "spoiler",
    "span": "spoiler", "a": "text_link", "code": "code", "pre": "pre", "blockquote": "blockquote",
    "tg-emoji": "custom_emoji",
}  # fmt: skip
_NAMED_CHARACTERS = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
_RESERVED = "_*[]()~`>#+-=|{}.!"
_MARKDOWN_NAMES = {
    "bold": "Bold", "italic": "Italic", "underline": "Underline", "strikethrough": "Strikethrough",
    "spoiler": "Spoiler", "code": "Code", "pre": "Pre", "text_link": "TextUrl", "custom_emoji": "CustomEmoji",
}  # fmt: skip


def parse_markup(source: str, mode: str) -> tuple[str, list[Entity]]:
    parsers: dict[str, Callable[[str], tuple[str, list[Entity]]]] = {
        "": lambda text: (text, []),
        "html": parse_html,
        "markdownv2": parse_markdown_v2,
        "markdown": parse_markdown,
    }
    if mode.lower() not in parsers:
        raise bad_request("unsupported parse_mode")
    return parsers[mode.lower()](source)


def _cant_parse(reason: str) -> Refusal:
    return bad_request(f"can't parse entities: {reason}")


@dataclass
class _Open:
    kind: str
    tag: str
    begin: int  # UTF-16 offset in the text so far
    byte: int  # byte offset in the source
    attributes: dict[str, str] = field(default_factory=dict)


class _Written:
    """The plain text so far and its entities."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.text = ""
        self.entities: list[Entity] = []
        self.open: list[_Open] = []

    def byte(self, index: int) -> int:
        return len(self.source[:index].encode())

    def begin(self, kind: str, tag: str, index: int, attributes: dict[str, str] | None = None) -> None:
        self.open.append(_Open(kind, tag, utf16_length(self.text), self.byte(index), attributes or {}))

    def end(self, extra: dict[str, str] | None = None) -> None:
        opened = self.open.pop()
        length = utf16_length(self.text) - opened.begin
        if length and opened.kind != "custom_emoji":
            entity = {"type": opened.kind, "offset": opened.begin, "length": length, **(extra or {})}
            self.entities.append(entity)

    def done(self) -> tuple[str, list[Entity]]:
        return self.text, sorted(self.entities, key=lambda each: (each["offset"], -each["length"]))


# HTML


def parse_html(source: str) -> tuple[str, list[Entity]]:
    written, index = _Written(source), 0
    while index < len(source):
        if source[index] == "&":
            character, index = _character(source, index)
            written.text += character
        elif source[index] != "<":
            written.text += source[index]
            index += 1
        elif source[index + 1 : index + 2] == "/":
            index = _end_tag(written, index)
        else:
            index = _start_tag(written, index)
    if written.open:
        raise _cant_parse(f'Can\'t find end tag corresponding to start tag "{written.open[-1].tag}"')
    return written.done()


def _character(source: str, index: int) -> tuple[str, int]:
    """The character that a reference at `index` stands for; what is no reference stays as it is."""
    found = re.compile(r"&(?:#(?:x([0-9a-fA-F]+)|([0-9]+))|(\w+));?").match(source, index)
    if not found:
        return "&", index + 1
    hexadecimal, decimal, name = found.groups()
    if name:
        return (_NAMED_CHARACTERS[name], found.end()) if name in _NAMED_CHARACTERS else ("&", index + 1)
    code = int(hexadecimal, 16) if hexadecimal else int(decimal)
    is_character = 0 < code < 0x110000 and not 0xD800 <= code < 0xE000
    return (chr(code), found.end()) if is_character else ("&", index + 1)


def _word_end(source: str, index: int, stops: str = ">") -> int:
    while index < len(source) and not source[index].isspace() and source[index] not in stops:
        index += 1
    return index


def _skip_space(source: str, index: int) -> int:
    while index < len(source) and source[index].isspace():
        index += 1
    return index


def _start_tag(written: _Written, index: int) -> int:
    source, at = written.source, written.byte(index)
    name_end = _word_end(source, index + 1)
    if name_end == len(source):
        raise _cant_parse(f"Unclosed start tag at byte offset {at}")
    tag = source[index + 1 : name_end].lower()
    if tag not in _HTML_KINDS:
        raise _cant_parse(f'Unsupported start tag "{tag}" at byte offset {at}')
    attributes, end = _attributes(written, name_end, tag, at)
    if tag == "span" and attributes.get("class") != "tg-spoiler":
        raise _cant_parse(f'Tag "span" must have class "tg-spoiler" at byte offset {at}')
    kind = "expandable_blockquote" if tag == "blockquote" and "expandable" in attributes else _HTML_KINDS[tag]
    written.begin(kind, tag, index, attributes)
    return end


def _attributes(written: _Written, index: int, tag: str, at: int) -> tuple[dict[str, str], int]:
    source, attributes = written.source, dict[str, str]()
    while True:
        index = _skip_space(source, index)
        if index >= len(source):
            raise _cant_parse(f"Unclosed start tag at byte offset {at}")
        if source[index] == ">":
            return attributes, index + 1
        name_end = _word_end(source, index, ">=")
        name = source[index:name_end].lower()
        if not name:
            raise _cant_parse(f'Empty attribute name in the tag "{tag}" at byte offset {at}')
        index = _skip_space(source, name_end)
        if index >= len(source):
            raise _cant_parse(f'Unclosed start tag "{tag}" at byte offset {at}')
        if source[index] != "=":
            attributes[name] = ""
            continue
        attributes[name], index = _attribute_value(written, _skip_space(source, index + 1), tag, at)


def _attribute_value(written: _Written, index: int, tag: str, at: int) -> tuple[str, int]:
    source = written.source
    if index >= len(source):
        raise _cant_parse(f'Unclosed start tag "{tag}" at byte offset {at}')
    if source[index] not in "\"'":
        token = re.compile(r"[A-Za-z0-9.\-]*").match(source, index)
        assert token is not None
        if token.end() >= len(source) or not (source[token.end()].isspace() or source[token.end()] == ">"):
            raise _cant_parse(f"Unexpected end of name token at byte offset {written.byte(index)}")
        return token.group().lower(), token.end()
    quote, value, index = source[index], "", index + 1
    while index < len(source) and source[index] != quote:
        character, index = _character(source, index) if source[index] == "&" else (source[index], index + 1)
        value += character
    if index >= len(source):
        raise _cant_parse(f"Unclosed start tag at byte offset {at}")
    return value, index + 1


def _end_tag(written: _Written, index: int) -> int:
    source, at = written.source, written.byte(index)
    if not written.open:
        raise _cant_parse(f"Unexpected end tag at byte offset {at}")
    name_end = _word_end(source, index + 2)
    found, end, opened = source[index + 2 : name_end].lower(), _skip_space(source, name_end), written.open[-1]
    if source[end : end + 1] != ">":
        raise _cant_parse(f"Unclosed end tag at byte offset {at}")
    if found and found != opened.tag:
        raise _cant_parse(f'Unmatched end tag at byte offset {at}, expected "</{opened.tag}>", found "</{found}>"')
    _end_html_entity(written, opened)
    return end + 1


def _end_html_entity(written: _Written, opened: _Open) -> None:
    if opened.kind == "text_link":
        url = opened.attributes.get("href") or written.text.encode("utf-16-le")[opened.begin * 2 :].decode("utf-16-le")
        written.end({"url": url})
    elif opened.kind == "code" and opened.attributes.get("class", "").startswith("language-"):
        written.end({"language": opened.attributes["class"].removeprefix("language-")})
    elif opened.kind == "pre":
        written.end(_language_of_inner_code(written, opened))
    else:
        written.end()
    if opened.kind == "code" and not (written.open and written.open[-1].kind == "pre"):
        for entity in written.entities[-1:]:
            entity.pop("language", None)


def _language_of_inner_code(written: _Written, opened: _Open) -> dict[str, str]:
    """`<pre><code class="language-x">` is one entity, not two."""
    inner = written.entities[-1] if written.entities else {}
    if not inner.get("language") or inner["type"] != "code" or inner["offset"] != opened.begin:
        return {}
    written.entities.pop()
    return {"language": inner["language"]}


# MarkdownV2


def parse_markdown_v2(source: str) -> tuple[str, list[Entity]]:
    written, index = _Written(source), 0
    while index < len(source):
        index = _markdown_step(written, index)
    while written.open and written.open[-1].kind.endswith("blockquote"):
        written.end()
    if written.open:
        opened = written.open[-1]
        raise _cant_parse(f"Can't find end of {_MARKDOWN_NAMES[opened.kind]} entity at byte offset {opened.byte}")
    return written.done()


def _markdown_step(written: _Written, index: int) -> int:
    source, character = written.source, written.source[index]
    following = source[index + 1 : index + 2]
    inside = written.open[-1].kind if written.open else ""
    if character == "\\" and following and ord(following) < 127:
        written.text += following
        return index + 2
    if character == "\n" and inside.endswith("blockquote") and following != ">":
        written.end()
    elif character == "\n" and inside.endswith("blockquote"):
        written.text += "\n"
        return index + 2
    if character not in ("`" if inside in ("code", "pre") else _RESERVED):
        written.text += character
        return index + 1
    token = _token(source, index)
    if inside and token == written.open[-1].tag:
        return _end_markdown(written, index, token)
    return _begin_markdown(written, index, token)


def _token(source: str, index: int) -> str:
    for token in ("```", "__", "||", "![", "**>"):
        if source.startswith(token, index):
            return token
    return source[index]


def _begin_markdown(written: _Written, index: int, token: str) -> int:
    source = written.source
    begins = {
        "*": "bold", "_": "italic", "__": "underline", "~": "strikethrough", "||": "spoiler", "`": "code",
        "```": "pre", "[": "text_link", "![": "custom_emoji",
    }  # fmt: skip
    is_line_start = not written.text or written.text.endswith("\n")
    if token in (">", "**>") and is_line_start:
        written.begin("expandable_blockquote" if token == "**>" else "blockquote", "", index)
        return index + len(token)
    if token == "**>":
        token = "*"
    inside = written.open[-1].kind if written.open else ""
    if token == "||" and inside == "expandable_blockquote" and source[index + 2 : index + 3] in ("", "\n"):
        return index + 2  # the mark at the end of an expandable quote
    if token not in begins:
        raise _cant_parse(f"Character '{token[0]}' is reserved and must be escaped with the preceding '\\'")
    closing = "]" if token in ("[", "![") else token
    language = re.compile(r"[^\s`]*(?=\n)").match(source, index + 3) if token == "```" else None
    written.begin(begins[token], closing, index, {"language": language.group()} if language else None)
    return language.end() + 1 if language else index + len(token)


def _end_markdown(written: _Written, index: int, token: str) -> int:
    opened, source = written.open[-1], written.source
    if token != "]":
        language = opened.attributes.get("language")
        if token == "```" and written.text.endswith("\n"):
            written.text = written.text[:-1]
        written.end({"language": language} if language else None)
        return index + len(token)
    if source[index + 1 : index + 2] != "(":
        if opened.kind == "custom_emoji":
            raise _cant_parse(f"Custom emoji entity must contain a tg://emoji URL at byte offset {opened.byte}")
        written.open.pop()
        return index + 1
    url, end = _markdown_url(written, index + 2)
    written.end({"url": url})
    return end


def _markdown_url(written: _Written, index: int) -> tuple[str, int]:
    source, url, begin = written.source, "", index
    while index < len(source) and source[index] != ")":
        if source[index] == "\\" and index + 1 < len(source) and ord(source[index + 1]) < 127:
            index += 1
        url += source[index]
        index += 1
    if index >= len(source):
        raise _cant_parse(f"Can't find end of a URL at byte offset {written.byte(begin)}")
    return url, index + 1


# Markdown, the old kind


def parse_markdown(source: str) -> tuple[str, list[Entity]]:
    written, index = _Written(source), 0
    kinds = {"*": "bold", "_": "italic", "`": "code", "```": "pre", "[": "text_link"}
    while index < len(source):
        if source[index] == "\\" and source[index + 1 : index + 2] in tuple("_*`["):
            written.text += source[index + 1]
            index += 2
            continue
        token = "```" if source.startswith("```", index) else source[index]
        if token not in kinds:
            written.text += source[index]
            index += 1
            continue
        closing = "]" if token == "[" else token
        end = source.find(closing, index + len(token))
        if end < 0:
            raise _cant_parse(f"Can't find end of the entity starting at byte offset {written.byte(index)}")
        written.begin(kinds[token], closing, index)
        written.text += source[index + len(token) : end]
        index = _end_old_markdown(written, end, closing)
    return written.done()


def _end_old_markdown(written: _Written, end: int, closing: str) -> int:
    if closing != "]":
        written.end()
        return end + len(closing)
    link = re.compile(r"\(([^)]*)\)").match(written.source, end + 1)
    if not link:
        written.open.pop()
        return end + 1
    written.end({"url": link.group(1)})
    return link.end()
