"""The units, the compose file and the proxy of docs/deploy: well-formed, closed unless asked, of known commands."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TEMPLATES = Path(__file__).resolve().parents[3] / "docs" / "deploy"
BIN = Path(sys.executable).parent
UNITS = {"fedmeta-superlink.service": "fedmeta-superlink", "fedmeta-supernode@.service": "fedmeta-supernode@north"}


@pytest.fixture
def compose() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((TEMPLATES / "compose.yaml").read_text())


def exec_start(unit: str) -> list[str]:
    """The words of a unit's command."""
    found = re.search(r"^ExecStart=(.*)$", (TEMPLATES / unit).read_text().replace("\\\n", " "), re.MULTILINE)
    assert found is not None
    return shlex.split(found[1])


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_takes_the_units(unit: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    text = (TEMPLATES / unit).read_text().replace("/opt/fedmeta/.venv/bin", str(BIN))
    (tmp_path / f"{UNITS[unit]}.service").write_text(text)
    words = ["systemd-analyze", "verify", "--man=no", f"{tmp_path}/{UNITS[unit]}.service"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and UNITS[unit] not in done.stderr, done.stderr


def test_nothing_is_open_or_insecure_unless_asked(compose: dict[str, Any]) -> None:
    superlink = (TEMPLATES / "fedmeta-superlink.service").read_text()
    assert "Environment=HOST=127.0.0.1 " in superlink and "--host ${HOST}" in superlink
    assert "--host" not in exec_start("fedmeta-supernode@.service"), "a node's own port stays on loopback"
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and "user" in service
        assert all(volume.endswith(":ro") or volume.endswith(":/state") for volume in service["volumes"]), name
        assert not any("ca.key" in volume for volume in service["volumes"]), "no machine needs it"
    commands = [*map(exec_start, UNITS), *(service["command"] for service in compose["services"].values())]
    for words in commands:
        assert "--insecure" not in words
        kind = "--auth-supernode-private-key" if words[0].endswith("supernode") else "--enable-supernode-auth"
        assert any(word.startswith(kind) for word in words), words


def test_compose_knows_what_it_mounts_and_waits_for(compose: dict[str, Any]) -> None:
    services, volumes = compose["services"], compose["volumes"]
    for name, service in services.items():
        named = [volume.split(":")[0] for volume in service["volumes"] if volume.endswith(":/state")]
        assert named == [name] and name in volumes
        assert set(service.get("depends_on", {})) <= set(services)
    assert services["superlink"]["healthcheck"]["test"][:3] == ["CMD", "python", "-c"]
    compile(services["superlink"]["healthcheck"]["test"][3], "healthcheck", "exec")
    assert (TEMPLATES / services["superlink"]["build"]["context"] / "pyproject.toml").exists()


def test_the_proxy_lets_nodes_through_and_nobody_else() -> None:
    """By the paths that Flower's own programs serve: whatever starts runs or registers nodes is refused."""
    from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
    from flwr.superlink.routers.control.router import router as control
    from flwr.superlink.routers.fleet.router import router as fleet

    text = re.sub(r"#.*", "", (TEMPLATES / "nginx.conf").read_text())
    passed = {
        bool(exact): path
        for exact, path, body in re.findall(r"location (= )?(\S+) \{([^}]*)\}", text)
        if "proxy_pass https://superlink;" in body
    }
    assert passed == {False: "/v1/fleet/", True: "/health"} and re.search(r"location / \{\s*return 403;", text)
    paths = {name: {route.path for route in found.routes} for name, found in (("fleet", fleet), ("control", control))}  # type: ignore[attr-defined]
    assert len(paths["fleet"]) > 5 and all(path.startswith("/v1/fleet/") for path in paths["fleet"])
    assert len(paths["control"]) > 5 and not any(path.startswith("/v1/fleet/") for path in paths["control"])
    # nginx drops headers with underscores unless told otherwise.
    assert "_" not in FLEET_HTTP_PUBLIC_KEY_HEADER + FLEET_HTTP_SIGNATURE_HEADER
    assert "server 127.0.0.1:8000;" in text and "proxy_ssl_verify on;" in text


@pytest.mark.slow
def test_flower_knows_every_option_of_the_commands(compose: dict[str, Any]) -> None:
    commands = [*map(exec_start, UNITS), *(service["command"] for service in compose["services"].values())]
    for program in ("flower-superlink", "flower-supernode"):
        told = subprocess.run([BIN / program, "--help"], capture_output=True, text=True, check=True).stdout
        used = {
            word.split("=")[0]
            for words in commands
            if words[0].endswith(program)
            for word in words
            if word.startswith("--")
        }
        assert len(used) >= 4
        assert not [option for option in used if not re.search(rf"{option}\b", told)]
