"""Ollama's client side: streaming chat and the library of tags. Knows nothing of ours."""

from __future__ import annotations
