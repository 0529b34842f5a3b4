"""What the chart renders: the operator's pod, its rights, the CRDs, and refusals of wrong values."""

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.chart.conftest import CHART, Objects, Render, of_kind, one
from trainyard.api.crd import files
from trainyard.controller.settings import Settings

Helm = Callable[..., subprocess.CompletedProcess[str]]
KINDS = ("trainingruns", "trainingschedules", "trainingsweeps")


def container(objects: Objects) -> dict[str, Any]:
    (found,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def environment(objects: Objects) -> dict[str, str]:
    given = {"metadata.name": "trainyard-0", "metadata.namespace": "trainyard-system"}
    return {
        e["name"]: e["value"] if "value" in e else given[e["valueFrom"]["fieldRef"]["fieldPath"]]
        for e in container(objects)["env"]
    }


def granted(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Every (group, resource, verb) that the rules allow."""
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


def operator_rules(objects: Objects) -> list[dict[str, Any]]:
    return [
        rule
        for o in objects
        if o["kind"] in ("Role", "ClusterRole")
        and not o["metadata"]["name"].endswith(("-editor", "-viewer", "-approver"))
        for rule in o["rules"]
    ]


def test_lint_is_silent(helm: Helm) -> None:
    result = helm("lint", "--strict", str(CHART))
    assert result.returncode == 0, result.stdout


def test_the_crds_are_the_generated_ones_and_outlive_the_release(render: Render) -> None:
    crds = of_kind(render(), "CustomResourceDefinition")
    assert crds == [yaml.load(text, Loader=yaml.CSafeLoader) for _, text in sorted(files().items())]
    assert all(crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for crd in crds)


def test_crds_can_be_left_to_somebody_else(render: Render) -> None:
    assert not of_kind(render("crds.install=false"), "CustomResourceDefinition")


def test_the_pod_satisfies_the_restricted_pod_security_standard(render: Render) -> None:
    for pod in (one(render(), "Deployment")["spec"]["template"]["spec"], one(render(), "Pod")["spec"]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any("hostPath" in volume for volume in pod.get("volumes", ()))
        for c in pod["containers"]:
            assert c["securityContext"]["allowPrivilegeEscalation"] is False
            assert c["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert c["securityContext"]["readOnlyRootFilesystem"] is True


def test_one_operator_at_a_time(render: Render) -> None:
    spec = one(render(), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_resources_are_those_of_a_small_process(render: Render) -> None:
    assert container(render())["resources"] == {
        "requests": {"cpu": "100m", "memory": "96Mi"},
        "limits": {"memory": "512Mi"},
    }


def test_the_operator_understands_its_environment(render: Render) -> None:
    """No variable that it would pass over, and none that it refuses."""
    variables = environment(render("watchNamespaces={a,b}", "operator.logLevel=DEBUG"))
    known = {f"TRAINYARD_{name.upper()}" for name in Settings.model_fields}
    assert set(variables) <= known
    settings = Settings.from_environment(variables)
    assert settings.namespaces == ("a", "b")
    assert settings.log_level == "DEBUG"


def test_what_triggers_may_ask_is_a_value(render: Render) -> None:
    asked = ("triggers.allowedHosts={*.svc,git.example.org}", "triggers.deniedNetworks={10.96.0.0/12,fd00::/8}")
    settings = Settings.from_environment(environment(render(*asked, "triggers.memoryMiB=32")))
    assert settings.triggers_allowed_hosts == ("*.svc", "git.example.org")
    assert tuple(map(str, settings.triggers_denied_networks)) == ("10.96.0.0/12", "fd00::/8")
    assert settings.triggers_memory_mib == 32
    default, bare = environment(render()), Settings(trainer_image="x")
    assert Settings.from_environment(default).triggers_memory_mib == bare.triggers_memory_mib
    assert "TRAINYARD_TRIGGERS_ALLOW_LOOPBACK" not in default


def test_prices_are_values(render: Render) -> None:
    variables = environment(
        render("cost.prices.\\*=0.35", "cost.prices.NVIDIA-H100-80GB-HBM3=2.5", "cost.currency=EUR")
    )
    settings = Settings.from_environment(variables)
    assert (settings.gpu_prices, settings.currency) == ({"NVIDIA-H100-80GB-HBM3": 2.5, "*": 0.35}, "EUR")
    assert Settings.from_environment(environment(render())).gpu_prices == {}


def test_ports_of_pod_probes_and_service_agree_with_the_operator(render: Render) -> None:
    objects = render()
    settings = Settings.from_environment(environment(objects))
    ports = {p["name"]: p["containerPort"] for p in container(objects)["ports"]}
    assert ports == {
        "receiver": settings.receiver_listen_port,
        "health": settings.health_listen_port,
        "metrics": settings.metrics_listen_port,
        "page": settings.page_listen_port,
    }
    service = one(objects, "Service")
    by_name = {p["name"]: p["port"] for p in service["spec"]["ports"]}
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert settings.receiver_url == f"http://{host}:{by_name['receiver']}"
    for probe in ("livenessProbe", "readinessProbe"):
        assert container(objects)[probe]["httpGet"]["port"] in ports


def test_the_page_is_for_whoever_may_forward_a_port_until_somebody_says_otherwise(render: Render) -> None:
    objects = render()
    assert Settings.from_environment(environment(objects)).page == "Loopback"
    assert [o["metadata"]["name"] for o in of_kind(objects, "Service")] == ["trainyard-receiver"]
    without = render("page.listen=Off")
    assert "page" not in {p["name"] for p in container(without)["ports"]}
    assert Settings.from_environment(environment(without)).page == "Off", "a text, where YAML sees no boolean"


@pytest.mark.parametrize("wanted", [True, False])
def test_single_models_in_the_metrics_are_a_value(wanted: bool, render: Render) -> None:
    objects = render(f"metrics.perModel={str(wanted).lower()}")
    assert Settings.from_environment(environment(objects)).metrics_per_model is wanted
    assert Settings.from_environment(environment(render())).metrics_per_model is True


REVIEWS = {
    "Kubernetes": {
        ("authentication.k8s.io", "tokenreviews", "create"),
        ("authorization.k8s.io", "subjectaccessreviews", "create"),
    },
    "Header": {("authorization.k8s.io", "subjectaccessreviews", "create")},
    "Token": set(),
    "Open": set(),
}


@pytest.mark.parametrize("access", REVIEWS)
def test_a_page_under_a_service_asks_who_reads_it(access: str, render: Render) -> None:
    more = ("page.tokenSecret=page-token", "page.proxies={10.0.0.0/8}")
    objects = render("page.listen=Service", f"page.access={access}", *more)
    settings = Settings.from_environment(environment(objects))
    assert (settings.page, settings.page_access) == ("Service", access)
    assert (settings.page_token_file != "") is (access == "Token")
    assert tuple(map(str, settings.page_proxies)) == (("10.0.0.0/8",) if access == "Header" else ())
    assert granted(operator_rules(objects)) - granted(operator_rules(render())) == REVIEWS[access]
    mounted = {m["mountPath"] for m in container(objects)["volumeMounts"]}
    assert ("/etc/trainyard/page" in mounted) is (access == "Token")
    service = next(o for o in of_kind(objects, "Service") if o["metadata"]["name"] == "trainyard-page")
    assert [(p["port"], p["targetPort"]) for p in service["spec"]["ports"]] == [(80, "page")]


def test_there_is_no_datasets_api_until_it_has_a_namespace(render: Render) -> None:
    objects = render()
    assert Settings.from_environment(environment(objects)).datasets_namespace == ""
    assert "datasets" not in {p["name"] for p in container(objects)["ports"]}


def test_the_datasets_api_is_for_whoever_may_forward_a_port_until_somebody_says_otherwise(render: Render) -> None:
    objects = render("datasets.namespace=ml", "datasets.secret=db", "datasets.size=5Gi")
    settings = Settings.from_environment(environment(objects))
    assert (settings.datasets_namespace, settings.datasets_secret, settings.datasets_size) == ("ml", "db", "5Gi")
    assert settings.datasets_access == "Loopback"
    ports = {p["name"]: p["containerPort"] for p in container(objects)["ports"]}
    assert ports["datasets"] == settings.datasets_listen_port
    assert [o["metadata"]["name"] for o in of_kind(objects, "Service")] == ["trainyard-receiver"]
    assert operator_rules(objects) == operator_rules(render())


def test_a_datasets_api_under_a_service_asks_who_builds(render: Render) -> None:
    objects = render("datasets.namespace=ml", "datasets.access=Kubernetes", "page.listen=Off")
    assert Settings.from_environment(environment(objects)).datasets_access == "Kubernetes"
    assert granted(operator_rules(objects)) - granted(operator_rules(render())) == REVIEWS["Kubernetes"]
    service = next(o for o in of_kind(objects, "Service") if o["metadata"]["name"] == "trainyard-datasets")
    assert [(p["port"], p["targetPort"]) for p in service["spec"]["ports"]] == [(8000, "datasets")]
    (policy,) = of_kind(objects, "NetworkPolicy")
    assert {"ports": [{"port": "datasets"}]} in policy["spec"]["ingress"]


def test_service_finds_the_operator_and_nothing_else(render: Render) -> None:
    objects = render()
    selector = one(objects, "Service")["spec"]["selector"].items()
    assert selector <= one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    assert not selector <= one(objects, "Pod")["metadata"]["labels"].items()


@pytest.mark.parametrize("values", [(), ("watchNamespaces={a,b}",)])
def test_rights_are_no_more_than_the_work_needs(values: tuple[str, ...], render: Render) -> None:
    rules = operator_rules(render(*values))
    assert granted(rules) == {
        *(("trainyard.dev", "trainingruns", v) for v in ("get", "list", "watch", "create", "patch", "delete")),
        *(("trainyard.dev", kind, v) for kind in KINDS[1:] for v in ("get", "list", "watch")),
        *(("trainyard.dev", f"{kind}/{part}", "update") for kind in KINDS for part in ("status", "finalizers")),
        *(("batch", "jobs", v) for v in ("get", "list", "watch", "create", "delete")),
        *(("", "configmaps", v) for v in ("get", "create", "patch")),
        *(("", "pods", v) for v in ("get", "list", "watch", "delete")),
        ("kueue.x-k8s.io", "localqueues", "get"),
        *(("", "persistentvolumeclaims", v) for v in ("get", "list", "watch", "create", "patch")),
        *(("", "secrets", v) for v in ("get", "create", "patch", "delete")),
        *(("", "services", v) for v in ("get", "create", "delete")),
        *(("", "events", v) for v in ("get", "list", "create", "patch")),
        ("", "nodes", "list"),
        ("apiextensions.k8s.io", "customresourcedefinitions", "get"),
        *(("coordination.k8s.io", "leases", v) for v in ("get", "create", "patch")),
    }


def test_of_all_definitions_it_may_read_its_own(render: Render) -> None:
    (rule,) = [r for r in operator_rules(render()) if "customresourcedefinitions" in r["resources"]]
    crds = of_kind(render(), "CustomResourceDefinition")
    assert rule["resourceNames"] == [crd["metadata"]["name"] for crd in crds]


def test_namespaced_means_no_cluster_wide_right_over_objects(render: Render) -> None:
    objects = render("watchNamespaces={a,b}", "rbac.readNodes=false", "rbac.readCRDs=false", "rbac.aggregate=false")
    assert not of_kind(objects, "ClusterRole")
    assert not of_kind(objects, "ClusterRoleBinding")
    assert {o["metadata"]["namespace"] for o in of_kind(objects, "RoleBinding")} == {"trainyard-system", "a", "b"}


def test_every_binding_names_a_role_that_exists_and_the_pods_account(render: Render) -> None:
    objects = render("watchNamespaces={a}", "serviceAccount.name=other")
    roles = {(o["kind"], o["metadata"]["name"], o["metadata"].get("namespace")) for o in objects}
    account = one(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
    assert account == "other"
    for binding in [*of_kind(objects, "RoleBinding"), *of_kind(objects, "ClusterRoleBinding")]:
        reference = binding["roleRef"]
        assert (reference["kind"], reference["name"], binding["metadata"].get("namespace")) in roles
        assert [s["name"] for s in binding["subjects"]] == [account]


def test_people_get_roles_by_aggregation(render: Render) -> None:
    labels = {o["metadata"]["name"]: o["metadata"]["labels"] for o in of_kind(render(), "ClusterRole")}
    assert labels["trainyard-editor"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert labels["trainyard-viewer"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    approver = labels["trainyard-approver"]
    assert approver["rbac.authorization.k8s.io/aggregate-to-admin"] == "true"
    assert "rbac.authorization.k8s.io/aggregate-to-edit" not in approver, "not everybody who writes runs approves them"


def images(objects: Objects) -> Iterator[str]:
    yield container(objects)["image"]
    yield environment(objects)["TRAINYARD_TRAINER_IMAGE"]


def test_a_digest_wins_over_a_tag(render: Render) -> None:
    digest = "sha256:" + "0" * 64
    assert all(image.endswith(":0.1.0") for image in images(render()))
    assert all(image.endswith(":dev") for image in images(render("image.tag=dev", "trainerImage.tag=dev")))
    pinned = render("image.tag=dev", f"image.digest={digest}", f"trainerImage.digest={digest}")
    assert all(image.endswith(f"@{digest}") for image in images(pinned))


def test_optional_objects(render: Render) -> None:
    assert not of_kind(render(), "ServiceMonitor")
    objects = render("serviceMonitor.enabled=true")
    (endpoint,) = one(objects, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] in {p["name"] for p in one(objects, "Service")["spec"]["ports"]}


def test_two_releases_do_not_collide(render: Render) -> None:
    def names(objects: Objects) -> set[tuple[str, str]]:
        return {(o["kind"], o["metadata"]["name"]) for o in objects if o["kind"] != "CustomResourceDefinition"}

    assert not names(render(release="a")) & names(render(release="b"))


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("replicas=2", "replicas"),
        ("image.tga=dev", "tga"),
        ("image.digest=sha256:abc", "digest"),
        ("operator.workers=0", "workers"),
        ("operator.logLevel=LOUD", "logLevel"),
        ("watchNamespaces={Not_A_Name}", "watchNamespaces"),
        ("serviceMonitor.interval=often", "interval"),
        ("metrics.perModel=sometimes", "perModel"),
        ("prometheusRule.minimumSuccess=80", "minimumSuccess"),
        ("prometheusRule.maximumTrainSeconds=1h", "maximumTrainSeconds"),
        ("grafanaDashboard.folder=ML", "folder"),
        ("admissionPolicy.podSecurity=privileged", "podSecurity"),
        ("admissionPolicy.enable=false", "enable"),
        ("networkPolicy.metricsFrom=monitoring", "metricsFrom"),
        ("page.listen=Everywhere", "listen"),
        ("page.listen=Service,page.access=Token", "tokenSecret"),
        ("page.listen=Service,page.access=Header", "proxies"),
        ("networkPolicy.trainingPods.namespaces={Not_A_Name}", "namespaces"),
    ],
)
def test_wrong_values_are_refused_by_name(value: str, part: str, helm: Helm) -> None:
    result = helm("template", "trainyard", str(CHART), "--set", value)
    assert result.returncode != 0
    assert part in result.stderr
