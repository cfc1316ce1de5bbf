"""The tables, as SQLAlchemy Core. Knows columns and constraints, not what they are for: see `storage.records`.

What the database can guard, it guards: one open turn a conversation, one running and one queued run a lane,
one row a source message, are partial or plain unique indexes, not habits of the code.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from storage.records import (
    AttachmentKind,
    CardKind,
    ChatKind,
    Ended,
    OfferedFor,
    Pick,
    Reason,
    Role,
    RunState,
    Scope,
    Thumb,
    TurnState,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in Python; `timestamptz` on PostgreSQL, naive UTC text on SQLite, which keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime was given: pass aware UTC")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Words(TypeDecorator[str]):
    """What people and releases write. NUL, which PostgreSQL keeps in no text, and half of a surrogate pair, which is no
    UTF-8, become U+FFFD: a release may write anything, and its answer is kept all the same."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        paired = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return paired.replace("\0", "\N{REPLACEMENT CHARACTER}")


class Code(TypeDecorator[StrEnum]):
    """A closed set, stored as its text: readable in any SQL shell, and a new member needs no migration."""

    impl = String(24)
    cache_ok = True

    def __init__(self, codes: type[StrEnum]) -> None:
        super().__init__()
        self.codes = codes

    def process_bind_param(self, value: StrEnum | str | None, dialect: Dialect) -> str | None:
        return None if value is None else self.codes(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        return None if value is None else self.codes(value)


def _id() -> Column[int]:
    # SQLite gives row ids only to INTEGER; AUTOINCREMENT there, so that a deleted id never returns.
    return Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


def _to(target: str, name: str, *, nullable: bool = False, index: bool = True) -> Column[int]:
    kind = BigInteger().with_variant(Integer, "sqlite")
    return Column(name, kind, ForeignKey(f"{target}.id"), nullable=nullable, index=index)


def _at(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, UtcDateTime, nullable=nullable)


def _json(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, JSON(none_as_null=True), nullable=nullable)


_SQLITE: dict[str, Any] = {"sqlite_autoincrement": True}

user = Table(
    "user",
    metadata,
    _id(),
    Column("channel", String(16), nullable=False),
    Column("external_id", String(64), nullable=False),
    Column("name", Words, nullable=False, default=""),
    Column("role", Code(Role), nullable=False),
    Column("locale", String(16)),
    Column("chosen_locale", String(16)),
    _at("consented_at", nullable=True),
    _at("declined_at", nullable=True),
    _at("admitted_at", nullable=True),
    _at("created_at"),
    UniqueConstraint("channel", "external_id"),
    **_SQLITE,
)

chat = Table(
    "chat",
    metadata,
    _id(),
    Column("channel", String(16), nullable=False),
    Column("external_id", String(64), nullable=False),
    Column("kind", Code(ChatKind), nullable=False),
    Column("title", Words, nullable=False, default=""),
    Column("locale", String(16)),
    Column("system", Words),
    Column("scope", Code(Scope), nullable=False, default=Scope.USER, server_default=Scope.USER.value),
    _at("admitted_at", nullable=True),
    _at("created_at"),
    UniqueConstraint("channel", "external_id"),
    **_SQLITE,
)

conversation = Table(
    "conversation",
    metadata,
    _id(),
    _to("chat", "chat_id"),
    Column("thread", String(32), nullable=False, default=""),
    _to("user", "user_id"),
    _at("started_at"),
    **_SQLITE,
)

update = Table(
    "update",
    metadata,
    Column("update_id", BigInteger, primary_key=True, autoincrement=False),
    _json("body"),
    Column("key", String(96)),
    Column("worker", String(64)),
    _at("beat_at", nullable=True),
    _at("received_at"),
    _at("handled_at", nullable=True),
    Index(
        "ix_update_unhandled",
        "update_id",
        sqlite_where=text("handled_at IS NULL"),
        postgresql_where=text("handled_at IS NULL"),
    ),
    Index(
        "ix_update_unhandled_key",
        "key",
        "update_id",
        sqlite_where=text("handled_at IS NULL"),
        postgresql_where=text("handled_at IS NULL"),
    ),
)

message = Table(
    "message",
    metadata,
    _id(),
    _to("conversation", "conversation_id"),
    _to("user", "user_id"),
    Column("text", Words, nullable=False),
    Column("source", String(128), nullable=False, unique=True),
    Column("parent_answer_id", BigInteger().with_variant(Integer, "sqlite")),
    Column("replaces_id", BigInteger().with_variant(Integer, "sqlite")),
    _at("sent_at"),
    **_SQLITE,
)

attachment = Table(
    "attachment",
    metadata,
    _id(),
    _to("message", "message_id"),
    Column("kind", Code(AttachmentKind), nullable=False),
    Column("name", Words, nullable=False, default=""),
    Column("mime_type", String(128), nullable=False, default=""),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    _at("added_at"),
    **_SQLITE,
)

turn = Table(
    "turn",
    metadata,
    _id(),
    _to("conversation", "conversation_id"),
    _to("message", "message_id"),
    _to("user", "user_id", index=False),
    Column("state", Code(TurnState), nullable=False, index=True),
    Column("again", Boolean, nullable=False, default=False),
    Column("sampled", Boolean, nullable=False, default=False, server_default=text("false")),
    _at("asked_at"),
    _at("opened_at", nullable=True),
    _at("beat_at", nullable=True),
    _at("stop_asked_at", nullable=True),
    Column("worker", String(64)),
    Column("tag", Text),
    Column("text", Words, nullable=False, default=""),
    Column("ended", Code(Ended)),
    Column("error", String(64)),
    _at("closed_at", nullable=True),
    Index("ix_turn_user_asked", "user_id", "asked_at"),
    Index("ix_turn_tag_closed", "tag", "closed_at"),
    Index(
        "uq_turn_open_conversation",
        "conversation_id",
        unique=True,
        sqlite_where=text("state = 'open'"),
        postgresql_where=text("state = 'open'"),
    ),
    **_SQLITE,
)

artefact = Table(
    "artefact",
    metadata,
    _id(),
    # No foreign key: run.artefact_id points back, and SQLite adds no constraint to a table that is there.
    Column("run_id", BigInteger().with_variant(Integer, "sqlite"), index=True),
    Column("path", Text),
    Column("sha256", String(64)),
    Column("quantisation", String(16), nullable=False),
    Column("size_bytes", BigInteger),
    Column("weights", Text),
    Column("template", Text, nullable=False),
    Column("system", Text, nullable=False),
    _json("parameters"),
    _json("scorecard", nullable=True),
    _json("verdict", nullable=True),
    _at("created_at"),
    **_SQLITE,
)

release = Table(
    "release",
    metadata,
    _id(),
    Column("tag", Text, nullable=False, unique=True),
    _to("artefact", "artefact_id"),
    _at("created_at"),
    **_SQLITE,
)

deployment = Table(
    "deployment",
    metadata,
    _id(),
    _to("release", "release_id"),
    Column("share", Float, nullable=False),
    Column("by", Text, nullable=False),
    Column("why", Text, nullable=False),
    _at("since_at"),
    **_SQLITE,
)

answer = Table(
    "answer",
    metadata,
    _id(),
    Column("turn_id", BigInteger().with_variant(Integer, "sqlite"), ForeignKey("turn.id"), nullable=False, unique=True),
    _to("message", "message_id"),
    _to("conversation", "conversation_id"),
    Column("text", Words, nullable=False),
    Column("thinking", Words, nullable=False, default=""),
    _to("deployment", "deployment_id", nullable=True),
    _to("release", "release_id", nullable=True),
    Column("tag", Text, nullable=False),
    Column("system", Words, nullable=False),
    _json("row_ids"),
    Column("dropped", Integer, nullable=False, default=0),
    Column("template_digest", String(64), nullable=False),
    _json("options"),
    Column("prompt_tokens", Integer),
    Column("answer_tokens", Integer),
    Column("first_token_seconds", Float),
    Column("total_seconds", Float),
    Column("ended", Code(Ended), nullable=False),
    _at("answered_at"),
    Index("ix_answer_answered_at", "answered_at"),
    **_SQLITE,
)

delivery = Table(
    "delivery",
    metadata,
    _id(),
    _to("answer", "answer_id"),
    Column("channel", String(16), nullable=False),
    Column("chat", String(64), nullable=False),
    Column("message", String(64), nullable=False),
    Column("part", Integer, nullable=False),
    _at("delivered_at"),
    UniqueConstraint("channel", "chat", "message"),
    **_SQLITE,
)

showing = Table(
    "showing",
    metadata,
    Column(
        "turn_id",
        BigInteger().with_variant(Integer, "sqlite"),
        ForeignKey("turn.id"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("channel", String(16), nullable=False),
    Column("message", String(64)),
    Column("worker", String(64)),
    _at("beat_at", nullable=True),
    _at("begun_at"),
    _at("finished_at", nullable=True),
    Index(
        "ix_showing_unfinished",
        "turn_id",
        sqlite_where=text("finished_at IS NULL"),
        postgresql_where=text("finished_at IS NULL"),
    ),
)

correction_prompt = Table(
    "correction_prompt",
    metadata,
    _id(),
    _to("answer", "answer_id"),
    _to("user", "user_id"),
    Column("channel", String(16), nullable=False),
    Column("chat", String(64), nullable=False),
    Column("message", String(64), nullable=False),
    _at("asked_at"),
    UniqueConstraint("channel", "chat", "message"),
    **_SQLITE,
)

rating = Table(
    "rating",
    metadata,
    _id(),
    _to("answer", "answer_id"),
    _to("user", "user_id"),
    Column("thumb", Code(Thumb), nullable=False),
    Column("reason", Code(Reason)),
    Column("correction", Words),
    _at("rated_at"),
    Index("ix_rating_rated_at", "rated_at"),
    **_SQLITE,
)

comparison_offer = Table(
    "comparison_offer",
    metadata,
    _id(),
    _to("message", "message_id"),
    _to("answer", "left_answer_id"),
    _to("answer", "right_answer_id"),
    Column("why", Code(OfferedFor), nullable=False),
    _at("offered_at"),
    **_SQLITE,
)

comparison = Table(
    "comparison",
    metadata,
    _id(),
    _to("message", "message_id"),
    _to("answer", "left_answer_id"),
    _to("answer", "right_answer_id"),
    _to("user", "user_id"),
    Column("pick", Code(Pick), nullable=False),
    _at("picked_at"),
    **_SQLITE,
)

run = Table(
    "run",
    metadata,
    _id(),
    Column("lane", String(64), nullable=False),
    Column("state", Code(RunState), nullable=False, index=True),
    Column("stage", String(24)),
    _json("progress"),
    Column("attempt", Integer, nullable=False),
    _json("recipe"),
    Column("dataset_only", Boolean, nullable=False, default=False),
    Column("why", Text, nullable=False),
    _to("user", "by_user_id", nullable=True),
    Column("worker", String(64)),
    _at("beat_at", nullable=True),
    _at("cancel_asked_at", nullable=True),
    _json("error", nullable=True),
    _to("artefact", "artefact_id", nullable=True),
    # No foreign key, for SQLite adds none to a table that is there.
    Column("continues_run_id", BigInteger().with_variant(Integer, "sqlite")),
    _at("queued_at"),
    _at("started_at", nullable=True),
    _at("ended_at", nullable=True),
    *(
        Index(
            f"uq_run_lane_{state.lower()}",
            "lane",
            unique=True,
            sqlite_where=text(f"state = '{state}'"),
            postgresql_where=text(f"state = '{state}'"),
        )
        for state in ("QUEUED", "RUNNING")
    ),
    **_SQLITE,
)

run_event = Table(
    "run_event",
    metadata,
    _id(),
    _to("run", "run_id"),
    Column("attempt", Integer, nullable=False),
    Column("before", Code(RunState)),
    Column("after", Code(RunState), nullable=False),
    _json("detail"),
    _at("at"),
    **_SQLITE,
)

run_point = Table(
    "run_point",
    metadata,
    _id(),
    _to("run", "run_id"),
    Column("attempt", Integer, nullable=False),
    Column("method", String(16), nullable=False),
    Column("step", Integer, nullable=False),
    _json("measures"),
    _at("at"),
    UniqueConstraint("run_id", "attempt", "method", "step"),
    **_SQLITE,
)

run_card = Table(
    "run_card",
    metadata,
    _id(),
    _to("run", "run_id"),
    _to("user", "user_id"),
    Column("kind", Code(CardKind), nullable=False),
    Column("channel", String(16), nullable=False),
    Column("chat", String(64), nullable=False),
    Column("message", String(64), nullable=False),
    _at("made_at"),
    _at("finished_at", nullable=True),
    UniqueConstraint("channel", "chat", "message"),
    **_SQLITE,
)

dataset = Table(
    "dataset",
    metadata,
    _id(),
    _to("run", "run_id", nullable=True),
    Column("method", String(16), nullable=False),
    Column("rating_watermark", BigInteger, nullable=False),
    Column("comparison_watermark", BigInteger, nullable=False),
    _json("counts"),
    _json("filters"),
    Column("sha256", String(64), nullable=False),
    Column("path", Text, nullable=False),
    _at("created_at"),
    **_SQLITE,
)

dataset_example = Table(
    "dataset_example",
    metadata,
    _id(),
    _to("dataset", "dataset_id"),
    Column("example", String(64), nullable=False),
    Column("split", String(16), nullable=False),
    _to("rating", "rating_id", nullable=True),
    _to("comparison", "comparison_id", nullable=True),
    **_SQLITE,
)

dataset_person = Table(
    "dataset_person",
    metadata,
    _id(),
    _to("dataset", "dataset_id"),
    Column("example", String(64), nullable=False),
    _to("user", "user_id", nullable=True),
    _at("withdrawn_at", nullable=True),
    # What is to be cleared is looked for every minute, and there is hardly ever any.
    Index(
        "ix_dataset_person_withdrawn",
        "dataset_id",
        "withdrawn_at",
        sqlite_where=text("withdrawn_at IS NOT NULL"),
        postgresql_where=text("withdrawn_at IS NOT NULL"),
    ),
    **_SQLITE,
)

dataset_copy = Table(
    "dataset_copy",
    metadata,
    _id(),
    _to("dataset", "dataset_id"),
    Column("disk", String(64), nullable=False),
    Column("path", Text, nullable=False),
    _at("made_at"),
    _at("cleared_at", nullable=True),
    UniqueConstraint("dataset_id", "disk", "path"),
    **_SQLITE,
)

holding = Table(
    "holding",
    metadata,
    _id(),
    Column("run_id", BigInteger().with_variant(Integer, "sqlite"), ForeignKey("run.id"), nullable=False, unique=True),
    _at("since_at"),
    _at("asked_at"),
    _at("withdrawn_at", nullable=True),
    **_SQLITE,
)

outbox = Table(
    "outbox",
    metadata,
    _id(),
    Column("code", String(64), nullable=False),
    _json("params"),
    _to("user", "user_id", nullable=True),
    Column("key", String(128), unique=True),  # the same notice is put once
    Column("undeliverable", String(64)),
    _at("created_at"),
    _at("sent_at", nullable=True),
    **_SQLITE,
)

invitation = Table(
    "invitation",
    metadata,
    _id(),
    Column("digest", String(64), nullable=False, unique=True),
    Column("role", Code(Role), nullable=False),
    Column("note", Words, nullable=False, default=""),
    Column("uses_left", Integer, nullable=False),
    _to("user", "by_user_id", nullable=True),
    _at("made_at"),
    _at("expires_at"),
    _at("withdrawn_at", nullable=True),
    **_SQLITE,
)

audit = Table(
    "audit",
    metadata,
    _id(),
    _to("user", "user_id", nullable=True),
    Column("act", String(64), nullable=False),
    _json("params"),
    _at("at"),
    **_SQLITE,
)

setting = Table(
    "setting",
    metadata,
    Column("key", String(64), primary_key=True),
    _json("value", nullable=True),
    _to("user", "by_user_id", nullable=True, index=False),
    _at("set_at"),
)
