"""What deploy/ promises. Kubernetes' own schemas come with kubernetes-validate; no cluster is needed."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.test_compose_file import image_user, service

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
KUSTOMIZATION = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text(encoding="utf-8"))
FILES = sorted(path.name for path in DEPLOY.glob("*.yaml") if path.name != "kustomization.yaml")
FINETUNE = "finetune/worker.yaml"
SECRET = "secret.example.yaml"
COMPONENTS = sorted(path.parent.name for path in DEPLOY.glob("*/kustomization.yaml"))


def resources(file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / file).read_text(encoding="utf-8")))


ALL = [resource for file in [*FILES, FINETUNE] for resource in resources(file)]
WITH_PODS = ("Deployment", "Job")
PODS = {one["metadata"]["name"]: one["spec"]["template"] for one in ALL if one["kind"] in WITH_PODS}
PARTS = ["carcond-backend", "carcond-encoder", "carcond-finetune", "carcond-worker"]


def one(kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in ALL if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def container(name: str) -> dict[str, Any]:
    (only,) = PODS[name]["spec"]["containers"]
    return dict(only)


def render(folder: Path, *components: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What `kubectl apply -k deploy` would apply, with some components: kind and name -> resource."""
    shutil.copytree(DEPLOY, folder)
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(KUSTOMIZATION | {"components": list(components)}))
    command = [str(Path(sys.executable).with_name("kubectl")), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout)}


@pytest.mark.parametrize("version", ["1.25", "1.37"])
@pytest.mark.parametrize("components", [(), *((name,) for name in COMPONENTS), tuple(COMPONENTS)])
def test_what_is_applied_is_what_kubernetes_expects(tmp_path: Path, components: tuple[str, ...], version: str) -> None:
    rendered = render(tmp_path / "deploy", *components)
    assert len(rendered) >= len(KUSTOMIZATION["resources"])
    for resource in rendered.values():
        kubernetes_validate.validate(resource, version, strict=True)
        assert resource["metadata"].get("namespace", "carcond") == "carcond"


@pytest.mark.parametrize("version", ["1.25", "1.37"])
@pytest.mark.parametrize("file", [*FILES, FINETUNE])
def test_manifests_are_what_kubernetes_expects(file: str, version: str) -> None:
    for resource in resources(file):
        kubernetes_validate.validate(resource, version, strict=True)


def test_a_misspelt_field_is_noticed() -> None:
    (settings,) = resources("settings.yaml")
    with pytest.raises(kubernetes_validate.ValidationError, match="dta"):
        kubernetes_validate.validate({**settings, "dta": {}}, "1.37", strict=True)


def test_every_file_but_the_secret_is_applied() -> None:
    assert sorted([*KUSTOMIZATION["resources"], SECRET]) == FILES


def test_manifests_do_without_yaml_anchors_which_not_every_tool_reads() -> None:
    for file in [*FILES, FINETUNE]:
        assert not re.search(r"(?m)[:\s-][&*]\w", (DEPLOY / file).read_text(encoding="utf-8")), file


def test_there_is_a_pod_for_each_part() -> None:
    assert sorted(PODS) == PARTS


@pytest.mark.parametrize("name", PARTS)
def test_every_pod_is_confined_as_the_restricted_standard_asks(name: str) -> None:
    pod = PODS[name]["spec"]
    user, group = image_user().split(":")
    assert pod["securityContext"]["runAsNonRoot"]
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]) == (int(user), int(group))
    assert pod["securityContext"]["fsGroup"] == int(group)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert one("Namespace", "carcond")["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.mark.parametrize("name", PARTS)
def test_every_pod_has_room_for_what_it_writes_and_limits_of_memory(name: str) -> None:
    mounts = {mount["mountPath"]: mount for mount in container(name)["volumeMounts"]}
    assert set(mounts) - {"/dev/shm"} == {"/models", "/tmp"}  # noqa: S108
    assert mounts["/models"].get("readOnly", False) == (name == "carcond-backend")
    assert {volume["name"] for volume in PODS[name]["spec"]["volumes"]} == {mount["name"] for mount in mounts.values()}
    assert container(name)["resources"]["limits"]["memory"]
    assert container(name)["resources"]["requests"]["cpu"]


@pytest.mark.parametrize("name", PARTS)
def test_memory_is_that_of_the_compose_stack(name: str) -> None:
    gibibytes = int(container(name)["resources"]["limits"]["memory"].removesuffix("Gi"))
    assert gibibytes * 2**30 == int(service(name.removeprefix("carcond-"))["mem_limit"])


def test_models_are_shared_by_all_pods() -> None:
    assert one("PersistentVolumeClaim", "carcond-models")["spec"]["accessModes"] == ["ReadWriteMany"]


def test_images_are_named_in_one_place() -> None:
    assert {each["name"] for each in KUSTOMIZATION["images"]} == {container(name)["image"] for name in PARTS}


def test_no_secret_is_shipped() -> None:
    secret = one("Secret", "carcond")["stringData"]
    assert {name for name, value in secret.items() if value} == {"CARCOND_BASIC_AUTH_USER"}
    assert SECRET not in KUSTOMIZATION["resources"]


def test_the_secret_goes_to_those_who_need_it() -> None:
    readers = {name for name in PARTS if any("secretRef" in source for source in container(name)["envFrom"])}
    assert readers == {"carcond-backend", "carcond-finetune", "carcond-worker"}


def test_the_backend_has_copies_of_which_one_is_always_there() -> None:
    spec = one("Deployment", "carcond-backend")["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_probes_are_those_of_the_compose_stack() -> None:
    backend, workers = container("carcond-backend"), [container("carcond-worker"), container("carcond-finetune")]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert f"{backend['ports'][0]['containerPort']}{backend[probe]['httpGet']['path']}" in str(
            service("backend")["healthcheck"]["test"]
        )
    for worker in workers:
        for probe in ("startupProbe", "livenessProbe"):
            assert worker[probe]["exec"]["command"][-1] == service("worker")["healthcheck"]["test"][-1]
        # The worker's asks Redis: an outage of minutes must not end workers.
        assert worker["livenessProbe"]["periodSeconds"] * worker["livenessProbe"]["failureThreshold"] >= 300


@pytest.mark.parametrize("name", ["worker", "finetune"])
def test_workers_do_what_they_do_in_the_compose_stack_and_have_a_minute_to_end(name: str) -> None:
    assert container(f"carcond-{name}")["args"] == service(name)["command"]
    assert PODS[f"carcond-{name}"]["spec"]["terminationGracePeriodSeconds"] == 60


def test_the_service_and_the_policies_select_the_pods_that_they_are_for() -> None:
    backend = PODS["carcond-backend"]["metadata"]["labels"]
    assert one("Service", "carcond-backend")["spec"]["selector"] == backend
    assert one("NetworkPolicy", "carcond-backend")["spec"]["podSelector"]["matchLabels"] == backend
    everyone = one("NetworkPolicy", "carcond")["spec"]["podSelector"]["matchLabels"]
    assert all(everyone.items() <= pod["metadata"]["labels"].items() for pod in PODS.values())
    for deployment in ("carcond-backend", "carcond-finetune", "carcond-worker"):
        matched = one("Deployment", deployment)["spec"]["selector"]["matchLabels"]
        assert matched == PODS[deployment]["metadata"]["labels"]


def test_only_the_backend_is_called_and_only_on_its_port() -> None:
    assert "ingress" not in one("NetworkPolicy", "carcond")["spec"]
    (rule,) = one("NetworkPolicy", "carcond-backend")["spec"]["ingress"]
    assert rule["ports"] == [{"port": "http"}]
    assert all("namespaceSelector" in peer for peer in rule["from"])


def test_the_clouds_own_credentials_are_out_of_reach() -> None:
    rules = one("NetworkPolicy", "carcond")["spec"]["egress"]
    blocks = [peer["ipBlock"] for rule in rules for peer in rule.get("to", [])]
    assert {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]} in blocks
    assert all(rule["ports"] for rule in rules)


def test_nothing_is_added_unless_it_is_asked_for() -> None:
    assert KUSTOMIZATION["components"] == []


def test_a_worker_that_fine_tunes_has_a_graphics_card() -> None:
    finetune = container("carcond-finetune")
    assert finetune["image"] == container("carcond-encoder")["image"]
    assert finetune["resources"]["limits"]["nvidia.com/gpu"] == 1
    # The new pod would wait for the card that the old one has.
    assert one("Deployment", "carcond-finetune")["spec"]["strategy"] == {"type": "Recreate"}


# The component object-store


@pytest.fixture
def with_object_store(tmp_path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    return render(tmp_path / "deploy", *COMPONENTS)


def pods_of(rendered: Mapping[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Name -> what its pods are."""
    return {name: one["spec"]["template"]["spec"] for (kind, name), one in rendered.items() if kind in WITH_PODS}


def test_with_an_object_store_each_pod_keeps_its_models_to_itself_and_can_write_them(
    with_object_store: Mapping[tuple[str, str], dict[str, Any]],
) -> None:
    assert not any(kind == "PersistentVolumeClaim" for kind, _ in with_object_store)
    for name, pod in pods_of(with_object_store).items():
        (models,) = (volume for volume in pod["volumes"] if volume["name"] == "models")
        assert set(models) == {"name", "emptyDir"}, name
        (mount,) = (mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "models")
        assert mount == {"name": "models", "mountPath": "/models"}, name


def test_with_an_object_store_all_pods_know_it_and_may_reach_it(
    with_object_store: Mapping[tuple[str, str], dict[str, Any]],
) -> None:
    (secret,) = resources("object-store/secret.example.yaml")
    settings = with_object_store["ConfigMap", "carcond"]["data"]
    assert settings["CARCOND_MODELS_URL"].startswith("s3://")
    assert settings["LABEL_STUDIO_URL"]
    for name, pod in pods_of(with_object_store).items():
        sources = pod["containers"][0]["envFrom"]
        assert {"configMapRef": {"name": "carcond"}} in sources, name
        assert {"secretRef": {"name": secret["metadata"]["name"]}} in sources, name
    rules = with_object_store["NetworkPolicy", "carcond"]["spec"]["egress"]
    assert {443, 9000} <= {port["port"] for rule in rules if "to" in rule for port in rule["ports"]}


def test_the_object_stores_secret_is_not_shipped() -> None:
    (secret,) = resources("object-store/secret.example.yaml")
    kubernetes_validate.validate(secret, "1.37", strict=True)
    assert {name for name, value in secret["stringData"].items() if value} == {"AWS_DEFAULT_REGION"}
