"""The objects of Ollama's API: answers in the shape of the endpoint that was asked, and what is said of a tag."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from huigan.engine import bodies, description
from huigan.engine.description import Tag
from huigan.engine.errors import ApiError
from huigan.engine.generation import Line, stamp
from huigan.llama.gguf import BadGguf

log = logging.getLogger(__name__)


def message(text: str) -> Line:
    return {"message": {"role": "assistant", "content": text}}


def response(text: str) -> Line:
    return {"response": text}


def empty(body: bodies.Body, shape: Callable[[str], Line], reason: str) -> Line:
    return {
        "model": body["model"],
        "created_at": stamp(datetime.now(UTC)),
        **shape(""),
        "done": True,
        "done_reason": reason,
    }


def merged(lines: list[Line], shape: Callable[[str], Line]) -> Line:
    """A stream's lines as the one answer that a client which does not stream gets."""
    text = "".join(line["response"] if "response" in line else line["message"]["content"] for line in lines)
    logprobs = [token for line in lines for token in line.get("logprobs", ())]
    return {**lines[-1], **shape(text), **({"logprobs": logprobs} if logprobs else {})}


def listed(tag: Tag) -> Line:
    details = dict(tag.details)
    try:
        about = description.read(tag.gguf)
        details |= {"context_length": about.trained_tokens, "embedding_length": about.embedding_length}
    except (BadGguf, OSError) as error:
        log.warning("the file of tag %s cannot be read: %s", tag.name, error)
    name = str(tag.name)
    return {
        "name": name,
        "model": name,
        "modified_at": stamp(tag.modified_at),
        "size": tag.size_bytes,
        "digest": tag.digest,
        "details": details,
        "capabilities": ["completion"],
    }


def shown(tag: Tag, body: bodies.Body) -> Line:
    try:
        head = description.read(tag.gguf).head
    except BadGguf as error:
        raise ApiError(500, str(error)) from error
    shown = {
        "license": "\n".join(tag.licences),
        "modelfile": description.modelfile(tag),
        "parameters": description.parameters(tag),
        "template": tag.template,
        "system": body.get("system") or tag.system,
        "messages": [{"role": role, "content": content} for role, content in tag.messages],
    }
    return {name: value for name, value in shown.items() if value} | {
        "details": dict(tag.details),
        "model_info": description.model_info(head, verbose=body.get("verbose", False)),
        "tensors": description.tensors(head),
        "capabilities": ["completion"],
        "modified_at": stamp(tag.modified_at),
    }
