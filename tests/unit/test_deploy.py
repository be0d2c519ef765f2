"""The Kubernetes manifests say what the service does."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
FOLDERS = ["k8s/base", "k8s/overlays/single"]

Resource = dict[str, Any]


def render(folder: str) -> str:
    done = subprocess.run(
        [BIN / "kubectl", "kustomize", ROOT / folder], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


def complaints(manifests: str) -> str:
    """What strict validation against the bundled Kubernetes schemas says; empty when it passes."""
    done = subprocess.run(
        [BIN / "kubernetes-validate", "--strict", "--quiet", "-"],
        input=manifests,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    output = done.stdout + done.stderr
    assert bool(done.returncode) == bool(output.strip()), output
    return output


def resources(folder: str) -> dict[str, Resource]:
    """The rendered resources by kind; no kind comes twice."""
    rendered = list(yaml.safe_load_all(render(folder)))
    by_kind = {each["kind"]: each for each in rendered}
    assert len(by_kind) == len(rendered)
    return by_kind


def pod_of(folder: str) -> Resource:
    pod: Resource = resources(folder)["Deployment"]["spec"]["template"]["spec"]
    return pod


def container_of(folder: str) -> Resource:
    (container,) = pod_of(folder)["containers"]
    return dict(container)


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_overlay_is_tested() -> None:
    overlays = {str(each.relative_to(ROOT)) for each in (ROOT / "k8s" / "overlays").iterdir()}

    assert overlays == set(FOLDERS) - {"k8s/base"}


def test_manifests_pass_strict_validation(folder: str) -> None:
    assert complaints(render(folder)) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("maxReplicas: 10", "maxReplicas: ten"), ("maxReplicas: 10", "replicasMax: 10")],
    ids=["type", "name"],
)
def test_a_broken_autoscaler_is_rejected(right: str, wrong: str) -> None:
    manifests = render("k8s/base")
    assert right in manifests

    assert "horizontalpodautoscaler/skillwire" in complaints(manifests.replace(right, wrong))


def test_autoscaler_keeps_two_to_ten_pods_at_70_percent_cpu() -> None:
    by_kind = resources("k8s/base")
    spec = by_kind["HorizontalPodAutoscaler"]["spec"]
    (metric,) = spec["metrics"]

    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 10)
    assert metric["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    assert spec["scaleTargetRef"]["name"] == by_kind["Deployment"]["metadata"]["name"]
    # utilization is a share of the request, and a fixed number would fight the autoscaler
    assert "cpu" in container_of("k8s/base")["resources"]["requests"]
    assert "replicas" not in by_kind["Deployment"]["spec"]


def test_pods_that_scale_share_a_database_they_are_given() -> None:
    environment = {each["name"]: each for each in container_of("k8s/base")["env"]}
    database = environment["SKILLWIRE_DATABASE_URL"]["valueFrom"]["secretKeyRef"]

    assert not database.get("optional", False)


def test_sqlite_runs_as_one_pod_on_a_volume_that_lasts() -> None:
    by_kind = resources("k8s/overlays/single")
    spec = by_kind["Deployment"]["spec"]
    claims = {
        each["name"]: each["persistentVolumeClaim"]["claimName"]
        for each in pod_of("k8s/overlays/single")["volumes"]
        if "persistentVolumeClaim" in each
    }

    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}
    assert not {"HorizontalPodAutoscaler", "PodDisruptionBudget"} & set(by_kind)
    assert claims == {"data": by_kind["PersistentVolumeClaim"]["metadata"]["name"]}
    assert "SKILLWIRE_DATABASE_URL" not in {each["name"] for each in container_of("k8s/overlays/single")["env"]}


def test_a_job_migrates_the_database_of_the_pods_with_their_own_image() -> None:
    (job,) = resources("k8s/migrate").values()
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    serving = container_of("k8s/base")

    assert complaints(render("k8s/migrate")) == ""
    assert (job["kind"], container["command"]) == ("Job", ["skillwire", "migrate"])
    assert container["image"] == serving["image"]
    assert container["env"] == [each for each in serving["env"] if each["name"] == "SKILLWIRE_DATABASE_URL"]
    assert container["securityContext"] == serving["securityContext"]
    assert pod["securityContext"]["runAsUser"] == pod_of("k8s/base")["securityContext"]["runAsUser"]


def test_probes_ask_for_life_and_readiness_by_an_allowed_host(folder: str) -> None:
    container = container_of(folder)
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    allowed = resources(folder)["ConfigMap"]["data"]["SKILLWIRE_ALLOWED_HOSTS"]

    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    for probe in probes.values():
        (header,) = probe["httpHeaders"]
        assert header["name"] == "Host"
        assert f'"{header["value"]}"' in allowed


def test_pods_run_without_privileges(folder: str) -> None:
    pod, container = pod_of(folder), container_of(folder)

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {each["mountPath"] for each in container["volumeMounts"]} == {"/data", "/tmp"}
    assert f"USER {pod['securityContext']['runAsUser']}:" in (ROOT / "deploy" / "Containerfile").read_text()


def test_a_pod_has_time_to_drain_before_it_is_killed(folder: str) -> None:
    pod, container = pod_of(folder), container_of(folder)
    drain_s = float(resources(folder)["ConfigMap"]["data"]["SKILLWIRE_SHUTDOWN_GRACE_S"])

    assert pod["terminationGracePeriodSeconds"] > container["lifecycle"]["preStop"]["sleep"]["seconds"] + drain_s


def test_pods_set_settings_that_exist(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configured: dict[str, str] = resources(folder)["ConfigMap"]["data"]
    given = {each["name"] for each in container_of(folder)["env"]} - {"POD_IP"}
    known = {f"SKILLWIRE_{name.upper()}" for name in Settings.model_fields}
    for name, value in configured.items():
        monkeypatch.setenv(name, value)

    assert Settings().allowed_hosts == ("skillwire",)
    assert set(configured) | given <= known


def test_pods_tell_each_other_their_own_address(folder: str) -> None:
    """Not the service's, behind which another pod would answer."""
    container = container_of(folder)
    names = [each["name"] for each in container["env"]]
    env = dict(zip(names, container["env"], strict=True))
    [port] = container["ports"]

    assert env["POD_IP"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
    assert names.index("POD_IP") < names.index("SKILLWIRE_ADVERTISE_URL"), "or it would not be filled in"
    assert env["SKILLWIRE_ADVERTISE_URL"]["value"] == f"http://$(POD_IP):{port['containerPort']}"


def test_service_address_does_not_become_a_setting(folder: str) -> None:
    """A service named skillwire would put SKILLWIRE_PORT=tcp://... into every pod beside it."""
    assert pod_of(folder)["enableServiceLinks"] is False
