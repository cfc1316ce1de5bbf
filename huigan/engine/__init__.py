"""An Ollama-compatible server over llama.cpp, for machines without Ollama. Knows nothing of ours but `huigan.llama`."""

from __future__ import annotations
