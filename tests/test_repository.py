"""What the repository says of itself: README, `.env.example`, Compose and the constraints, held against the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from huigan.settings import Settings

REPOSITORY = Path(__file__).resolve().parent.parent
ROOMS = ("bot", "trainer", "storage", "schedules", "huigan")
COMPOSE_ONLY = {
    *("MACHINE_NAME", "POSTGRES_PASSWORD", "TZ", "OLLAMA_PORT", "OLLAMA_NUM_PARALLEL", "OLLAMA_MAX_LOADED_MODELS"),
    *("HUIGAN_HEALTH_HOST", "PIP_INDEX_URL", "TORCH_INDEX_URL", "COMPOSE_FILE", "COMPOSE_PROFILES"),
}


def variables() -> set[str]:
    """Every environment variable that a setting reads."""
    names = set()
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        names.add(str(alias.choices[0]) if alias is not None and hasattr(alias, "choices") else name.upper())
    return names


def test_readme_names_every_module_and_no_other() -> None:
    tree = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("## The house")[1].split("## ")[0]
    folder, named = "", set()
    for line in tree.splitlines():
        if found := re.match(r"    (\S+)/(?: |$)", line):
            folder = found[1]
        elif found := re.match(r"        (\S+\.py)\s+\S", line):
            named.add(f"{folder}/{found[1]}")
    present = {
        str(path.relative_to(REPOSITORY))
        for room in ROOMS
        for path in (REPOSITORY / room).rglob("*.py")
        if path.name != "__init__.py" and "migrations" not in path.parts
    }
    assert named == present


def test_the_example_environment_names_every_setting_and_no_other() -> None:
    text = (REPOSITORY / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE)) - COMPOSE_ONLY == variables()


def test_compose_passes_on_settings_that_exist() -> None:
    text = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{([A-Z_]+)", text)) - variables() - COMPOSE_ONLY == set()
    services = yaml.safe_load(text)["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_containers_have_no_root_no_capabilities_and_nothing_to_write_to_but_their_data() -> None:
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "pid", "network_mode", "devices", "ipc"} & set(service), name
        assert not [each for each in service.get("volumes", []) if each.startswith(("/", ".", "~"))], name
        is_ours = "build" in service  # as whom these run is said in the Dockerfile
        assert is_ours or name == "ollama" or not service["user"].startswith(("0", "root")), name


def test_who_trains_on_the_card_serves_from_it_too() -> None:
    wanted = []
    for name, service in (("docker-compose.yml", "trainer-gpu"), ("docker-compose.gpu.yml", "ollama")):
        services = yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8"))["services"]
        wanted.append(services[service]["deploy"]["resources"]["reservations"]["devices"])
    assert wanted == [[{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]] * 2


def test_images_run_as_nobody_s_root_and_no_secret_is_in_a_layer() -> None:
    stages = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").split("\nFROM ")[1:]
    images = {stage.splitlines()[0].split()[-1]: stage for stage in stages}
    for name in ("bot", "trainer"):
        words = [line.split() for line in images[name].splitlines() if line]
        users = [each[1] for each in words if each[0] == "USER"]
        assert users == ["huigan"], name
        last_run = max(at for at, each in enumerate(words) if each[0] == "RUN")
        assert last_run < words.index(["USER", "huigan"]), "nothing is installed by who runs it"
    for stage in stages:
        named = re.findall(r"^(?:ARG|ENV) (.*)$", stage, re.MULTILINE)
        assert not re.search("TOKEN|PASSWORD|SECRET|DATABASE_URL", " ".join(named))
        assert not re.search(r"^ADD ", stage, re.MULTILINE)
        assert "curl" not in stage


def test_compose_can_read_its_file() -> None:
    command = next((each for each in (["docker", "compose"], ["docker-compose"]) if _runs([*each, "version"])), None)
    if command is None:
        pytest.skip("no Docker Compose here")
    environment = os.environ | {"POSTGRES_PASSWORD": "x", "TELEGRAM_BOT_TOKEN": "1:x"}
    for profile, names in (("gpu", ("docker-compose.yml", "docker-compose.gpu.yml")), ("cpu", ("docker-compose.yml",))):
        files = [part for name in names for part in ("--file", str(REPOSITORY / name))]
        given = [*command, "--profile", profile, *files, "config", "--quiet"]
        checked = subprocess.run(given, env=environment, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_docker_is_sent_what_the_wheel_is_built_from_and_no_more() -> None:
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    files = {
        pyproject["project"]["readme"],
        *pyproject["project"]["license-files"],
        "pyproject.toml",
        "constraints.txt",
    }
    assert sent == {*wheel["packages"], *wheel["force-include"], *files}


def test_everything_that_is_required_is_constrained() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    pinned = {}
    for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            pinned[canonicalize_name(requirement.name)] = next(iter(requirement.specifier)).version
    for each in map(Requirement, wanted):
        assert pinned.get(canonicalize_name(each.name)) in each.specifier, each


def test_every_constraint_is_one_version_and_each_package_has_one() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert [str(each) for each in pins if [part.operator for part in each.specifier] != ["=="]] == []
    assert [str(each) for each in pins if each.url or "*" in str(each.specifier)] == []
    names = [canonicalize_name(each.name) for each in pins]
    assert len(names) == len(set(names))


def test_an_audit_that_cannot_ask_says_so_and_fails_only_where_it_is_required() -> None:
    command = [sys.executable, str(REPOSITORY / ".ci" / "audit")]
    for required, code in (("", 0), ("1", 1)):
        environment = os.environ | {"AUDIT_SERVICE": "http://127.0.0.1:9", "AUDIT_REQUIRED": required}
        asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (asked.returncode, "AUDIT SKIPPED: http://127.0.0.1:9 cannot be reached" in asked.stdout) == (code, True)


def test_the_workflow_tests_and_audits_with_no_more_rights_than_to_read() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    said = {step.get("run") for job in workflow["jobs"].values() for step in job["steps"]}
    assert {"bash .ci/run", "make audit"} <= said
    assert workflow["jobs"]["audit"]["steps"][-1]["env"] == {"AUDIT_REQUIRED": "1"}


def _runs(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
