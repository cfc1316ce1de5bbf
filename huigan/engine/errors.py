"""What the engine answers instead of a result: an HTTP status and Ollama's one `error` string."""

from __future__ import annotations


class ApiError(Exception):
    """A request that gets an error. Before a stream's first line it sets the status, after it it is the last line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def missing_tag(name: str) -> ApiError:
    return ApiError(404, f"model '{name}' not found")
