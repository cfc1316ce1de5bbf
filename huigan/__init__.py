"""What the rooms of Huigan share: turns, operations, serving, llama.cpp, texts, settings and the command line."""

from __future__ import annotations
