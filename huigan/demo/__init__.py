"""`huigan demo`: the whole loop on a small real model, with processes, database, training and swap as in production.

Only the raters are invented, and marked so (channel `simulated`). What they teach is in recipes/demo/community.toml.
"""

from __future__ import annotations
