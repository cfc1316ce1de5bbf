"""How Telegram says no: codes and texts, taken from the source of its own Bot API server. Knows no method."""

from __future__ import annotations

NOT_MODIFIED = (
    "message is not modified: specified new message content and reply markup are exactly the same as a current "
    "content and reply markup of the message"
)
QUERY_TOO_OLD = "query is too old and response timeout expired or query ID is invalid"
OTHER_POLLER = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
WEBHOOK_ACTIVE = (
    "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"
)
WEBHOOK_SET_MEANWHILE = "Conflict: terminated by setWebhook request"


class Refusal(Exception):
    """An answer with `ok: false`."""

    def __init__(self, code: int, description: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.retry_after_seconds = retry_after_seconds

    def as_json(self) -> dict[str, object]:
        answer: dict[str, object] = {"ok": False, "error_code": self.code, "description": self.description}
        if self.retry_after_seconds is not None:
            answer["parameters"] = {"retry_after": self.retry_after_seconds}
        return answer


def bad_request(text: str) -> Refusal:
    """400. As Telegram does, a sentence loses its capital; a server's CONSTANT keeps its own."""
    is_constant = len(text) > 1 and (text[1] == "_" or "A" <= text[1] <= "Z")
    return Refusal(400, f"Bad Request: {text if is_constant else text[:1].lower() + text[1:]}")


def forbidden(text: str) -> Refusal:
    return Refusal(403, f"Forbidden: {text}")


def too_many_requests(retry_after_seconds: int) -> Refusal:
    return Refusal(429, f"Too Many Requests: retry after {retry_after_seconds}", retry_after_seconds)


def unknown_method() -> Refusal:
    return Refusal(404, "Not Found: method not found")
