"""The recipes are what their tools take, and none of them leaves a door open."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from tests.cluster import kuberay

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker/compose.yaml"
KUBERAY = ROOT / "cluster/kuberay"
SCRIPTS = ["cluster/slurm/medaug.sbatch", "cluster/kuberay/job.sh", "docker/make-secrets.sh"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGE = f"medaug:{PROJECT['version']}"
TESTED = dict(
    re.findall(r"^([^#=\s]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
)
"""The versions that the image has, whichever are installed here."""


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def tool(name: str, *words: object) -> None:
    """Run a checker of the dev extra; its complaints are the failure."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        pytest.skip(f"{name} is not installed; pip install -e '.[dev]'")
    done = subprocess.run([path, *map(str, words)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- what the tools say ----


def test_dockerfile_passes_hadolint() -> None:
    tool("hadolint", "docker/Dockerfile")


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_passes_shellcheck(script: str) -> None:
    tool("shellcheck", "--severity=style", script)
    shell = (ROOT / script).read_text().partition("\n")[0].rpartition("/")[2]
    subprocess.run([shell, "-n", ROOT / script], check=True)


def test_compose_file_has_the_published_schema() -> None:
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


@pytest.mark.parametrize("kind", kuberay.SCHEMAS)
def test_kuberay_resource_has_its_schema(kind: str) -> None:
    resource = read(KUBERAY / f"{kind}.yaml")
    jsonschema.validate(resource, kuberay.SCHEMAS[kind])
    if crds := os.environ.get("MEDAUG_KUBERAY_CRDS"):
        definition = read(Path(crds) / f"ray.io_{kind}s.yaml")
        jsonschema.validate(resource, kuberay.published(definition))


def test_pods_and_policies_have_kubernetes_schema() -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="pip install -e '.[dev]'")
    resources = [
        resource
        for name in ("networkpolicy.yaml", "storage.yaml")
        for resource in yaml.safe_load_all((KUBERAY / name).read_text())
    ]
    for name in kuberay.SCHEMAS:
        for group in groups(name):
            spec = group["template"]["spec"]
            resources.append(
                {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
            )
    assert len(resources) == 9
    for resource in resources:
        kubernetes.validate(resource, "1.33", strict=True)


def test_launcher_file_has_rays_schema() -> None:
    schema = Path(ray.__file__).parent / "autoscaler/ray-schema.json"
    jsonschema.validate(read(ROOT / "cluster/vm/ray.yaml"), json.loads(schema.read_text()))


# ---- no door is open ----


def groups(name: str) -> list[dict[str, Any]]:
    spec = read(KUBERAY / f"{name}.yaml")["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


@pytest.mark.parametrize("name", kuberay.SCHEMAS)
def test_pods_are_closed(name: str) -> None:
    spec = read(KUBERAY / f"{name}.yaml")["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == TESTED["ray"]
    for group in groups(name):
        pod = group["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["image"] == IMAGE
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            writable = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert writable >= {"/storage", "/dev/shm", "/tmp", "/home/medaug"}
            assert {mount["name"] for mount in container["volumeMounts"]} == {
                volume["name"] for volume in pod["volumes"]
            }
        for volume in pod["volumes"]:
            assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"]
            assert container["resources"]["limits"] == container["resources"]["requests"]
    worker = groups(name)[1]["template"]["spec"]["containers"][0]
    assert worker["resources"]["requests"]["nvidia.com/gpu"] == "1"


def test_a_lost_job_is_tried_again_and_stopped_gently() -> None:
    spec = read(KUBERAY / "rayjob.yaml")["spec"]
    assert spec["backoffLimit"] > 0
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_SIGNAL"] == "SIGINT"
    study = re.search(r"/opt/medaug/(\S+\.yaml)", spec["entrypoint"])
    assert study is not None
    assert (ROOT / study[1]).is_file()
    assert spec["entrypoint"].startswith("exec bash /opt/medaug/job.sh ")
    assert "WORKDIR /opt/medaug\n" in (image := (ROOT / "docker/Dockerfile").read_text())
    assert "COPY cluster/kuberay/job.sh ./\n" in image


def test_network_is_denied_by_default() -> None:
    deny, *others = yaml.safe_load_all((KUBERAY / "networkpolicy.yaml").read_text())
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in others:
        for rule in [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]:
            for peer in rule.get("from", []) + rule.get("to", []):
                assert peer["podSelector"]["matchLabels"], "a rule without a peer is for everybody"


def test_compose_is_closed() -> None:
    compose = read(COMPOSE)
    services = compose["services"]
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "healthcheck" in service, name
        assert re.search(r":v?\d+\.\d+\.\d+$|:\d+\.\d+-\w+$", service["image"]), "an image floats"
        assert service.get("privileged") is None, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["read_only"] is True, name
        assert any(folder.startswith("/tmp:") for folder in service["tmpfs"]), name
        assert re.search(r"\d+g\}?$", service["mem_limit"]), name
        assert service["pids_limit"] > 0, name
        for key, value in service["environment"].items():
            if re.search(r"PASSWORD|SECRET|ACCESS_KEY|STORE_URI", key):
                assert ":?" in value, key
    for name in ("head", "worker", "mlflow", "bucket"):
        assert services[name]["image"] == IMAGE
    assert services["postgres"]["user"] == "999:999"
    for name in ("head", "worker"):
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token"
    assert compose["networks"]["tracking"] == {"internal": True}
    assert services["postgres"]["networks"] == services["s3"]["networks"] == ["tracking"]
    assert "--app-name basic-auth" in services["mlflow"]["command"]
    assert "--allowed-hosts" in services["mlflow"]["command"]


def test_every_image_has_a_digest_or_a_reason() -> None:
    images = {"docker/compose.yaml": r"image: (\w\S+)", "docker/Dockerfile": r"FROM (\S+)"}
    for file, pattern in images.items():
        text = (ROOT / file).read_text()
        for image in set(re.findall(pattern, text)) - {IMAGE}:
            assert "@sha256:" in image or "no digest" in text, image
            assert not image.endswith(":latest")
            assert ":" in image


def test_nobody_in_the_image_is_root() -> None:
    lines = (ROOT / "docker/Dockerfile").read_text().splitlines()
    users = [line for line in lines if line.startswith("USER ")]
    assert users == ["USER $UID"]
    assert "ARG UID=1000" in lines
    commands = [line for line in lines if line.startswith(("RUN", "COPY"))]
    assert all(lines.index(line) < lines.index("USER $UID") for line in commands)


def test_every_ray_start_has_a_token() -> None:
    launcher = read(ROOT / "cluster/vm/ray.yaml")
    for kind in ("head", "worker"):
        start = launcher[f"{kind}_start_ray_commands"][-1]
        assert start.startswith("RAY_AUTH_MODE=token ray start")
    script = (ROOT / "cluster/slurm/medaug.sbatch").read_text()
    assert script.index("export RAY_AUTH_MODE=token") < script.index("ray start")
    assert "RAY_AUTH_MODE=token" in (ROOT / "docker/Dockerfile").read_text()


def test_secrets_are_made_once_and_for_their_owner(tmp_path: Path) -> None:
    script = tmp_path / "make-secrets.sh"
    shutil.copy(ROOT / "docker/make-secrets.sh", script)
    subprocess.run([script], check=True, capture_output=True)
    token, ini, settings = (
        tmp_path / name for name in ("secrets/ray_token", "secrets/mlflow_auth.ini", ".env")
    )
    for path in (token, ini, settings):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}", token.read_text())
    made = dict(line.split("=", 1) for line in settings.read_text().splitlines())
    asked = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()))
    assert asked <= set(made)
    assert all(len(made[name]) == 64 for name in asked if not name.endswith("USER"))
    auth = ConfigParser(interpolation=None)
    auth.read(ini)
    assert auth["mlflow"]["admin_username"] == made["MLFLOW_USER"]
    assert auth["mlflow"]["admin_password"] == made["MLFLOW_PASSWORD"]
    assert made["POSTGRES_PASSWORD"] in auth["mlflow"]["database_uri"]

    before = settings.read_text()
    assert subprocess.run([script], capture_output=True).returncode == 2
    assert settings.read_text() == before


# ---- the image holds what the tests passed with ----


def test_the_image_is_locked_to_the_tested_versions() -> None:
    lock = (ROOT / "docker/requirements.txt").read_text()
    locked = dict(re.findall(r"^([a-z0-9.-]+)==(\S+) \\$", lock, re.MULTILINE))
    assert lock.count("--hash=sha256:") >= len(locked) > 100
    tested = {normal(name): version for name, version in TESTED.items()}
    wrong = {
        name: version for name, version in locked.items() if tested.get(name, version) != version
    }
    assert not wrong, "run `make lock`"
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["server"]
    names = {normal(re.split(r"[\[<>=~! ]", wish)[0]) for wish in wanted}
    assert names - set(locked) == {"torch"}, "run `make lock`"
    assert "torch" in tested


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
