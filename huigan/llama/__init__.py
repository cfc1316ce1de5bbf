"""The one owner of llama.cpp: GGUF files, merging, quantising, scoring, the converter, and the serving child.

It knows files, tensors and token ids. It does not know runs, releases, recipes, chats or where anything is stored.
"""

from __future__ import annotations
