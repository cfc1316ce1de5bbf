"""When things are done, never how: due runs are queued, lost ones reaped, old things pruned."""

from __future__ import annotations
