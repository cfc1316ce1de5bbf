"""Alembic's entry: runs on the connection that `storage.migrations.upgrade` holds, in its transaction."""

from __future__ import annotations

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import TypeDecorator

from storage.tables import metadata


def _render(kind: str, item: object, autogen: AutogenContext) -> str | Literal[False]:
    """A migration names plain types: it must read the same when the code's own types have changed."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{item.impl!r}"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    render_item=_render,
    transaction_per_migration=False,
)
context.run_migrations()
