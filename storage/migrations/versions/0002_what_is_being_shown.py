"""What a channel is showing, and which messages asked for a correction

Revises 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "showing",
        sa.Column("turn_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("message", sa.String(length=64), nullable=True),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["turn_id"], ["turn.id"], name=op.f("fk_showing_turn_id")),
        sa.PrimaryKeyConstraint("turn_id", name=op.f("pk_showing")),
    )
    op.create_index(
        "ix_showing_unfinished",
        "showing",
        ["turn_id"],
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "correction_prompt",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("answer_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("user_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("chat", sa.String(length=64), nullable=False),
        sa.Column("message", sa.String(length=64), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["answer_id"], ["answer.id"], name=op.f("fk_correction_prompt_answer_id")),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_correction_prompt_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_correction_prompt")),
        sa.UniqueConstraint("channel", "chat", "message", name=op.f("uq_correction_prompt_channel_chat_message")),
        sqlite_autoincrement=True,
    )
    for column in ("answer_id", "user_id"):
        op.create_index(op.f(f"ix_correction_prompt_{column}"), "correction_prompt", [column])


def downgrade() -> None:
    op.drop_table("correction_prompt")
    op.drop_table("showing")
