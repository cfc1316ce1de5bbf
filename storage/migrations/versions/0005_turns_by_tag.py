"""How turns ended, by the tag that was asked

Revises 0004.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_turn_tag_closed", "turn", ["tag", "closed_at"])


def downgrade() -> None:
    op.drop_index("ix_turn_tag_closed", "turn")
