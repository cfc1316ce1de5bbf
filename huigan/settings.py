"""The environment: *where* things are. Read once, by the command line and the processes' entries, and passed on.

*What* an experiment is stands in the recipe; what an admin has set stands in the database and beats this.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from huigan.logs import LogFormat
from huigan.operate import cron, quiet

# Where a run's curves go besides TensorBoard's events in its folder; where they are, and their secrets, is their own
# environment variables' to say.
TRACKERS = ("wandb", "mlflow")


class BadSettings(ValueError):
    """The environment or `.env` holds something that cannot be used; the text names each and its fix."""


class Settings(BaseSettings):
    """Each field's upper-case name is its environment variable; `.env.example` explains them for people."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        env_ignore_empty=True,
        frozen=True,
        str_strip_whitespace=True,
    )

    telegram_bot_token: SecretStr | None = None
    telegram_base_url: str = "https://api.telegram.org/bot"
    telegram_base_file_url: str = "https://api.telegram.org/file/bot"
    telegram_local_mode: bool = False
    telegram_webhook_url: str | None = None
    telegram_webhook_secret: SecretStr | None = None
    telegram_webhook_listen: str = "127.0.0.1:8443"

    home: Path = Field(Path(".huigan"), validation_alias=AliasChoices("HUIGAN_HOME"))
    database_url: str = ""
    ollama_host: str = "127.0.0.1:11434"
    ollama_shares_card: bool | None = Field(None, validation_alias=AliasChoices("HUIGAN_OLLAMA_SHARES_CARD"))

    unload_idle: bool | None = Field(None, validation_alias=AliasChoices("HUIGAN_UNLOAD_IDLE"))
    card_wait_minutes: float | None = Field(
        None, ge=0, le=10_080, validation_alias=AliasChoices("HUIGAN_CARD_WAIT_MINUTES")
    )

    admins: Annotated[tuple[int, ...], NoDecode] = Field((), validation_alias=AliasChoices("HUIGAN_ADMINS"))
    recipe: str = Field("", validation_alias=AliasChoices("HUIGAN_RECIPE"))
    schedule: str = Field("", validation_alias=AliasChoices("HUIGAN_SCHEDULE"))
    min_ratings: int | None = Field(None, ge=1, validation_alias=AliasChoices("HUIGAN_MIN_RATINGS"))
    quiet_hours: str = Field("", validation_alias=AliasChoices("HUIGAN_QUIET_HOURS"))
    cool_down_hours: float | None = Field(None, ge=0, le=8760, validation_alias=AliasChoices("HUIGAN_COOL_DOWN_HOURS"))
    zone: str = Field("", validation_alias=AliasChoices("HUIGAN_ZONE"))

    report_to: Annotated[tuple[str, ...], NoDecode] = Field((), validation_alias=AliasChoices("HUIGAN_REPORT_TO"))

    log_format: LogFormat = Field("text", validation_alias=AliasChoices("HUIGAN_LOG"))
    health_listen: str = Field("", validation_alias=AliasChoices("HUIGAN_HEALTH_LISTEN"))
    backups: Path | None = Field(None, validation_alias=AliasChoices("HUIGAN_BACKUPS"))
    backup_keep: int = Field(7, ge=0, le=1000, validation_alias=AliasChoices("HUIGAN_BACKUP_KEEP"))

    keep_releases: int | None = Field(10, ge=2, validation_alias=AliasChoices("HUIGAN_KEEP_RELEASES"))
    keep_runs: int | None = Field(None, ge=1, validation_alias=AliasChoices("HUIGAN_KEEP_RUNS"))
    keep_bases: int | None = Field(6, ge=1, validation_alias=AliasChoices("HUIGAN_KEEP_BASES"))
    keep_messages_days: float | None = Field(
        None, ge=1, le=36500, validation_alias=AliasChoices("HUIGAN_KEEP_MESSAGES_DAYS")
    )
    keep_updates_days: float = Field(7, ge=1, le=36500, validation_alias=AliasChoices("HUIGAN_KEEP_UPDATES_DAYS"))
    keep_logs_days: float | None = Field(None, gt=0, le=36500, validation_alias=AliasChoices("HUIGAN_KEEP_LOGS_DAYS"))
    disk_budget_gib: float | None = Field(
        None, gt=0, le=1e9, allow_inf_nan=False, validation_alias=AliasChoices("HUIGAN_DISK_BUDGET_GIB")
    )

    hf_endpoint: str | None = None
    llama_cpp_dir: Path | None = None

    @field_validator("admins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part for part in value.replace(",", " ").split() if part]
        if not all(part.isdigit() for part in parts):
            raise ValueError(
                "write Telegram's numeric ids, separated by commas; /id in a chat with the bot shows yours"
            )
        return tuple(int(part) for part in parts)

    @field_validator("report_to", mode="before")
    @classmethod
    def _names_trackers(cls, value: Any) -> Any:
        names = value.replace(",", " ").split() if isinstance(value, str) else list(value)
        if not set(names) <= set(TRACKERS):
            raise ValueError(f"write {' or '.join(TRACKERS)}, or both, separated by commas; TensorBoard is always told")
        return tuple(dict.fromkeys(names))

    @field_validator("telegram_bot_token")
    @classmethod
    def _looks_like_a_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            number, colon, secret = value.get_secret_value().partition(":")
            if not (number.isdigit() and colon and len(secret) >= 20):
                raise ValueError("this is no bot token: copy the whole line that @BotFather gave, like 123456789:AA…")
        return value

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, value: str) -> str:
        if value:
            cron.firings(value)
        return value

    @field_validator("quiet_hours")
    @classmethod
    def _are_hours(cls, value: str) -> str:
        return quiet.written(quiet.parse(value))

    @field_validator("zone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        if value:
            cron.zone_of(value)
        return value

    @field_validator("telegram_webhook_listen", "health_listen")
    @classmethod
    def _has_a_port(cls, value: str, about: ValidationInfo) -> str:
        host, _, port = value.rpartition(":")
        if about.field_name == "health_listen" and not value:
            return value
        if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError("write an address and a port, like 127.0.0.1:8443")
        return value

    @field_validator("telegram_base_url", "telegram_base_file_url", "telegram_webhook_url", "hf_endpoint")
    @classmethod
    def _is_a_url(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^/\s]+", value):
            raise ValueError("write a whole URL, like https://bot.example.org/telegram")
        return value

    @field_validator("telegram_webhook_secret")
    @classmethod
    def _may_stand_in_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", value.get_secret_value()):
            raise ValueError(
                "Telegram takes 1 to 256 letters, digits, _ and - here, like `openssl rand -hex 32` writes"
            )
        return value

    @field_validator("ollama_host")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            if not re.fullmatch(r"(https?://)?(?!.*://)[^\s\x00-\x1f\x7f]*", value, re.IGNORECASE):
                raise ValueError
            urlsplit(value if "://" in value else f"//{value}").port  # noqa: B018, it raises
        except ValueError:
            raise ValueError("write an address and a port, like 127.0.0.1:11434 or [::1]:11434") from None
        return value

    @field_validator("home", "llama_cpp_dir", "backups")
    @classmethod
    def _expanded(cls, value: Path | None) -> Path | None:
        # No shell reads `.env`: without this, ~ would be a folder of that name.
        return None if value is None else value.expanduser()

    @model_validator(mode="after")
    def _webhook_is_whole(self) -> Settings:
        if self.telegram_webhook_url and not self.telegram_webhook_secret:
            raise ValueError(
                "TELEGRAM_WEBHOOK_URL needs TELEGRAM_WEBHOOK_SECRET: without it anybody could pose as Telegram"
            )
        return self

    @property
    def ollama_is_here(self) -> bool:
        """Whether Ollama serves from this machine's graphics card: as the environment says, else by its address."""
        if self.ollama_shares_card is not None:
            return self.ollama_shares_card
        host = self.ollama_host if "://" in self.ollama_host else f"//{self.ollama_host}"
        name = urlsplit(host).hostname or "127.0.0.1"
        return name in {"localhost", "::1", "0.0.0.0"} or name.startswith("127.")

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log may show."""
        given = (each.get_secret_value() for each in (self.telegram_bot_token, self.telegram_webhook_secret) if each)
        password = re.search(r"://[^:/@]*:([^/@]+)@", self.database_url)
        return (*given, *({password[1], unquote(password[1])} if password else ()))

    @property
    def backup_folder(self) -> Path:
        return (self.backups or self.home / "backups").absolute()

    @property
    def database(self) -> str:
        """The URL to connect to: DATABASE_URL, else a SQLite file in the home folder."""
        return self.database_url or f"sqlite:///{(self.home / 'huigan.db').absolute()}"


def load(env_file: str | Path | None = ".env") -> Settings:
    """Raises BadSettings, which names every wrong variable with its fix and shows no secret."""
    try:
        return Settings(_env_file=env_file)
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{env_file} cannot be read: make it a file of UTF-8 text that is yours") from error
    except ValidationError as error:
        complaints = [_complaint(each) for each in error.errors(include_input=False, include_url=False)]
        raise BadSettings("\n".join(complaints)) from None


def _complaint(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    name = ".".join(str(part) for part in error["loc"]).upper()
    return f"{name}: {message}" if name else message
