"""Imports what runs, bots, schedulers and supervisors need, once, for the process that they are forked from."""

from __future__ import annotations

import peft  # noqa: F401
import torch  # noqa: F401
import transformers  # noqa: F401
import trl  # noqa: F401

from tests.bot import entry  # noqa: F401
from tests.faults import table  # noqa: F401
from trainer import child, score, training, weights  # noqa: F401
