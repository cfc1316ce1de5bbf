"""What is to be cleared is found by an index

Revises 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    withdrawn = sa.text("withdrawn_at IS NOT NULL")
    columns = ["dataset_id", "withdrawn_at"]
    op.create_index(
        "ix_dataset_person_withdrawn",
        "dataset_person",
        columns,
        sqlite_where=withdrawn,
        postgresql_where=withdrawn,
    )


def downgrade() -> None:
    op.drop_index("ix_dataset_person_withdrawn", "dataset_person")
