"""Personal data in what people wrote, found by its form alone and replaced by placeholders. Pure.

Found are mainland mobile numbers, 18-digit identity numbers with a right checksum, bank cards that pass Luhn, e-mail
and IP addresses, WeChat and QQ numbers after a word that says so, and @handles. Names and addresses have no form: they
are not found. Code, fenced or inline, is left as it is: what looks like a number there is more often code.

Equal data get equal placeholders in all texts of one row, so what an answer repeats of its question stays a repetition.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from ipaddress import AddressValueError, IPv4Address, IPv6Address

# An opened fence that is never closed reaches to the end, as it is rendered.
CODE = re.compile(
    r"^ {0,3}(?P<fence>`{3,}|~{3,}).*?(?:^ {0,3}(?P=fence)[`~]*[ \t]*$|\Z)"
    r"|(?P<tick>(?<!`)`+(?!`))(?:(?!\n\s*\n).)+?(?<!`)(?P=tick)(?!`)",
    re.MULTILINE | re.DOTALL,
)
# Full-width forms of ASCII, one for one, so that places stay where they are.
NARROW = {full: full - 0xFEE0 for full in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}

HAN = r"[\u4e00-\u9fff]"
WECHAT_MARKS = r"(?:微信|威信|薇信|wechat|weixin|(?<![a-z])(?:wx|vx|v信)|加v)"
QQ_MARKS = r"(?:(?<![a-z])qq|扣扣|企鹅)"
SAYS = r"\s*(?:账号|帐号|号码|号|群|id|number)?\s*(?:[:：=]|是|为)\s*"  # a word or sign that a name follows
NEAR = r"\s*(?:账号|帐号|号码|号|群|id|number)?\s*(?:[:：=]|是|为)?\s*"
# Decorators and rules that people write without marking them as code.
# fmt: off
NO_HANDLES = frozenset((
    "abstractmethod", "author", "autowired", "bean", "cached_property", "channel", "charset", "classmethod",
    "component", "container", "contextmanager", "dataclass", "deprecated", "entity", "everyone", "fixture", "here",
    "import", "include", "keyframes", "layer", "media", "mixin", "override", "overload", "param", "property",
    "repository", "return", "returns", "service", "since", "staticmethod", "supports", "suppresswarnings", "test",
    "throws", "todo",
))
# fmt: on


@dataclass
class Found:
    """What was found in one row, and how often: `kinds` by kind, `names` the placeholder of each datum."""

    kinds: Counter[str] = field(default_factory=Counter)
    names: dict[tuple[str, str], str] = field(default_factory=dict)

    def name(self, kind: str, datum: str) -> str:
        self.kinds[kind] += 1
        known = self.names.get((kind, datum))
        if known is None:
            number = 1 + sum(each == kind for each, _ in self.names)
            known = self.names[kind, datum] = f"[{kind.upper()}_{number}]"
        return known


@dataclass(frozen=True)
class Kind:
    """One form of personal data. `plain` is what of it makes two of them the same; None where it is none after all."""

    name: str
    pattern: re.Pattern[str]
    plain: Callable[[str], str | None]


def texts(given: Sequence[str], found: Found | None = None) -> tuple[list[str], Found]:
    """All texts of one row without their personal data, and what was found; `found` goes on from another part of it."""
    found = found if found is not None else Found()
    return [_text(each, found) for each in given], found


def _text(text: str, found: Found) -> str:
    if not SUSPICIOUS.search(text):
        return text
    return "".join(part if is_code else _prose(part, found) for part, is_code in parts(text))


def parts(text: str) -> Iterator[tuple[str, bool]]:
    """Prose and code in turn; together they are the text."""
    start = 0
    for each in CODE.finditer(text):
        yield text[start : each.start()], False
        yield each[0], True
        start = each.end()
    yield text[start:], False


def _prose(text: str, found: Found) -> str:
    narrow = text.translate(NARROW)
    taken = [False] * len(text)
    hits: list[tuple[int, int, str, str]] = []
    for kind in KINDS:
        for each in kind.pattern.finditer(narrow):
            start, end = each.span("datum")
            datum = None if any(taken[start:end]) else kind.plain(each["datum"])
            if datum is not None:
                taken[start:end] = [True] * (end - start)
                hits.append((start, end, kind.name, datum))
    pieces, reached = [], 0
    for start, end, name, datum in sorted(hits):
        pieces += [text[reached:start], found.name(name, datum)]
        reached = end
    return "".join([*pieces, text[reached:]])


def digits(text: str) -> str:
    return "".join(each for each in text if each in "0123456789Xx").upper()


def is_identity_number(number: str) -> bool:
    """GB 11643-1999: a date of birth that can be, and ISO 7064 MOD 11-2 over the first 17 digits."""
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    left = sum(int(digit) * pow(2, 17 - at, 11) for at, digit in enumerate(number[:17])) % 11
    return 1850 < born.year < 2100 and "10X98765432"[left] == number[17]


def is_card(number: str) -> bool:
    """Luhn (ISO/IEC 7812-1), by a length and first digits that cards have."""
    doubled = [int(each) * (1 + at % 2) for at, each in enumerate(reversed(number))]
    fits = (len(number) >= 16 and number[0] in "234569") or (len(number) == 15 and number[:2] in ("34", "37"))
    return fits and len(set(number)) > 1 and sum(each - 9 * (each > 9) for each in doubled) % 10 == 0


def _identity(text: str) -> str | None:
    number = digits(text)
    return number if is_identity_number(number) else None


def _card(text: str) -> str | None:
    number = digits(text)
    return number if is_card(number) else None


def _mobile(text: str) -> str | None:
    return digits(text)[-11:]


def _email(text: str) -> str | None:
    return text.casefold()


def _ip(text: str) -> str | None:
    """Not the machine itself nor `any address`: those are nobody's."""
    try:
        found = IPv6Address(text) if ":" in text else IPv4Address(text)
    except AddressValueError:
        return None
    return None if found.is_loopback or found.is_unspecified else str(found)


def _handle(text: str) -> str | None:
    name = text.casefold()
    return None if name.strip("@") in NO_HANDLES else name.strip("@")


def kind(name: str, plain: Callable[[str], str | None], *pattern: str, flags: re.RegexFlag = re.NOFLAG) -> Kind:
    return Kind(name, re.compile("".join(pattern), flags), plain)


# In this order: what one has taken is no other's.
KINDS = (
    kind(
        "email",
        _email,
        r"(?<![A-Za-z0-9._%+-])(?P<datum>[A-Za-z0-9._%+-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,})(?![A-Za-z0-9-])",
    ),
    kind(
        "id",
        _identity,
        r"(?<![0-9])(?P<datum>[1-9]\d{5}[ -]?(?:18|19|20)\d{2}[01]\d[0-3]\d[ -]?\d{3}[0-9Xx])(?![0-9A-Za-z])",
    ),
    kind(
        "card",
        _card,
        r"(?<![0-9][ -])(?<![0-9A-Za-z.])",
        r"(?P<datum>[2-69]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{3,4}(?:[ -]?\d{1,3})?|3[47]\d{2}[ -]?\d{6}[ -]?\d{5})",
        r"(?![0-9A-Za-z]|[ -]\d|\.\d)",
    ),
    kind(
        "phone",
        _mobile,
        r"(?:(?<![0-9A-Za-z_.@])|(?<=tel)|(?<=phone)|(?<=mobile)|(?<=call)|(?<=qq)|(?<=wx)|(?<=vx)|(?<=wechat))",
        r"(?P<datum>(?:(?:\+|00)?86[ -]?)?1[3-9]\d(?:[ -]?\d{4}){2})(?![0-9A-Za-z_]|\.\d|-\d)",
        flags=re.IGNORECASE,
    ),
    kind("ip", _ip, r"(?<![0-9A-Za-z.:])(?P<datum>\d{1,3}(?:\.\d{1,3}){3})(?![0-9A-Za-z]|\.\d)"),
    kind(
        "ip",
        _ip,
        r"(?<![0-9A-Za-z:.])",
        r"(?P<datum>(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}|:)(?::[0-9A-Fa-f]{1,4})*)(?![0-9A-Za-z:])",
    ),
    kind(
        "wechat",
        _handle,
        rf"{WECHAT_MARKS}(?:{SAYS}(?P<said>)|{NEAR})",
        r"(?P<datum>(?(said)|(?=[A-Za-z]*[-_0-9]))[A-Za-z][-_A-Za-z0-9]{5,19})(?![-_0-9A-Za-z])",
        flags=re.IGNORECASE,
    ),
    kind("wechat", _handle, rf"{WECHAT_MARKS}{NEAR}(?P<datum>[1-9]\d{{4,10}})(?![0-9A-Za-z])", flags=re.IGNORECASE),
    kind("qq", _handle, rf"{QQ_MARKS}{NEAR}(?P<datum>[1-9]\d{{4,10}})(?![0-9A-Za-z])", flags=re.IGNORECASE),
    kind(
        "handle",
        _handle,
        r"(?<![0-9A-Za-z])(?:t\.me|telegram\.me)/(?P<datum>[A-Za-z][A-Za-z0-9_]{4,31})(?![A-Za-z0-9_])",
    ),
    kind(
        "handle",
        _handle,
        r"(?<![0-9A-Za-z_.@/\\])(?P<datum>@[A-Za-z][A-Za-z0-9_]{3,31})(?![A-Za-z0-9_(/]|\.[A-Za-z(])",
        r"(?!\s*\n\s*(?:@|def |class |async |public |private |function |export |const ))",
    ),
    kind(
        "handle",
        _handle,
        rf"(?<![0-9A-Za-z_.@/])(?P<datum>@(?=[A-Za-z0-9_-]*{HAN})(?:{HAN}|[A-Za-z0-9_-]){{2,15}})(?=[\s:,，。！!？?、；]|\Z)",
    ),
)
# A text without any of these holds nothing that could be found: most do not.
SUSPICIOUS = re.compile(
    r"[@＠]|[0-9０-９][-\s 　－]?[0-9０-９]|[0-9a-f][:：]|t\.me|telegram\.me"
    r"|微信|威信|薇信|wechat|weixin|wx|vx|v信|加v",
    re.IGNORECASE,
)
