"""Who may reach the operator and the pods of runs, and whom they may reach."""

from typing import Any

import pytest

from tests.chart.conftest import Objects, Render, of_kind, one
from trainyard.api.names import RUN_LABEL

OF_RUNS = {"matchExpressions": [{"key": RUN_LABEL, "operator": "Exists"}]}
DNS = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
MONITORING = "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=monitoring"


def spec(objects: Objects) -> dict[str, Any]:
    found: dict[str, Any] = one(objects, "NetworkPolicy")["spec"]
    return found


def to_port(rules: list[dict[str, Any]], port: str) -> list[list[dict[str, Any]] | None]:
    """Of each rule that speaks of this port: from whom; None is everybody."""
    return [rule.get("from") for rule in rules if port in {p["port"] for p in rule["ports"]}]


def selected(policy: dict[str, Any], pod: dict[str, Any]) -> bool:
    return bool(policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items())


def test_the_operators_pod_is_meant_and_no_other(render: Render) -> None:
    objects = render()
    assert selected(spec(objects), one(objects, "Deployment")["spec"]["template"])
    assert not selected(spec(objects), one(objects, "Pod"))


def test_reports_come_from_pods_of_runs_in_any_namespace(render: Render) -> None:
    """And from the pod of `helm test`, which asks whether strangers are refused."""
    objects = render()
    reporters, test = to_port(spec(objects)["ingress"], "receiver")
    assert reporters == [{"namespaceSelector": {}, "podSelector": OF_RUNS}]
    assert test is not None
    (peer,) = test
    assert peer["podSelector"]["matchLabels"].items() <= one(objects, "Pod")["metadata"]["labels"].items()


def test_metrics_come_from_everywhere_or_from_chosen_places(render: Render) -> None:
    assert to_port(spec(render())["ingress"], "health") == [None]
    for port, rules in (("health", 1), ("metrics", 2)):
        found = to_port(spec(render(MONITORING))["ingress"], port)
        assert len(found) == rules
        assert found[0] == [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}]


def test_others_may_be_let_in_to_the_receiver(render: Render) -> None:
    objects = render("networkPolicy.receiverFrom[0].ipBlock.cidr=192.0.2.0/24")
    assert to_port(spec(objects)["ingress"], "receiver")[0] == [
        {"namespaceSelector": {}, "podSelector": OF_RUNS},
        {"ipBlock": {"cidr": "192.0.2.0/24"}},
    ]


def test_a_page_under_a_service_is_reached_from_everywhere_or_from_chosen_places(render: Render) -> None:
    assert to_port(spec(render())["ingress"], "page") == []
    assert to_port(spec(render("page.listen=Service"))["ingress"], "page") == [None]
    chosen = render("page.listen=Service", "networkPolicy.pageFrom[0].ipBlock.cidr=192.0.2.0/24")
    assert to_port(spec(chosen)["ingress"], "page") == [[{"ipBlock": {"cidr": "192.0.2.0/24"}}]]


def test_nothing_holds_the_operator_back_until_somebody_says_where_it_may_go(render: Render) -> None:
    assert spec(render())["policyTypes"] == ["Ingress"]
    objects = render("networkPolicy.egress[0].to[0].ipBlock.cidr=192.0.2.10/32")
    assert spec(objects)["policyTypes"] == ["Ingress", "Egress"]
    assert spec(objects)["egress"] == [{"ports": DNS}, {"to": [{"ipBlock": {"cidr": "192.0.2.10/32"}}]}]


def test_the_ports_are_those_of_the_container(render: Render) -> None:
    objects = render("networkPolicy.trainingPods.namespaces={a}")
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {p["name"] for p in container["ports"]}
    for policy in of_kind(objects, "NetworkPolicy"):
        rules = [*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())]
        named = {p["port"] for rule in rules for p in rule.get("ports", ()) if isinstance(p["port"], str)}
        assert named <= ports


@pytest.fixture
def training(render: Render) -> dict[str, Any]:
    (found,) = [
        o
        for o in of_kind(render("networkPolicy.trainingPods.namespaces={team}"), "NetworkPolicy")
        if o["metadata"]["namespace"] == "team"
    ]
    return found


def test_pods_of_runs_reach_each_other_the_operator_and_the_world(training: dict[str, Any], render: Render) -> None:
    assert training["spec"]["podSelector"] == OF_RUNS
    dns, peers, operator, world = training["spec"]["egress"]
    assert dns == {"ports": DNS}
    assert peers == {"to": [{"podSelector": OF_RUNS}]}
    (place,) = operator["to"]
    pod = one(render(), "Deployment")["spec"]["template"]
    assert place["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert place["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "trainyard-system"}
    assert {"namespaceSelector": {}} in world["to"]


def test_pods_of_runs_do_not_reach_where_clouds_hand_out_credentials(training: dict[str, Any]) -> None:
    blocks = [
        peer["ipBlock"] for rule in training["spec"]["egress"] for peer in rule.get("to", ()) if "ipBlock" in peer
    ]
    assert [b["cidr"] for b in blocks] == ["0.0.0.0/0", "::/0"]
    assert "169.254.0.0/16" in blocks[0]["except"]
    assert "fe80::/10" in blocks[1]["except"]


def test_only_other_pods_of_runs_reach_them(training: dict[str, Any]) -> None:
    assert training["spec"]["ingress"] == [{"from": [{"podSelector": OF_RUNS}]}]


def test_there_need_be_none_at_all(render: Render) -> None:
    assert not of_kind(
        render("networkPolicy.enabled=false", "networkPolicy.trainingPods.namespaces={a}"), "NetworkPolicy"
    )
