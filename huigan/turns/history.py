"""Reads what a prompt is made of, and what an answer was given to. Knows no channel and no Ollama."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from huigan.turns.prompts import Line, history
from storage import answers, attachments, chats, comparisons, messages, ratings
from storage.db import Session
from storage.records import Answer, AttachmentKind

# With their answers more than a context of 8,192 tokens holds at eight tokens each. A conversation may go on for years,
# and each turn reads its history.
HISTORY_MESSAGES = 500


def lines_for(session: Session, message_id: int) -> tuple[list[Line], str | None]:
    """The lines an answer to that message would be given to, the message last; and the chat's own system text."""
    message = messages.get(session, message_id)
    newest_id = message_id
    if message.parent_answer_id is not None:  # it continues from there, however long ago that was
        newest_id = answers.get(session, message.parent_answer_id).message_id
    elif message.replaces_id is not None:
        newest_id = message.replaces_id
    said = messages.of_conversation(session, message.conversation_id, up_to=newest_id, limit=HISTORY_MESSAGES)
    given = answers.of_messages(session, [each.id for each in said])
    images = images_of(session, [message.id, *(each.id for each in said)])
    lines = history(
        message,
        said,
        given,
        ratings.counting(session, answer_ids=[each.id for each in given]),
        comparisons.counting(session, of_messages=[each.id for each in said]),
        images,
    )
    chat = chats.get(session, chats.conversation_of(session, message.conversation_id).chat_id)
    return [*lines, Line("message", message.id, message.text, images.get(message.id, ()))], chat.system


def images_of(session: Session, message_ids: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """Paths by message."""
    found = attachments.of_messages(session, message_ids)
    kept = {
        message_id: tuple(file.path for file in files if file.kind is AttachmentKind.IMAGE)
        for message_id, files in found.items()
    }
    return {message_id: paths for message_id, paths in kept.items() if paths}


def begins_to_forget(session: Session, answer: Answer) -> bool:
    """Whether it is its conversation's first answer that was not given the oldest messages: people are told so then,
    and not again until /new."""
    return answer.seen.dropped > 0 and answers.first_that_dropped(session, answer.conversation_id) == answer.id


def prompt_of(session: Session, answer: Answer) -> list[dict[str, str]]:
    """The exact chat messages, system first and the question last, that `answer` was given to, without their images.

    Rebuilt from the rows the answer names, so later ratings and corrections change nothing. Raises KeyError where
    some of them were deleted.
    """
    return prompts_of(session, [answer])[answer.id]


def prompts_of(session: Session, given: list[Answer]) -> dict[int, list[dict[str, str]]]:
    """`prompt_of` for many answers at once, by answer id; without those that were given words of somebody who had
    them deleted since: what is left is not what was answered."""
    wanted: dict[str, set[int]] = {"message": set(), "answer": set(), "correction": set()}
    for answer in given:
        for kind, row_id in answer.seen.row_ids:
            wanted[str(kind)].add(int(row_id))
    texts: Mapping[str, Mapping[int, str]] = {
        "message": {each.id: each.text for each in messages.many(session, wanted["message"]).values()},
        "answer": {each.id: each.text for each in answers.many(session, wanted["answer"]).values()},
        "correction": {each.id: each.correction or "" for each in ratings.many(session, wanted["correction"]).values()},
    }
    return {answer.id: _messages(answer, texts) for answer in given if _is_whole(answer, texts)}


def _is_whole(answer: Answer, texts: Mapping[str, Mapping[int, str]]) -> bool:
    return all(int(row_id) in texts[str(kind)] for kind, row_id in answer.seen.row_ids)


def _messages(answer: Answer, texts: Mapping[str, Mapping[int, str]]) -> list[dict[str, str]]:
    lines = [Line(str(kind), int(row_id), texts[str(kind)][int(row_id)]) for kind, row_id in answer.seen.row_ids]
    return [
        {"role": "system", "content": answer.seen.system},
        *({"role": line.role, "content": line.text} for line in lines),
    ]
