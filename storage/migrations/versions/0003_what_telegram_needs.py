"""What the Telegram chat needs: languages, admission, edited messages, attachments, offers, curves, several processes

Revises 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_answer_answered_at", "answer", ["answered_at"], unique=False)
    op.create_index("ix_rating_rated_at", "rating", ["rated_at"], unique=False)
    op.create_table(
        "invitation",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=24), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        sa.Column("by_user_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["by_user_id"], ["user.id"], name=op.f("fk_invitation_by_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitation")),
        sa.UniqueConstraint("digest", name=op.f("uq_invitation_digest")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_invitation_by_user_id"), "invitation", ["by_user_id"], unique=False)
    op.create_table(
        "run_card",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("user_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.String(length=24), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("chat", sa.String(length=64), nullable=False),
        sa.Column("message", sa.String(length=64), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_run_card_run_id")),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_run_card_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run_card")),
        sa.UniqueConstraint("channel", "chat", "message", name=op.f("uq_run_card_channel_chat_message")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_run_card_run_id"), "run_card", ["run_id"], unique=False)
    op.create_index(op.f("ix_run_card_user_id"), "run_card", ["user_id"], unique=False)
    op.create_table(
        "run_point",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("measures", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_run_point_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run_point")),
        sa.UniqueConstraint(
            "run_id", "attempt", "method", "step", name=op.f("uq_run_point_run_id_attempt_method_step")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_run_point_run_id"), "run_point", ["run_id"], unique=False)
    op.create_table(
        "attachment",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("message_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.String(length=24), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("mime_type", sa.String(length=128), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["message_id"], ["message.id"], name=op.f("fk_attachment_message_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attachment")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_attachment_message_id"), "attachment", ["message_id"], unique=False)
    op.create_table(
        "comparison_offer",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("message_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("left_answer_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("right_answer_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("why", sa.String(length=24), nullable=False),
        sa.Column("offered_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["left_answer_id"], ["answer.id"], name=op.f("fk_comparison_offer_left_answer_id")),
        sa.ForeignKeyConstraint(["message_id"], ["message.id"], name=op.f("fk_comparison_offer_message_id")),
        sa.ForeignKeyConstraint(["right_answer_id"], ["answer.id"], name=op.f("fk_comparison_offer_right_answer_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_comparison_offer")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_comparison_offer_left_answer_id"), "comparison_offer", ["left_answer_id"], unique=False)
    op.create_index(op.f("ix_comparison_offer_message_id"), "comparison_offer", ["message_id"], unique=False)
    op.create_index(op.f("ix_comparison_offer_right_answer_id"), "comparison_offer", ["right_answer_id"], unique=False)
    op.add_column("chat", sa.Column("scope", sa.String(length=24), server_default="user", nullable=False))
    op.add_column("chat", sa.Column("admitted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "message", sa.Column("replaces_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True)
    )
    op.add_column("outbox", sa.Column("undeliverable", sa.String(length=64), nullable=True))
    op.add_column("showing", sa.Column("worker", sa.String(length=64), nullable=True))
    op.add_column("showing", sa.Column("beat_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("turn", sa.Column("stop_asked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("turn", sa.Column("sampled", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_index("ix_turn_user_asked", "turn", ["user_id", "asked_at"], unique=False)
    op.add_column("update", sa.Column("key", sa.String(length=96), nullable=True))
    op.add_column("update", sa.Column("worker", sa.String(length=64), nullable=True))
    op.add_column("update", sa.Column("beat_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_update_unhandled_key",
        "update",
        ["key", "update_id"],
        unique=False,
        sqlite_where=sa.text("handled_at IS NULL"),
        postgresql_where=sa.text("handled_at IS NULL"),
    )
    op.add_column("user", sa.Column("chosen_locale", sa.String(length=16), nullable=True))
    op.add_column("user", sa.Column("admitted_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_index("ix_rating_rated_at", table_name="rating")
    op.drop_index("ix_answer_answered_at", table_name="answer")
    op.drop_column("user", "admitted_at")
    op.drop_column("user", "chosen_locale")
    op.drop_index(
        "ix_update_unhandled_key",
        table_name="update",
        sqlite_where=sa.text("handled_at IS NULL"),
        postgresql_where=sa.text("handled_at IS NULL"),
    )
    op.drop_column("update", "beat_at")
    op.drop_column("update", "worker")
    op.drop_column("update", "key")
    op.drop_index("ix_turn_user_asked", table_name="turn")
    op.drop_column("turn", "sampled")
    op.drop_column("turn", "stop_asked_at")
    op.drop_column("showing", "beat_at")
    op.drop_column("showing", "worker")
    op.drop_column("outbox", "undeliverable")
    op.drop_column("message", "replaces_id")
    op.drop_column("chat", "admitted_at")
    op.drop_column("chat", "scope")
    op.drop_index(op.f("ix_comparison_offer_right_answer_id"), table_name="comparison_offer")
    op.drop_index(op.f("ix_comparison_offer_message_id"), table_name="comparison_offer")
    op.drop_index(op.f("ix_comparison_offer_left_answer_id"), table_name="comparison_offer")
    op.drop_table("comparison_offer")
    op.drop_index(op.f("ix_attachment_message_id"), table_name="attachment")
    op.drop_table("attachment")
    op.drop_index(op.f("ix_run_point_run_id"), table_name="run_point")
    op.drop_table("run_point")
    op.drop_index(op.f("ix_run_card_user_id"), table_name="run_card")
    op.drop_index(op.f("ix_run_card_run_id"), table_name="run_card")
    op.drop_table("run_card")
    op.drop_index(op.f("ix_invitation_by_user_id"), table_name="invitation")
    op.drop_table("invitation")
