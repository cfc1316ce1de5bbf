"""The Bot API methods about photos and documents: sending, editing, fetching. Refuses in the order of methods.py, and
knows nothing of HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import pictures
from .calls import Params, Upload
from .entities import Entity, utf16_length
from .methods import (
    METHODS,
    change,
    find_editable,
    find_replied,
    find_thread,
    formatted,
    method,
    post,
    read_markup,
    writable_chat,
)
from .refusals import NOT_MODIFIED, bad_request
from .world import Message, PhotoSize, StoredFile

if TYPE_CHECKING:
    from .fake import FakeTelegram

__all__ = ["METHODS"]

MAX_CAPTION_UNITS = 1024
MAX_UPLOAD_BYTES = 50_000_000
MAX_DOWNLOAD_BYTES = 20_000_000
MEDIA_KINDS = ("photo", "document")  # the others exist on Telegram; nobody here has needed them


def _caption(p: Params, too_long: str) -> tuple[str, list[Entity]]:
    text, entities = formatted(p, "caption", "caption_entities")
    if utf16_length(text) > MAX_CAPTION_UNITS:
        raise bad_request(too_long)
    return text, entities


@method("sendDocument")
def send_document(fake: FakeTelegram, p: Params) -> object:
    return _send_file(fake, p, "document")


@method("sendPhoto")
def send_photo(fake: FakeTelegram, p: Params) -> object:
    return _send_file(fake, p, "photo")


def _send_file(fake: FakeTelegram, p: Params, kind: str) -> object:
    if p.upload(kind) is None and not p.text(kind):
        raise bad_request(f"there is no {kind} in the request")
    _check_file(fake, p.upload(kind), p.text(kind), kind)
    chat = writable_chat(fake, p)
    thread, replied, markup = find_thread(p, chat), find_replied(p, chat), read_markup(p, inline_only=False)
    caption, entities = _caption(p, "message caption is too long")
    message = Message(0, chat, None, fake.clock.now(), caption, entities, markup, replied, thread)
    message.file, message.sizes = _kept(fake, p.upload(kind), p.text(kind), kind)
    message.file_kind = kind
    return post(fake, chat, message)


def _check_file(fake: FakeTelegram, upload: Upload | None, file_id: str, kind: str) -> None:
    if upload is None:
        known = fake.photos if kind == "photo" else fake.files
        if file_id not in known:
            raise bad_request("wrong file identifier/HTTP URL specified")
        return
    if not upload.content:
        raise bad_request("file must be non-empty")
    if len(upload.content) > MAX_UPLOAD_BYTES:
        raise bad_request("file is too big")
    if kind == "photo":
        _check_photo(upload.content)


def _check_photo(content: bytes) -> None:
    if len(content) > pictures.MAX_PHOTO_BYTES:
        most = f"the maximum size is {pictures.MAX_PHOTO_BYTES} bytes"
        raise bad_request(f"file of size {len(content)} bytes is too big for a photo; {most}")
    size = pictures.size(content)
    if size is None:
        raise bad_request("IMAGE_PROCESS_FAILED")
    if sum(size) > pictures.MAX_SIDES_SUM or max(size) > min(size) * pictures.MAX_SIDES_RATIO:
        raise bad_request("PHOTO_INVALID_DIMENSIONS")


def _kept(fake: FakeTelegram, upload: Upload | None, file_id: str, kind: str) -> tuple[StoredFile, list[PhotoSize]]:
    """The file, and a photo's sizes; what was sent by its id is the same file again."""
    if kind == "photo":
        sizes = fake.store_photo(upload.content) if upload else fake.photos[file_id]
        return sizes[-1].file, sizes
    return (fake.store_file(upload.name, upload.content, upload.mime_type) if upload else fake.files[file_id]), []


@method("editMessageCaption")
def edit_message_caption(fake: FakeTelegram, p: Params) -> object:
    """Without a caption it takes the old one away, as an edit without reply_markup takes the buttons."""
    _, message = find_editable(fake, p)
    markup = read_markup(p, inline_only=True)
    caption, entities = _caption(p, "MEDIA_CAPTION_TOO_LONG")
    if not message.file:
        raise bad_request("there is no caption in the message to edit")
    return change(fake, message, caption, entities, markup)


@method("editMessageMedia")
def edit_message_media(fake: FakeTelegram, p: Params) -> object:
    """Also turns a text into a photo with a caption. The caption is the new one's: none given, none left."""
    if "media" not in p.values:
        raise bad_request("there is no media in the request")
    media = p.decoded("media", "InputMedia")
    kind, source = _kind_and_source(media)
    upload = p.uploads.get(source.removeprefix("attach://")) if source.startswith("attach://") else None
    _check_file(fake, upload, source, kind)
    _, message = find_editable(fake, p)
    markup = read_markup(p, inline_only=True)
    given = Params({name: _as_sent(value) for name, value in media.items()}, {})
    caption, entities = _caption(given, "MEDIA_CAPTION_TOO_LONG")
    file, sizes = _kept(fake, upload, source, kind)
    is_same = (caption, entities, markup, file) == (message.text, message.entities, message.markup, message.file)
    if is_same:
        raise bad_request(NOT_MODIFIED)
    return change(fake, message, caption, entities, markup, (file, kind, sizes))


def _kind_and_source(media: object) -> tuple[str, str]:
    if not isinstance(media, dict):
        raise bad_request("can't parse InputMedia: expected an Object")
    if media.get("type") not in MEDIA_KINDS:
        raise bad_request("can't parse InputMedia: type must be one of the supported ones")
    if not isinstance(media.get("media"), str) or not media["media"]:
        raise bad_request("can't parse InputMedia: media not found")
    return media["type"], media["media"]


def _as_sent(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@method("getFile")
def get_file(fake: FakeTelegram, p: Params) -> object:
    if not p.text("file_id"):
        raise bad_request("file_id not specified")
    file = fake.files.get(p.text("file_id"))
    if file is None:
        raise bad_request("wrong file_id or the file is temporarily unavailable")
    if len(file.content) > MAX_DOWNLOAD_BYTES and not fake.is_local_server:
        raise bad_request("file is too big")
    return file.as_json() | {"file_path": file.path}
