"""Files that people send: images to be looked at, texts to be read, and what to do instead of sending all the others.

Images are kept under HUIGAN_HOME/attachments by their sha256, for as long as their message is. Knows no conversation.
"""

from __future__ import annotations

import asyncio
import codecs
import hashlib
import io
import logging
import re
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from telegram import Bot, Document, Message, PhotoSize
from telegram.error import BadRequest, RetryAfter, TelegramError

from bot.pace import retry_seconds
from bot.screen import is_passing
from huigan.serving import chat
from huigan.serving.client import AsyncOllama
from huigan.serving.errors import ServingError
from huigan.texts import text
from huigan.turns.answering import budgets
from huigan.turns.opening import MAX_MESSAGE_CHARACTERS, Enclosed
from huigan.turns.prompts import IMAGE_TOKENS, beginning, estimate_tokens
from storage.db import Database, Session
from storage.records import AttachmentKind, Live

logger = logging.getLogger(__name__)

MAX_DOWNLOAD_BYTES = 20_000_000  # what Telegram's own server hands out; a local one has no limit, and we keep to it
MAX_TEXT_BYTES = 1_000_000  # many times what is read of one
MOST_PIXELS = 50_000_000  # 200 MB once unpacked, which a file of a few kilobytes may become, in the server of us all
PHOTO_SIDE = 1280  # Telegram keeps several sizes; releases with vision scale larger ones down
FILE_SHARE = 0.75  # of the budget; the rest is for the system text, and for what the estimate gets wrong
FENCE_CHARACTERS = 300  # around one file: its name and the fences
DOWNLOAD_SECONDS = 30.0
RETRY_SECONDS = (0.5, 1.0)

IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp"})
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")
_TYPES = "json xml yaml x-yaml toml sql javascript typescript x-sh x-python x-httpd-php x-tex"
_ENDINGS = """
    txt md markdown rst csv tsv json jsonl yaml yml toml ini cfg conf env log xml html htm css js mjs ts jsx tsx vue py
    pyi ipynb java kt kts c h cc cpp cxx hpp cs go rs rb php pl lua r jl m swift dart scala sh bash zsh ps1 bat sql tex
    bib srt vtt diff patch dockerfile makefile gradle proto graphql
"""
TEXT_TYPES = frozenset(f"application/{each}" for each in _TYPES.split())
TEXT_ENDINGS = frozenset(_ENDINGS.split())
# Where several fit, the first: an animation is a document too.
OTHERS = ("animation", "voice", "audio", "video_note", "video", "sticker", "venue", "location", "contact", "poll")


Answering = Callable[[Session], Live | None]  # the release that is to answer


@dataclass(frozen=True)
class Read:
    """What was said, with the files that were read into it and the images beside it, and what is to be told of them."""

    text: str
    enclosed: tuple[Enclosed, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Unread:
    """Why not: a code of the section `file`."""

    code: str
    params: Mapping[str, Any] = field(default_factory=dict)


class Files:
    def __init__(self, db: Database, client: AsyncOllama, folder: Path) -> None:
        self._db = db
        self._client = client
        self._folder = folder

    async def read(
        self, messages: Sequence[Message], said: str, locale: str, bot: Bot, answering: Answering
    ) -> Read | Unread:
        """What these messages bring, which were sent at once, for the release that is to answer. `said` are their
        words."""
        kinds = [_kind(each) for each in messages]
        if not any(kinds):
            return Read(said)
        wrong = next((kind for kind in kinds if kind not in {"", "image", "text"}), None)
        if wrong is not None:
            return Unread(wrong)
        live = await self._db.aread(answering)
        if "image" in kinds and live is not None and not await self._sees(live):
            return Unread("no_vision")
        contents = []
        for message, kind in zip(messages, kinds, strict=True):
            content = await self._fetched(message, MAX_DOWNLOAD_BYTES if kind == "image" else MAX_TEXT_BYTES, bot)
            if isinstance(content, Unread):
                return content
            # A photo was made by Telegram; a file is as its sender made it.
            as_file = kind == "image" and not message.photo
            if as_file and (unfit := await asyncio.to_thread(_unfit, content)):
                return unfit
            contents.append(content)
        paired = list(zip(messages, kinds, contents, strict=True))
        try:
            images = [await self._kept(message, content) for message, kind, content in paired if kind == "image"]
        except OSError:
            logger.exception("an image cannot be kept under %s", self._folder)
            return Unread("lost")
        texts = [(_name(message), content) for message, kind, content in paired if kind == "text"]
        question = said or (text(locale, "file.look") if images else "")
        return _with_texts(question, texts, images, live, locale)

    async def _sees(self, live: Live) -> bool:
        try:
            return await chat.sees(self._client, live.release.tag)
        except ServingError as error:
            logger.info("whether %s sees is unknown, its turn will tell: %s", live.release.tag, error)
            return True

    async def _fetched(self, message: Message, most_bytes: int, bot: Bot) -> bytes | Unread:
        source = _source(message)
        if source is None:
            return b""
        if (source.file_size or 0) > most_bytes:
            return _too_big(most_bytes)
        for wait_seconds in (*RETRY_SECONDS, 0.0):
            try:
                file = await bot.get_file(source.file_id)
                if (file.file_size or 0) > most_bytes:
                    return _too_big(most_bytes)
                content = bytes(await file.download_as_bytearray(read_timeout=DOWNLOAD_SECONDS))
                return _too_big(most_bytes) if len(content) > most_bytes else content
            except RetryAfter as error:
                wait_seconds = min(retry_seconds(error), DOWNLOAD_SECONDS)
            except BadRequest as error:
                logger.warning("Telegram does not give a file: %s", error)
                return _too_big(most_bytes) if "too big" in str(error) else Unread("lost")
            except TelegramError as error:
                logger.warning("a file could not be fetched: %s", type(error).__name__)
                if not is_passing(error):
                    return Unread("lost")
            except OSError as error:
                logger.error("the local Bot API server's file cannot be read here: %s", error)
                return Unread("lost")
            await asyncio.sleep(wait_seconds)
        return Unread("lost")

    async def _kept(self, message: Message, content: bytes) -> Enclosed:
        source = _source(message)
        mime_type = (source.mime_type or "") if isinstance(source, Document) else "image/jpeg"
        digest = hashlib.sha256(content).hexdigest()
        path = self._folder / digest[:2] / digest
        await asyncio.to_thread(_write, path, content)
        return Enclosed(AttachmentKind.IMAGE, _name(message), mime_type, digest, len(content), str(path))


def _kind(message: Message) -> str:
    """image, text, nothing for plain words; else the code of what is told of it."""
    if message.text:
        return ""
    if message.photo:
        return "image"
    other = next((each for each in OTHERS if getattr(message, each)), None)
    if other is not None or message.document is None:
        return other or "other"
    mime_type = (message.document.mime_type or "").lower()
    if mime_type.startswith("image/"):
        return "image" if mime_type in IMAGE_TYPES else "image_kind"
    name = PurePath(message.document.file_name or "")
    ending = name.suffix.removeprefix(".").lower() or name.name.lower()
    is_text = mime_type.startswith("text/") or mime_type in TEXT_TYPES or ending in TEXT_ENDINGS
    return "text" if is_text else "document"


def _source(message: Message) -> PhotoSize | Document | None:
    """A photo in the largest size that is of use."""
    useful = [each for each in message.photo if max(each.width, each.height) <= PHOTO_SIDE]
    return useful[-1] if useful else next(iter(message.photo), message.document)


def _name(message: Message) -> str:
    name = message.document.file_name if message.document else None
    return re.sub(r"[\s`]+", " ", name or "").strip()[-100:]


def _too_big(most_bytes: int) -> Unread:
    return Unread("too_big", {"most": f"{most_bytes // 1_000_000} MB"})


def _unfit(content: bytes) -> Unread | None:
    """Whether what was named a picture is none, or one that no server should unpack: by its header alone."""
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            pixels = image.width * image.height
    except Image.DecompressionBombError:
        pixels = MOST_PIXELS + 1
    except (OSError, ValueError, SyntaxError):  # what its readers raise for a header that is broken
        return Unread("image_kind")
    return Unread("too_many_pixels", {"most": MOST_PIXELS // 1_000_000}) if pixels > MOST_PIXELS else None


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    part.write_bytes(content)
    part.replace(path)


def _with_texts(
    said: str, texts: Sequence[tuple[str, bytes]], images: Sequence[Enclosed], live: Live | None, locale: str
) -> Read | Unread:
    """As much of the files as the release can read at once."""
    parts, notes = [said] if said else [], []
    tokens = MAX_MESSAGE_CHARACTERS if live is None else int(budgets(live)[0] * FILE_SHARE)
    tokens -= estimate_tokens(said) + IMAGE_TOKENS * len(images)
    characters = MAX_MESSAGE_CHARACTERS - len(said) - FENCE_CHARACTERS * len(texts)
    for name, content in texts:
        decoded = decoded_text(content)
        if not decoded:
            return Unread("unreadable" if decoded is None else "empty", {"name": name})
        read = beginning(decoded, max(tokens, 0))[: max(characters, 0)]
        tokens, characters = tokens - estimate_tokens(read), characters - len(read)
        parts.append(_fenced(name, read, is_whole=read == decoded))
        if read != decoded:
            notes.append(text(locale, "file.cut", name=name, read=len(read), whole=len(decoded)))
    return Read("\n\n".join(parts), tuple(images), "\n".join(notes))


def decoded_text(content: bytes) -> str | None:
    """UTF-8, UTF-16 with its mark, or GB18030; None for what is no text."""
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ["utf-16"] if marked else ["utf-8-sig", "gb18030"]:
        try:
            found = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return None if "\0" in found else found.replace("\r\n", "\n").strip("\n")
    return None


def _fenced(name: str, content: str, *, is_whole: bool) -> str:
    """Between fences longer than any in it."""
    longest = max((len(each) for each in re.findall(r"`{3,}", content)), default=2)
    fence = "`" * (longest + 1)
    cut = "" if is_whole else "\n[…]"
    return f"{name}\n{fence}\n{content}{cut}\n{fence}".strip()
