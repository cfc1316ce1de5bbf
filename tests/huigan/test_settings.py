"""The environment and `.env`: every setting, what is said of a wrong one, and that no secret is ever said."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from huigan.settings import BadSettings, Settings, load

TOKEN = "123456789:AAEhBOweik6ad6PsVMRxjeQKXkq8rUoAbcd"

# As they are written → the field and the value that the program reads.
GIVEN = {
    "TELEGRAM_BOT_TOKEN": (TOKEN, "telegram_bot_token", SecretStr(TOKEN)),
    "TELEGRAM_BASE_URL": ("http://127.0.0.1:8081/bot", "telegram_base_url", "http://127.0.0.1:8081/bot"),
    "TELEGRAM_BASE_FILE_URL": ("http://127.0.0.1:8081/file", "telegram_base_file_url", "http://127.0.0.1:8081/file"),
    "TELEGRAM_LOCAL_MODE": ("true", "telegram_local_mode", True),
    "TELEGRAM_WEBHOOK_URL": ("https://bot.example.org/t", "telegram_webhook_url", "https://bot.example.org/t"),
    "TELEGRAM_WEBHOOK_SECRET": ("a-secret_1", "telegram_webhook_secret", SecretStr("a-secret_1")),
    "TELEGRAM_WEBHOOK_LISTEN": ("0.0.0.0:9443", "telegram_webhook_listen", "0.0.0.0:9443"),
    "HUIGAN_HOME": ("/srv/huigan", "home", Path("/srv/huigan")),
    "DATABASE_URL": ("postgresql://u:p@h/n", "database_url", "postgresql://u:p@h/n"),
    "OLLAMA_HOST": ("[::1]:11500", "ollama_host", "[::1]:11500"),
    "HUIGAN_OLLAMA_SHARES_CARD": ("no", "ollama_shares_card", False),
    "HUIGAN_UNLOAD_IDLE": ("no", "unload_idle", False),
    "HUIGAN_CARD_WAIT_MINUTES": ("90", "card_wait_minutes", 90.0),
    "HUIGAN_ADMINS": ("12, 34 56", "admins", (12, 34, 56)),
    "HUIGAN_RECIPE": ("demo", "recipe", "demo"),
    "HUIGAN_SCHEDULE": ("0 3 * * *", "schedule", "0 3 * * *"),
    "HUIGAN_MIN_RATINGS": ("50", "min_ratings", 50),
    "HUIGAN_QUIET_HOURS": ("8-23", "quiet_hours", "08:00-23:00"),
    "HUIGAN_COOL_DOWN_HOURS": ("12", "cool_down_hours", 12.0),
    "HUIGAN_ZONE": ("Asia/Shanghai", "zone", "Asia/Shanghai"),
    "HUIGAN_REPORT_TO": ("wandb, mlflow", "report_to", ("wandb", "mlflow")),
    "HUIGAN_LOG": ("json", "log_format", "json"),
    "HUIGAN_HEALTH_LISTEN": ("127.0.0.1:9464", "health_listen", "127.0.0.1:9464"),
    "HUIGAN_BACKUPS": ("/mnt/backups", "backups", Path("/mnt/backups")),
    "HUIGAN_BACKUP_KEEP": ("30", "backup_keep", 30),
    "HUIGAN_KEEP_RELEASES": ("3", "keep_releases", 3),
    "HUIGAN_KEEP_RUNS": ("40", "keep_runs", 40),
    "HUIGAN_KEEP_BASES": ("2", "keep_bases", 2),
    "HUIGAN_KEEP_MESSAGES_DAYS": ("365", "keep_messages_days", 365.0),
    "HUIGAN_KEEP_UPDATES_DAYS": ("3", "keep_updates_days", 3.0),
    "HUIGAN_KEEP_LOGS_DAYS": ("30", "keep_logs_days", 30.0),
    "HUIGAN_DISK_BUDGET_GIB": ("500", "disk_budget_gib", 500.0),
    "HF_ENDPOINT": ("https://hf-mirror.com", "hf_endpoint", "https://hf-mirror.com"),
    "LLAMA_CPP_DIR": ("/opt/llama.cpp", "llama_cpp_dir", Path("/opt/llama.cpp")),
}

# What is wrong, and a word of the fix.
WRONG = [
    ("TELEGRAM_BOT_TOKEN", "AAEhBOweik6ad6PsVMRxjeQKXkq8rUoAbcd", "@BotFather"),
    ("TELEGRAM_BOT_TOKEN", "123456789:short", "@BotFather"),
    ("TELEGRAM_BASE_URL", "api.telegram.org/bot", "https://"),
    ("TELEGRAM_BASE_FILE_URL", "ftp://127.0.0.1/file", "https://"),
    ("TELEGRAM_LOCAL_MODE", "perhaps", "boolean"),
    ("TELEGRAM_WEBHOOK_URL", "bot.example.org", "https://"),
    ("TELEGRAM_WEBHOOK_SECRET", "with blanks", "letters"),
    ("TELEGRAM_WEBHOOK_SECRET", "x" * 257, "256"),
    ("TELEGRAM_WEBHOOK_LISTEN", "8443", "127.0.0.1:8443"),
    ("TELEGRAM_WEBHOOK_LISTEN", "127.0.0.1:84430", "127.0.0.1:8443"),
    ("TELEGRAM_WEBHOOK_LISTEN", "127.0.0.1:0", "127.0.0.1:8443"),
    ("OLLAMA_HOST", "localhost:many", "127.0.0.1:11434"),
    ("OLLAMA_HOST", "127.0.0.1:114340", "127.0.0.1:11434"),
    ("OLLAMA_HOST", "::1", "[::1]:11434"),
    ("OLLAMA_HOST", "ftp://127.0.0.1", "127.0.0.1:11434"),
    ("OLLAMA_HOST", "://127.0.0.1", "127.0.0.1:11434"),
    ("OLLAMA_HOST", "my host:11434", "127.0.0.1:11434"),
    ("OLLAMA_HOST", "host\x01", "127.0.0.1:11434"),
    ("HUIGAN_ADMINS", "@me", "/id"),
    ("HUIGAN_ADMINS", "12 -3", "/id"),
    ("HUIGAN_ADMINS", "12;3", "/id"),
    ("HUIGAN_SCHEDULE", "nightly", "0 3 * * *"),
    ("HUIGAN_BACKUP_KEEP", "-1", "greater"),
    ("HUIGAN_HEALTH_LISTEN", "9464", "address and a port"),
    ("HUIGAN_KEEP_RELEASES", "1", "greater"),
    ("HUIGAN_KEEP_MESSAGES_DAYS", "0", "greater"),
    ("HUIGAN_KEEP_UPDATES_DAYS", "0", "greater"),
    ("HUIGAN_KEEP_RUNS", "none", "integer"),
    ("HUIGAN_KEEP_LOGS_DAYS", "inf", "less"),
    ("HUIGAN_DISK_BUDGET_GIB", "nan", "finite"),
    ("HUIGAN_LOG", "xml", "'text' or 'json'"),
    ("HUIGAN_SCHEDULE", "61 3 * * *", "0 3 * * *"),
    ("HUIGAN_QUIET_HOURS", "by day", "08:00-23:00"),
    ("HUIGAN_COOL_DOWN_HOURS", "-1", "greater"),
    ("HUIGAN_UNLOAD_IDLE", "perhaps", "boolean"),
    ("HUIGAN_CARD_WAIT_MINUTES", "long", "number"),
    ("HUIGAN_ZONE", "Shanghai", "Asia/Shanghai"),
    ("HUIGAN_ZONE", "../etc/passwd", "Asia/Shanghai"),
    ("HUIGAN_MIN_RATINGS", "0", "greater"),
    ("HUIGAN_MIN_RATINGS", "some", "integer"),
    ("HUIGAN_REPORT_TO", "tensorboard", "wandb or mlflow"),
    ("HF_ENDPOINT", "hf-mirror.com", "https://"),
]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GIVEN:
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load(None)


def complaint(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    with pytest.raises(BadSettings) as caught:
        given(monkeypatch, **environment)
    assert caught.value.__cause__ is None  # a chained error would show what was given
    return str(caught.value)


def test_every_setting_is_tested_here_and_explained_in_the_example() -> None:
    assert {field for _, field, _ in GIVEN.values()} == set(Settings.model_fields)
    example = (Path(__file__).parents[2] / ".env.example").read_text(encoding="utf-8")
    assert [name for name in GIVEN if f"{name}=" not in example] == []


def test_every_setting_is_read_from_the_variable_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = given(monkeypatch, **{name: written for name, (written, _, _) in GIVEN.items()})
    assert {field: getattr(settings, field) for field in Settings.model_fields} == {
        field: value for _, field, value in GIVEN.values()
    }


def test_every_setting_is_read_from_the_file_and_the_environment_beats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}={written}\n" for name, (written, _, _) in GIVEN.items()), encoding="utf-8")
    monkeypatch.setenv("HUIGAN_RECIPE", "other")
    settings = load(file)
    assert settings.recipe == "other"
    assert settings.admins == (12, 34, 56)
    assert settings.schedule == "0 3 * * *"


@pytest.mark.parametrize(
    ("host", "said", "here"),
    [
        ("127.0.0.1:11434", "", True),
        ("http://localhost", "", True),
        ("[::1]:11500", "", True),
        ("http://ollama:11434", "", False),
        ("http://ollama:11434", "yes", True),
        ("127.0.0.1:11434", "no", False),
    ],
)
def test_ollama_has_this_machines_card_by_its_address_unless_it_is_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, host: str, said: str, here: bool
) -> None:
    assert given(monkeypatch, OLLAMA_HOST=host, HUIGAN_OLLAMA_SHARES_CARD=said).ollama_is_here is here


def test_nothing_has_to_be_set_and_what_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = load(None)
    assert given(monkeypatch, **dict.fromkeys(GIVEN, "")) == nothing
    assert (nothing.telegram_bot_token, nothing.admins, nothing.min_ratings) == (None, (), None)
    assert nothing.ollama_host == "127.0.0.1:11434"
    assert nothing.database == f"sqlite:///{Path('.huigan/huigan.db').absolute()}"


def test_the_example_as_it_stands_sets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(Path(__file__).parents[2] / ".env.example") == load(None)


@pytest.mark.parametrize(("name", "written", "fix"), WRONG)
def test_what_is_wrong_is_named_with_its_fix(
    name: str, written: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = complaint(monkeypatch, **{name: written})
    assert said.startswith(f"{name}: ")
    assert fix in said
    assert "\n" not in said


def test_all_that_is_wrong_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = complaint(monkeypatch, HUIGAN_ADMINS="me", HUIGAN_SCHEDULE="nightly", OLLAMA_HOST="x:y")
    assert [line.partition(":")[0] for line in said.splitlines()] == ["OLLAMA_HOST", "HUIGAN_ADMINS", "HUIGAN_SCHEDULE"]


def test_a_webhook_needs_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "TELEGRAM_WEBHOOK_SECRET" in complaint(monkeypatch, TELEGRAM_WEBHOOK_URL="https://bot.example.org/t")


def test_no_secret_is_shown_by_a_complaint_or_by_the_settings_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"TELEGRAM_BOT_TOKEN": f"x{TOKEN}", "TELEGRAM_WEBHOOK_SECRET": "hush hush"}
    said = complaint(monkeypatch, **wrong, TELEGRAM_WEBHOOK_URL="https://bot.example.org/t")
    assert TOKEN not in said
    assert "hush" not in said
    right = given(monkeypatch, TELEGRAM_BOT_TOKEN=TOKEN, TELEGRAM_WEBHOOK_SECRET="hush-hush")
    assert TOKEN not in f"{right!r} {right} {right.model_dump()} {right.model_dump_json()}"
    assert "hush" not in f"{right!r} {right.model_dump_json()}"


def test_blanks_around_a_value_are_not_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = given(monkeypatch, OLLAMA_HOST=" localhost:11500 ", TELEGRAM_BOT_TOKEN=f"{TOKEN}\n")
    assert settings.ollama_host == "localhost:11500"
    assert settings.telegram_bot_token == SecretStr(TOKEN)


def test_a_tilde_is_the_home_folder_also_where_no_shell_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = given(monkeypatch, HUIGAN_HOME="~/huigan", LLAMA_CPP_DIR="~/llama.cpp")
    assert (settings.home, settings.llama_cpp_dir) == (tmp_path / "huigan", tmp_path / "llama.cpp")
    assert settings.database == f"sqlite:///{tmp_path / 'huigan' / 'huigan.db'}"


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"HUIGAN_RECIPE=\xff\xfe")
    with pytest.raises(BadSettings, match="UTF-8"):
        load(file)
