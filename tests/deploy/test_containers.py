"""The container and its manifests: right by the published schemas, and of one mind.

`python -m tests.deploy.container` builds and runs the container.
"""

import json
import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.system.processes import ROOT, run, tool
from uppercase.client.target import ENVIRONMENT
from uppercase.limits import DRAIN
from uppercase.services._stopping import STOP_GRACE

DEPLOY = ROOT / "deploy"
MANIFESTS = DEPLOY / "kubernetes" / "uppercase.yaml"
CONTAINER = (DEPLOY / "container" / "Containerfile").read_text()


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    """The manifests, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all(MANIFESTS.read_text())}


def pod_of(manifests: dict[str, Any]) -> dict[str, Any]:
    return dict(manifests["Deployment"]["spec"]["template"]["spec"])


@pytest.mark.parametrize("version", ["1.30.0", "1.37.0"])
def test_the_manifests_are_right_by_the_schemas(version: str) -> None:
    command = [tool("kubernetes-validate"), "--strict", "-k", version, str(MANIFESTS)]
    done = run(command)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    for kind in ("deployment", "service", "poddisruptionbudget", "networkpolicy"):
        assert f"passed for resource {kind}/uppercase" in said


def test_the_times_of_pod_and_service_agree(manifests: dict[str, Any]) -> None:
    """A pod is killed only once preStop, the drain time and what the service adds are over."""
    pod = pod_of(manifests)
    before = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= before + DRAIN + STOP_GRACE + 1


def test_ports_labels_and_pages_are_those_of_the_container(manifests: dict[str, Any]) -> None:
    pod = pod_of(manifests)
    (container,) = pod["containers"]
    ports = {each["name"]: each for each in container["ports"]}
    exposed = {f"{each['containerPort']}/{each['protocol'].lower()}" for each in ports.values()}
    assert exposed == set(re.findall(r"\d+/(?:tcp|udp)", CONTAINER))
    for probe, page in (("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        assert container[probe]["httpGet"] == {"path": page, "port": "metrics"}
    services = (DEPLOY / "container" / "services.toml").read_text()
    assert f'metrics = "tcp:{ports["metrics"]["containerPort"]}:' in services
    named = manifests["Service"]["spec"]["ports"]
    named += [
        each for rule in manifests["NetworkPolicy"]["spec"]["ingress"] for each in rule["ports"]
    ]
    for each in named:
        assert each["protocol"] == ports[each.get("targetPort", each["port"])]["protocol"]
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert manifests["Service"]["spec"]["selector"] == labels
    for kind, selector in (
        ("Deployment", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
    ):
        assert manifests[kind]["spec"][selector] == {"matchLabels": labels}


def test_the_service_gives_the_client_no_port_of_its_kind(manifests: dict[str, Any]) -> None:
    """Kubernetes would set NAME_PORT=tcp://10.96.0.1:12000 in each pod, by the Service's name."""
    name = manifests["Service"]["metadata"]["name"]
    assert f"{name.upper()}_PORT" in ENVIRONMENT
    assert pod_of(manifests)["enableServiceLinks"] is False


def test_nothing_in_the_container_may_more_than_it_needs(manifests: dict[str, Any]) -> None:
    assert re.findall(r"^USER (.*)$", CONTAINER, re.M) == ["10000:10000"]
    pod = pod_of(manifests)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_containers_command_and_services_are_right() -> None:
    """The command as it stands there, on the file that it copies; both are only checked."""
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", CONTAINER, re.M)
    program, *words = json.loads(entry)
    assert program == "/opt/uppercase/bin/twistd"
    config = DEPLOY / "container" / "services.toml"
    done = subprocess.run(
        [tool("twistd"), *words, f"--config={config}", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout.endswith("is right: tcp (TCP), udp (UDP)\n"), done.stdout + done.stderr
