"""What the chart's admission policies let in, on the real API server: kinds of pods, and who may name what.

The objects are those of the test's own API group (`admission.py`), so an operator in the same cluster sees none of them.
"""

import copy
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.api.admission import EDIT, EDITOR, KINDS, NAMED, READABLE, Place, approved, place
from tests.api.conftest import Group, Objects
from tests.api.manifests import COMPLETE, COMPLETE_SCHEDULES, COMPLETE_SWEEPS, SCRATCH, Manifest, run, schedule, sweep
from tests.api.server import Answer, ApiServer
from tests.api.test_crd import EXAMPLES
from trainyard.api import API_VERSION
from trainyard.api.manifest import read_documents
from trainyard.api.schedule.trainingschedule import OVERRIDES_ANNOTATION

pytestmark = pytest.mark.api

Spec = dict[str, Any]


@pytest.fixture(scope="session")
def restricted(server: ApiServer, group: Group, runs: Objects, schedules: Objects, sweeps: Objects) -> Iterator[Place]:
    """The policies with the chart's default values."""
    with place(server, group) as made:
        yield made


@pytest.fixture(scope="session")
def baseline(server: ApiServer, group: Group, runs: Objects, schedules: Objects, sweeps: Objects) -> Iterator[Place]:
    with place(server, group, "admissionPolicy.podSecurity=baseline") as made:
        yield made


@pytest.fixture(scope="session")
def pods_only(server: ApiServer, group: Group, runs: Objects, schedules: Objects, sweeps: Objects) -> Iterator[Place]:
    with place(server, group, "admissionPolicy.authorize=false") as made:
        yield made


def of_template(spec: Spec, *, variants: list[Spec] | None = None, **more: Any) -> Manifest:
    patches = {"variants": variants} if variants else {}
    return schedule({"intervalSeconds": 3600, "template": {"spec": {**SCRATCH, **spec}}, **patches, **more})


FORMS: dict[str, tuple[str, Callable[[Spec], Manifest]]] = {
    "a run": ("spec", lambda spec: run({**SCRATCH, **spec})),
    "a template": ("spec.template.spec", of_template),
    "a variant": ("spec.variants[v].patch", lambda patch: of_template({}, variants=[{"name": "v", "patch": patch}])),
}
forms = pytest.mark.parametrize(("field", "build"), FORMS.values(), ids=FORMS)


def pod(**fields: Any) -> Spec:
    return {"podTemplate": fields}


def container(**fields: Any) -> Spec:
    return pod(containerSecurityContext=fields)


def volume(**source: Any) -> Spec:
    return pod(volumes=[{"name": "x", **source}])


TOKEN = volume(projected={"sources": [{"serviceAccountToken": {"path": "token"}}]})
EVERY_TAINT = {"placement": {"tolerations": [{"operator": "Exists"}]}}
APPARMOR = "container.apparmor.security.beta.kubernetes.io/trainer"

OF_THE_NODE: dict[str, tuple[Spec, str]] = {
    "a path of the node": (volume(hostPath={"path": "/"}), "podTemplate.volumes[x].hostPath is /"),
    "privileged": (container(privileged=True), "podTemplate.containerSecurityContext.privileged is true"),
    "a capability": (
        container(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
        "podTemplate.containerSecurityContext.capabilities.add is [SYS_ADMIN]",
    ),
    "no seccomp": (
        pod(securityContext={"seccompProfile": {"type": "Unconfined"}}),
        "podTemplate.securityContext.seccompProfile.type is Unconfined",
    ),
    "no AppArmor": (
        container(appArmorProfile={"type": "Unconfined"}),
        "podTemplate.containerSecurityContext.appArmorProfile.type is Unconfined",
    ),
    "no AppArmor by annotation": (
        pod(annotations={APPARMOR: "unconfined"}),
        f"podTemplate.annotations[{APPARMOR}] is unconfined",
    ),
    "all of /proc": (container(procMount="Unmasked"), "podTemplate.containerSecurityContext.procMount is Unmasked"),
    "another SELinux type": (
        pod(securityContext={"seLinuxOptions": {"type": "spc_t"}}),
        "podTemplate.securityContext.seLinuxOptions.type is spc_t",
    ),
    "another SELinux role": (
        pod(securityContext={"seLinuxOptions": {"role": "system_r"}}),
        "podTemplate.securityContext.seLinuxOptions.role is system_r",
    ),
    "another SELinux user": (
        pod(securityContext={"seLinuxOptions": {"user": "system_u"}}),
        "podTemplate.securityContext.seLinuxOptions.user is system_u",
    ),
    "a process of a Windows host": (
        pod(securityContext={"windowsOptions": {"hostProcess": True}}),
        "podTemplate.securityContext.windowsOptions.hostProcess is true",
    ),
    "a sysctl of the node": (
        pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]}),
        "podTemplate.securityContext.sysctls is of another kind",
    ),
}
"""What neither level lets in, with what is said about it after the field of the spec."""

OF_THE_NAMESPACE: dict[str, tuple[Spec, str]] = {
    "root": (pod(securityContext={"runAsUser": 0}), "podTemplate.securityContext.runAsUser is 0"),
    "root in the container": (container(runAsUser=0), "podTemplate.containerSecurityContext.runAsUser is 0"),
    "perhaps root": (
        pod(securityContext={"runAsNonRoot": False}),
        "podTemplate.securityContext.runAsNonRoot is false",
    ),
    "perhaps root in the container": (
        container(runAsNonRoot=False),
        "podTemplate.containerSecurityContext.runAsNonRoot is false",
    ),
    "more rights than at its start": (
        container(allowPrivilegeEscalation=True),
        "podTemplate.containerSecurityContext.allowPrivilegeEscalation is true",
    ),
    "a capability that many images have": (
        container(capabilities={"drop": ["ALL"], "add": ["CHOWN"]}),
        "podTemplate.containerSecurityContext.capabilities.add is [CHOWN]",
    ),
    "the capabilities of a container without any word": (
        container(capabilities={}),
        "podTemplate.containerSecurityContext.capabilities.drop (which must hold ALL) is null",
    ),
    "the node's seccomp": (
        pod(securityContext={"seccompProfile": {}}),
        "podTemplate.securityContext.seccompProfile.type is null",
    ),
    "a token of the ServiceAccount": (TOKEN, "podTemplate.volumes[x].projected holds a token"),
    "a certificate of the pod": (
        volume(projected={"sources": [{"podCertificate": {"signerName": "a.example.org/b", "keyType": "ED25519"}}]}),
        "podTemplate.volumes[x].projected holds a token or certificate",
    ),
    "another kind of volume": (volume(nfs={"server": "a", "path": "/b"}), "podTemplate.volumes[x].nfs is /b"),
    "every taint": (EVERY_TAINT, "placement.tolerations has operator Exists without a key"),
    "every taint, with an empty key": (
        {"placement": {"tolerations": [{"key": "", "operator": "Exists", "effect": "NoSchedule"}]}},
        "placement.tolerations has operator Exists without a key",
    ),
}
"""What restricted refuses besides."""

LET_IN: dict[str, Spec] = {
    "a user": pod(securityContext={"runAsUser": 1001, "runAsGroup": 0, "fsGroup": 0}),
    "no user of its own": pod(securityContext={"runAsNonRoot": True}),
    "what restricted asks for": container(
        privileged=False,
        allowPrivilegeEscalation=False,
        runAsNonRoot=True,
        capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        seccompProfile={"type": "Localhost", "localhostProfile": "a.json"},
        appArmorProfile={"type": "RuntimeDefault"},
        procMount="Default",
    ),
    "a safe sysctl": pod(securityContext={"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}),
    "a writable root": container(readOnlyRootFilesystem=False),
    "kinds of volumes that are the namespace's": pod(
        volumes=[
            {"name": "a", "emptyDir": {}},
            {"name": "b", "persistentVolumeClaim": {"claimName": "b"}},
            {"name": "c", "projected": {"sources": [{"downwardAPI": {"items": []}}]}},
            {"name": "d", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            {"name": "e", "csi": {"driver": "secrets.example.org"}},
        ]
    ),
    "one taint": {"placement": {"tolerations": [{"key": "dedicated", "operator": "Exists"}]}},
    "a profile by annotation": pod(annotations={APPARMOR: "runtime/default"}),
}


def refused(answer: Answer, *words: str, code: int = 422) -> None:
    assert answer.code == code, answer.body
    for word in words:
        assert word in answer.message, answer.message


@forms
@pytest.mark.parametrize("user", [EDIT, ""], ids=["edit", "admin"])
@pytest.mark.parametrize(
    ("spec", "told"), [*OF_THE_NODE.values(), *OF_THE_NAMESPACE.values()], ids=[*OF_THE_NODE, *OF_THE_NAMESPACE]
)
def test_restricted_refuses_it_of_everybody_with_field_value_and_way_out(
    spec: Spec, told: str, user: str, field: str, build: Callable[[Spec], Manifest], restricted: Place
) -> None:
    refused(restricted.apply(user, build(spec)), f"{field}.{told}", "level restricted", "admissionPolicy.podSecurity")


@pytest.mark.parametrize(
    "spec",
    [spec for spec, _ in (*OF_THE_NODE.values(), *OF_THE_NAMESPACE.values())],
    ids=[*OF_THE_NODE, *OF_THE_NAMESPACE],
)
@pytest.mark.parametrize("who", ["editor", "tenant of Flux", "Flux", "operator"])
def test_no_other_author_gets_it_either(spec: Spec, who: str, restricted: Place) -> None:
    """Whichever policy speaks first. The operator's own writes too: a schedule may be older than the policy."""
    answer = restricted.run(user_of(restricted, who), {**SCRATCH, **spec})
    assert answer.code in (403, 422), answer.body
    assert "ValidatingAdmissionPolicy" in answer.message


@forms
@pytest.mark.parametrize("spec", LET_IN.values(), ids=LET_IN)
def test_restricted_lets_in_what_the_standard_lets_in(
    spec: Spec, field: str, build: Callable[[Spec], Manifest], restricted: Place
) -> None:
    answer = restricted.apply(EDITOR, build(spec))
    assert answer.accepted, f"{field}: {answer.message}"


@forms
@pytest.mark.parametrize(("spec", "told"), OF_THE_NODE.values(), ids=OF_THE_NODE)
def test_baseline_refuses_what_is_of_the_node(
    spec: Spec, told: str, field: str, build: Callable[[Spec], Manifest], baseline: Place
) -> None:
    refused(baseline.apply(EDIT, build(spec)), f"{field}.{told}", "level baseline")


@forms
@pytest.mark.parametrize("spec", [spec for spec, _ in OF_THE_NAMESPACE.values()], ids=OF_THE_NAMESPACE)
def test_baseline_lets_in_the_rest(spec: Spec, field: str, build: Callable[[Spec], Manifest], baseline: Place) -> None:
    answer = baseline.apply(EDIT, build(spec))
    assert answer.accepted, f"{field}: {answer.message}"


def test_all_faults_are_told_at_once(restricted: Place) -> None:
    spec = pod(
        volumes=[{"name": "a", "hostPath": {"path": "/etc"}}, {"name": "b", "hostPath": {"path": "/var"}}],
        securityContext={"runAsUser": 0},
        containerSecurityContext={"privileged": True},
    )
    both = [{"name": "one", "patch": spec}, {"name": "two", "patch": {**spec, **EVERY_TAINT}}]
    refused(
        restricted.apply(EDIT, of_template({}, variants=both)),
        "spec.variants[one].patch.podTemplate.volumes[a].hostPath is /etc",
        "spec.variants[two].patch.podTemplate.volumes[b].hostPath is /var",
        "spec.variants[one].patch.podTemplate.securityContext.runAsUser is 0",
        "spec.variants[two].patch.podTemplate.containerSecurityContext.privileged is true",
        "spec.variants[two].patch.placement.tolerations",
    )


def test_a_hundred_faults_are_told_too(restricted: Place) -> None:
    volumes = [{"name": f"{'x' * 50}-{n}", "hostPath": {"path": f"/{'y' * 200}"}} for n in range(32)]
    refused(restricted.run(EDIT, {**SCRATCH, **pod(volumes=volumes)}), "hostPath", "...", "admissionPolicy.podSecurity")


def test_every_fault_at_once_is_within_what_a_policy_may_cost(restricted: Place) -> None:
    """Refused in our words: beyond the bound, the API server would say something about its budget."""
    context = {"runAsUser": 0, "runAsNonRoot": False, "seccompProfile": {"type": "Unconfined"}}
    volumes = [{"name": f"{'x' * 50}-{n}", "hostPath": {"path": "/" + "y" * 200}} for n in range(32)]
    worst = {**pod(volumes=volumes, securityContext=context, containerSecurityContext=context), **EVERY_TAINT}
    variants = [{"name": f"v-{n}", "patch": worst} for n in range(32)]
    refused(restricted.apply(EDIT, of_template(worst, variants=variants)), "runAsNonRoot is false", "...", "restricted")


# Who may name what: the editor's role gives neither Secrets nor ConfigMaps nor ServiceAccounts.
WHO = ("editor", "named", "edit", "tenant of Flux", "Flux", "operator")
NOBODY_ELSE: tuple[str, ...] = ("edit", "tenant of Flux", "Flux")
ALL: tuple[str, ...] = WHO
AUTHORS: dict[str, tuple[Spec, tuple[str, ...], str]] = {
    "nothing": ({}, ALL, ""),
    "a Secret of a dataset": (
        {"datasets": [{"name": "d", "storageUri": "s3://bucket/key", "secretRef": {"name": "store"}}]},
        ("named", *NOBODY_ELSE, "operator"),
        "datasets[d].secretRef.name names the Secret store",
    ),
    "another Secret of a dataset": (
        {"datasets": [{"name": "d", "storageUri": "s3://bucket/key", "secretRef": {"name": "other"}}]},
        (*NOBODY_ELSE, "operator"),
        "datasets[d].secretRef.name names the Secret other",
    ),
    "a Secret in a variable": (
        pod(env=[{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "other", "key": "a"}}}]),
        (*NOBODY_ELSE, "operator"),
        "podTemplate.env[KEY].valueFrom.secretKeyRef.name names the Secret other",
    ),
    "a Secret as variables of an init container": (
        pod(initContainers=[{"name": "one", "image": "a", "envFrom": [{"secretRef": {"name": "other"}}]}]),
        (*NOBODY_ELSE, "operator"),
        "podTemplate.initContainers[one].envFrom[].secretRef.name names the Secret other",
    ),
    "a Secret as variables": (
        pod(envFrom=[{"secretRef": {"name": "other"}}]),
        (*NOBODY_ELSE, "operator"),
        "podTemplate.envFrom[].secretRef.name names the Secret other",
    ),
    "a Secret as a volume": (
        volume(secret={"secretName": "other"}),
        (*NOBODY_ELSE, "operator"),
        "podTemplate.volumes[x].secret.secretName names the Secret other",
    ),
    "a Secret in a projected volume": (
        volume(projected={"sources": [{"downwardAPI": {}}, {"secret": {"name": "other"}}]}),
        (*NOBODY_ELSE, "operator"),
        "podTemplate.volumes[x].projected.sources[].secret.name names the Secret other",
    ),
    "a Secret of a driver": (
        volume(csi={"driver": "a.example.org", "nodePublishSecretRef": {"name": "other"}}),
        (*NOBODY_ELSE, "operator"),
        "podTemplate.volumes[x].csi.nodePublishSecretRef.name names the Secret other",
    ),
    "a Secret of a registry": (
        pod(imagePullSecrets=[{"name": "other"}]),
        (*NOBODY_ELSE, "operator"),
        "podTemplate.imagePullSecrets[other].name names the Secret other",
    ),
    "a ConfigMap in a variable": (
        pod(env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}]),
        ("named", *NOBODY_ELSE, "operator"),
        "podTemplate.env[A].valueFrom.configMapKeyRef.name names the ConfigMap settings",
    ),
    "a ConfigMap as variables": (
        pod(envFrom=[{"configMapRef": {"name": "other"}}]),
        (*NOBODY_ELSE, "operator"),
        "podTemplate.envFrom[].configMapRef.name names the ConfigMap other",
    ),
    "a ConfigMap as a volume": (
        volume(configMap={"name": "other"}),
        (*NOBODY_ELSE, "operator"),
        "podTemplate.volumes[x].configMap.name names the ConfigMap other",
    ),
    "a ConfigMap in a projected volume": (
        volume(projected={"sources": [{"configMap": {"name": "other"}}]}),
        (*NOBODY_ELSE, "operator"),
        "podTemplate.volumes[x].projected.sources[].configMap.name names the ConfigMap other",
    ),
    "a ServiceAccount that he may use": (
        pod(serviceAccountName="sa"),
        ("named", *NOBODY_ELSE, "operator"),
        "podTemplate.serviceAccountName names the ServiceAccount sa",
    ),
    "another ServiceAccount": (
        pod(serviceAccountName="other"),
        (*NOBODY_ELSE, "operator"),
        "podTemplate.serviceAccountName names the ServiceAccount other",
    ),
    "a ConfigMap that he may change": (
        {"exports": [{"name": "e", "configMap": {"name": "agent", "data": {"a": "b"}}}]},
        ("named", *NOBODY_ELSE, "operator"),
        "exports[e].configMap.name names the ConfigMap agent",
    ),
    "a ConfigMap that he may only read": (
        {"exports": [{"name": "e", "configMap": {"name": "settings", "data": {"a": "b"}}}]},
        (*NOBODY_ELSE, "operator"),
        "exports[e].configMap.name names the ConfigMap settings",
    ),
    "a Deployment that is started anew": (
        {
            "exports": [
                {
                    "name": "e",
                    "configMap": {"name": "agent", "data": {"a": "b"}, "rolloutRestart": {"deployment": "agent"}},
                }
            ]
        },
        (*NOBODY_ELSE, "operator"),
        "",
    ),
    "a Deployment that makes room": (
        {"placement": {"yieldFrom": [{"deployment": "agent"}]}},
        (*NOBODY_ELSE, "operator"),
        "placement.yieldFrom[].deployment names the Deployment agent",
    ),
    "the ServiceAccount that every pod has": (pod(serviceAccountName="default"), ALL, ""),
}


def test_an_inference_service_is_changed_for_whoever_may_change_it_himself(restricted: Place) -> None:
    spec = {**SCRATCH, "exports": [{"name": "e", "kserve": {"inferenceService": "agent", "storageUri": "s3://b/m"}}]}
    told = "spec.exports[e].kserve.inferenceService names the InferenceService agent"
    refused(restricted.run(EDIT, spec), told, "ask for patch on it", code=403)
    assert restricted.run(restricted.flux, spec).accepted


def test_a_deployment_elsewhere_makes_room_for_whoever_may_change_it_there(restricted: Place) -> None:
    spec = {
        **SCRATCH,
        "placement": {"yieldFrom": [{"deployment": "agent"}, {"deployment": "ollama", "namespace": "serving"}]},
    }
    told = "spec.placement.yieldFrom[].deployment names the Deployment ollama, which"
    refused(restricted.run(EDIT, spec), told, "may not change in namespace serving: name another one", code=403)
    assert restricted.run(restricted.flux, spec).accepted
    assert restricted.apply(restricted.operator, run(spec)).accepted


def user_of(place: Place, who: str) -> str:
    own = {"tenant of Flux": place.tenant, "Flux": place.flux, "operator": place.operator}
    return own.get(who) or {"editor": EDITOR, "named": NAMED, "edit": EDIT}[who]


@forms
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(("spec", "allowed", "told"), AUTHORS.values(), ids=AUTHORS)
def test_a_run_may_name_what_its_author_may_use_himself(
    spec: Spec,
    allowed: tuple[str, ...],
    told: str,
    who: str,
    field: str,
    build: Callable[[Spec], Manifest],
    restricted: Place,
) -> None:
    user = user_of(restricted, who)
    answer = restricted.apply(user, build(spec))
    if who in allowed:
        assert answer.accepted, answer.message
    else:
        refused(answer, f"{field}.{told}", f"{user} may not", "ask for", "the role edit", code=403)


@forms
@pytest.mark.parametrize(("who", "allowed"), [("editor", False), ("named", False), ("edit", True), ("Flux", True)])
def test_a_token_needs_the_right_to_make_one(
    who: str, allowed: bool, field: str, build: Callable[[Spec], Manifest], baseline: Place
) -> None:
    """Under baseline, where tokens may be mounted. The right to use an account is less than that to act as it."""
    volumes = TOKEN["podTemplate"]["volumes"]
    for account, told in (({}, "default"), ({"serviceAccountName": "sa"}, "sa")):
        answer = baseline.apply(user_of(baseline, who), build(pod(volumes=volumes, **account)))
        if allowed:
            assert answer.accepted, answer.message
        else:
            refused(answer, f"asks for a token of the ServiceAccount {told}", "create on its token", code=403)


@pytest.mark.parametrize("who", ["editor", "named", "edit"])
@pytest.mark.parametrize(
    "trigger",
    [
        {"gitPath": {"url": "https://git.example.org/a"}},
        {"prometheus": {"url": "https://p.example.org", "query": "up", "comparison": "LessThan", "threshold": 1}},
        {
            "mlflowMetric": {
                "trackingUri": "https://m.example.org",
                "model": "m",
                "alias": "a",
                "metric": "f1",
                "comparison": "LessThan",
                "threshold": 1,
            }
        },
        {"dataset": {"url": "https://data.example.org/a.jsonl"}},
    ],
    ids=lambda trigger: str(next(iter(trigger))),
)
def test_a_trigger_may_use_what_its_author_may_read(trigger: Spec, who: str, restricted: Place) -> None:
    ((kind, source),) = trigger.items()
    for name in ("store", "other"):
        manifest = of_template({}, triggers=[{"name": "t", kind: {**source, "secretRef": {"name": name}}}])
        answer = restricted.apply(user_of(restricted, who), manifest)
        if who == "edit" or (who == "named" and name == "store"):
            assert answer.accepted, answer.message
        else:
            refused(answer, f"spec.triggers[t].{kind}.secretRef.name names the Secret {name}", code=403)


def places_of(value: Any, key: str, at: str = "") -> Iterator[tuple[str, Spec]]:
    """Every mapping under this key, with its path."""
    if isinstance(value, list):
        for item in value:
            name = item.get("name", "") if isinstance(item, dict) else ""
            yield from places_of(item, key, f"{at}[{name}]")
    if isinstance(value, dict):
        for name, inner in value.items():
            here = f"{at}.{name}" if at else name
            if name == key:
                yield here, inner
            yield from places_of(inner, key, here)


EVERYTHING: list[Manifest] = [*map(run, COMPLETE), *map(schedule, COMPLETE_SCHEDULES), *map(sweep, COMPLETE_SWEEPS)]
NAMING_SECRETS = [
    (copy.deepcopy(manifest), path) for manifest in EVERYTHING for path, _ in places_of(manifest, "secretRef")
]


@pytest.mark.parametrize(("manifest", "path"), NAMING_SECRETS, ids=[path for _, path in NAMING_SECRETS])
def test_every_secret_of_the_complete_manifests_is_asked_about(
    manifest: Manifest, path: str, restricted: Place
) -> None:
    """The user may read all Secrets that they name but the one at this place."""
    named = dict(places_of(manifest, "secretRef"))
    assert {ref["name"] for ref in named.values()} <= set(READABLE)
    fine = restricted.apply(NAMED, manifest)
    assert "names the Secret" not in fine.message
    named[path]["name"] = "unreadable"
    refused(restricted.apply(NAMED, manifest), f"{path}.name names the Secret unreadable", code=403)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_the_examples_pass_as_they_stand(file: Any, restricted: Place) -> None:
    manifests = [d.value for d in read_documents(file.read_text()) if d.value["apiVersion"] == API_VERSION]
    assert manifests
    for manifest in manifests:
        manifest["metadata"].pop("namespace", None)
        for user in (EDIT, restricted.tenant):
            answer = restricted.apply(user, manifest)
            assert answer.accepted, answer.message


@pytest.mark.parametrize("manifest", EVERYTHING, ids=range(len(EVERYTHING)))
def test_the_complete_manifests_pass(manifest: Manifest, restricted: Place) -> None:
    # The cluster's role edit has no right to KServe's objects, and none in another namespace.
    user = restricted.flux if {"kserve", "serving"} & set(re.findall(r"\w+", str(manifest))) else EDIT
    answer = restricted.apply(user, manifest)
    assert answer.accepted, answer.message


def test_a_run_is_approved_by_whoever_has_the_right_to(restricted: Place) -> None:
    template = {"metadata": {"annotations": {"trainyard.dev/approved": "yes"}}, "spec": SCRATCH}
    of_schedule = schedule({"intervalSeconds": 3600, "template": template})
    for manifest in (approved(run(SCRATCH)), of_schedule):
        refused = restricted.apply(EDITOR, manifest)
        assert "editor@example.org may not in namespace" in refused.message
        assert "ask for approve on trainingruns.trainyard.dev" in refused.message
        allowed = restricted.apply(NAMED, manifest)
        assert allowed.accepted, allowed.message


def test_what_an_unapproved_run_may_cost_is_changed_by_whoever_may_approve_it(restricted: Place) -> None:
    cost = {"hourlyRate": 1.0, "limit": 5.0, "requireApproval": True}
    for name, asks in (("dear", True), ("cheap", False)):
        made = restricted.objects("testtrainingruns", EDITOR)
        assert (
            answer := made.create(run({**SCRATCH, "cost": cost | {"requireApproval": asks}}, name=name))
        ).accepted, answer.message
    for change in ({"spec": {"cost": None}}, {"spec": {"cost": {"limit": 50.0}}}):
        asked = {
            who: restricted.objects("testtrainingruns", who).patch("dear", change, dry_run=True)
            for who in (EDITOR, NAMED)
        }
        assert "spec.cost of a run that asks for approval" in asked[EDITOR].message
        assert asked[NAMED].accepted, asked[NAMED].message
        assert restricted.objects("testtrainingruns", EDITOR).patch("cheap", change, dry_run=True).accepted
    other = restricted.objects("testtrainingruns", EDITOR).patch("dear", {"spec": {"suspend": True}}, dry_run=True)
    assert other.accepted, other.message


def test_without_authorize_only_pods_are_judged(pods_only: Place) -> None:
    names = pod(envFrom=[{"secretRef": {"name": "any"}}, {"configMapRef": {"name": "any"}}], serviceAccountName="any")
    assert pods_only.run(EDITOR, {**SCRATCH, **names}).accepted
    refused(pods_only.run(EDITOR, {**SCRATCH, **volume(hostPath={"path": "/"})}), "hostPath")


def test_patches_of_another_kind_are_left_to_the_operator(restricted: Place) -> None:
    """They can make no run, so nobody has to be asked; and the API server's own words about them would help nobody."""
    texts: list[Any] = ["text", 1, [], None, {}, ["text"], [[]]]
    wrong: list[Spec] = [
        *({"podTemplate": value} for value in texts),
        *(pod(volumes=value) for value in texts),
        *(pod(volumes=[{"name": value, "secret": value, "projected": value}]) for value in texts),
        *(pod(volumes=[{"secret": {"secretName": value}, "projected": {"sources": value}}]) for value in texts[1:]),
        *(pod(securityContext=value, containerSecurityContext=value) for value in texts),
        pod(securityContext={"runAsUser": [1], "supplementalGroups": "text"}, serviceAccountName=[1]),
        *(pod(env=value, envFrom=value, imagePullSecrets=value, annotations=value) for value in texts),
        *(pod(env=[{"name": value, "valueFrom": value}]) for value in texts),
        *({"datasets": value, "phases": value, "training": value, "model": value} for value in texts),
        *({"datasets": [{"name": value, "secretRef": value}]} for value in texts),
        *({"placement": value} for value in texts),
        *({"placement": {"tolerations": value}} for value in texts),
        {"placement": {"tolerations": [{"key": 1, "operator": 2}]}},
    ]
    for patch in wrong:
        answer = restricted.apply(EDITOR, of_template({}, variants=[{"name": "v", "patch": patch}]))
        assert answer.accepted, f"{patch}: {answer.message}"


ONE_BY_ONE = 16
"""So many names are asked about, where somebody may not read all objects of the kind."""


def with_secrets(number: int, *, name: str = "own-{}") -> Spec:
    """Thirty-two datasets with so many Secrets, the first of them last."""
    address = {"storageUri": "s3://bucket/key"}
    return {
        **SCRATCH,
        "datasets": [
            {"name": f"{'d' * 60}-{n}", **address, "secretRef": {"name": name.format((n - 1) % number)}}
            for n in range(32)
        ],
    }


def test_thirty_two_datasets_may_each_have_a_secret_of_their_own(restricted: Place) -> None:
    """For who may read all Secrets: that is one question."""
    assert restricted.run(EDIT, with_secrets(32)).accepted
    refused(restricted.run(EDITOR, with_secrets(ONE_BY_ONE)), "names the Secret own-", code=403)
    refused(restricted.run(EDITOR, with_secrets(ONE_BY_ONE + 1)), f"more than {ONE_BY_ONE} different Secrets", code=403)


def test_the_dearest_schedule_is_within_what_a_policy_may_cost(restricted: Place) -> None:
    """Every question is asked, over 32 variants with 32 datasets each, and all names are as long as they may be."""
    long = "s" * 250 + "{:02d}"
    names = [long.format(n) for n in range(ONE_BY_ONE)]
    user = restricted.somebody_who_may_read(names)

    def dearest(number: int, *, last: str | None = None) -> Manifest:
        patches = [with_secrets(number, name=long) for _ in range(32)]
        if last is not None:
            patches[31]["datasets"][31]["secretRef"]["name"] = last
        variants = [{"name": f"{'v' * 30}-{n}", "patch": patch} for n, patch in enumerate(patches)]
        return of_template(with_secrets(number, name=long), variants=variants)

    answer = restricted.apply(user, dearest(ONE_BY_ONE))
    assert answer.accepted, answer.message
    refused(restricted.apply(user, dearest(ONE_BY_ONE, last="unreadable")), "more than", code=403)
    told = f"spec.variants[{'v' * 30}-31].patch.datasets[{'d' * 60}-31].secretRef.name names the Secret unreadable"
    refused(restricted.apply(user, dearest(ONE_BY_ONE - 1, last="unreadable")), told, code=403)


class TestChanges:
    """A change is judged as a whole new object is, unless no pod can come of it that was not there before."""

    @pytest.fixture
    def theirs(self, restricted: Place) -> Iterator[Objects]:
        """A run that somebody with more rights has made, and a schedule."""
        spec = {**SCRATCH, **pod(envFrom=[{"secretRef": {"name": "other"}}])}
        runs, schedules = (restricted.objects(p, EDIT) for p in ("testtrainingruns", "testtrainingschedules"))
        assert runs.create(run(spec, name="theirs")).accepted
        assert schedules.create({**of_template(spec), "metadata": {"name": "theirs"}}).accepted
        yield restricted.objects("testtrainingruns", EDITOR)
        for objects in (runs, schedules):
            objects.server.request("DELETE", f"{objects.path}/theirs")

    @pytest.mark.parametrize(
        "change",
        [
            {"metadata": {"labels": {"a": "b"}, "annotations": {"trainyard.dev/cancel": "now"}}},
            {"spec": {"suspend": True}},
            {"spec": {"backoffLimit": 5, "activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 60}},
        ],
        ids=["metadata", "suspend", "limits"],
    )
    def test_to_pause_somebody_elses_run_needs_no_right_to_its_secrets(self, change: Spec, theirs: Objects) -> None:
        answer = theirs.patch("theirs", change, dry_run=True)
        assert answer.accepted, answer.message

    @pytest.mark.parametrize(
        "change",
        [
            {"spec": {"image": "example.org/mine:1"}},
            {"spec": {"command": ["sh"], "image": "example.org/mine:1", "suspend": True}},
            {"spec": {"datasets": [{"name": "mine", "inline": {"text": "a"}}]}},
        ],
        ids=["image", "command", "data"],
    )
    def test_to_run_something_else_with_its_secrets_does(self, change: Spec, theirs: Objects) -> None:
        refused(theirs.patch("theirs", change, dry_run=True), "names the Secret other", code=403)

    def test_a_status_is_never_judged(self, theirs: Objects, restricted: Place) -> None:
        assert (
            restricted.objects("testtrainingruns", "")
            .patch("theirs", {"status": {"message": "a"}}, status=True)
            .accepted
        )

    def test_a_schedule_likewise(self, theirs: Objects, restricted: Place) -> None:
        schedules = restricted.objects("testtrainingschedules", EDITOR)
        assert schedules.patch("theirs", {"spec": {"suspend": True, "intervalSeconds": 60}}, dry_run=True).accepted
        changes = (
            {"template": {"spec": {"image": "example.org/mine:1"}}},
            {"variants": [{"name": "v", "patch": {"image": "example.org/mine:1"}}]},
        )
        for change in changes:
            refused(schedules.patch("theirs", {"spec": change}, dry_run=True), "names the Secret other", code=403)

    def test_pods_are_judged_at_a_change_too(self, theirs: Objects, restricted: Place) -> None:
        own = restricted.objects("testtrainingruns", EDIT)
        refused(own.patch("theirs", {"spec": volume(hostPath={"path": "/"})}, dry_run=True), "hostPath is /")


@pytest.mark.parametrize(
    ("overrides", "allowed"),
    [
        ('{"training": {"maxSteps": 5}}', ("editor", "named", "edit")),
        ('{"podTemplate": {"serviceAccountName": "sa"}}', ("edit",)),
        ('{"model": {"storageUri": "hf://a/b", "secretRef": {"name": "other"}}}', ("edit",)),
        # Behind a backslash may be any field, also one that the role edit has no right to.
        (r'{"pod\u0054emplate": {"serviceAccountName": "sa"}}', ()),
    ],
    ids=["steps", "pod", "secret", "hidden"],
)
@pytest.mark.parametrize("who", ["editor", "named", "edit"])
def test_overrides_of_one_start_are_judged_by_their_words(
    overrides: str, allowed: tuple[str, ...], who: str, restricted: Place
) -> None:
    """The operator makes that run, so nobody would ask about it later."""
    manifest = of_template({})
    manifest["metadata"] = {"name": "a", "annotations": {OVERRIDES_ANNOTATION: overrides}}
    user = user_of(restricted, who)
    answer = restricted.apply(user, manifest)
    schedules = restricted.objects("testtrainingschedules", user)
    restricted.objects("testtrainingschedules", "").create({**of_template({}), "metadata": {"name": "there"}})
    later = schedules.patch("there", {"metadata": {"annotations": manifest["metadata"]["annotations"]}}, dry_run=True)
    for each in (answer, later):
        if who in allowed:
            assert each.accepted, each.message
        else:
            refused(each, OVERRIDES_ANNOTATION, "leave it out", "ask for", code=403)


def test_the_api_server_finds_no_fault_in_the_expressions(restricted: Place) -> None:
    deadline = time.monotonic() + 30
    path = KINDS["ValidatingAdmissionPolicy"]
    names = [
        f"{restricted.release}-trainyard-{part}"
        for part in ("pods", "secrets", "configmaps", "serviceaccounts", "approvals")
    ]
    for name in names:
        while "typeChecking" not in (found := restricted.server.request("GET", f"{path}/{name}").body).get(
            "status", {}
        ):
            assert time.monotonic() < deadline, f"{name} was not checked"
            time.sleep(0.2)
        assert found["status"]["typeChecking"] == {}, found["status"]
