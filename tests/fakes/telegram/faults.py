"""Faults that a test orders: refusals, bad gateways, dropped connections, slow answers. Each order is used up by the
calls it strikes. Knows nothing of what the calls mean."""

from __future__ import annotations

from dataclasses import dataclass

from .refusals import Refusal, too_many_requests

ANY_METHOD = "*"
_TEXTS = {
    400: "Bad Request: injected", 403: "Forbidden: bot was blocked by the user", 404: "Not Found",
    409: "Conflict: injected", 500: "Internal Server Error", 502: "Bad Gateway", 504: "Gateway Timeout",
}  # fmt: skip


@dataclass
class Fault:
    method: str = ANY_METHOD  # ANY_METHOD leaves getUpdates alone, which would use the order up at once
    times: float = 1
    status: int | None = None
    description: str = ""
    retry_after_seconds: int = 1
    drops: bool = False
    after_effect: bool = False
    delay_seconds: float = 0.0
    struck: int = 0

    def fits(self, method: str) -> bool:
        if self.times <= 0:
            return False
        return self.method.lower() == method.lower() or (self.method == ANY_METHOD and method.lower() != "getupdates")

    def strike(self) -> None:
        self.times -= 1
        self.struck += 1

    def refusal(self) -> Refusal:
        assert self.status is not None
        if self.status == 429:
            return too_many_requests(self.retry_after_seconds)
        return Refusal(self.status, self.description or _TEXTS.get(self.status, "injected"))

    def html(self) -> str | None:
        """What the proxy in front of Telegram says when the server behind it is ill: no JSON."""
        if self.status is None or self.status < 500:
            return None
        title = f"{self.status} {self.refusal().description}"
        return f"<html><head><title>{title}</title></head><body><h1>{title}</h1><hr>nginx</body></html>"
