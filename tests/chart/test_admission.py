"""The admission policies as the chart renders them. What they let in is tested on the API server (tests/api)."""

import re
from typing import Any

import pytest

from tests.chart.conftest import Objects, Render, of_kind, one
from trainyard.api import GROUP

POLICY, BINDING = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"
PODS = "trainyard-pods"
WRITTEN = {
    "trainyard-written-configmaps",
    "trainyard-restarted-deployments",
    "trainyard-written-inferenceservices",
    "trainyard-yielding-deployments",
}
AUTHORS = {
    "trainyard-approvals",
    "trainyard-secrets",
    "trainyard-configmaps",
    "trainyard-serviceaccounts",
    *WRITTEN,
}


def names(objects: Objects, kind: str = POLICY) -> set[str]:
    return {o["metadata"]["name"] for o in of_kind(objects, kind)}


def condition(policy: dict[str, Any], name: str) -> str | None:
    return next((str(c["expression"]) for c in policy["spec"].get("matchConditions", ()) if c["name"] == name), None)


def test_they_are_on_by_default_and_each_is_bound(render: Render) -> None:
    objects = render()
    assert names(objects) == {PODS, *AUTHORS}
    assert {b["spec"]["policyName"] for b in of_kind(objects, BINDING)} == {PODS, *AUTHORS}
    assert all(b["spec"]["validationActions"] == ["Deny"] for b in of_kind(objects, BINDING))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("admissionPolicy.enabled=false",), set()),
        (("admissionPolicy.authorize=false",), {PODS}),
        (("admissionPolicy.podSecurity=off",), AUTHORS),
        (("admissionPolicy.podSecurity=off", "admissionPolicy.authorize=false"), set()),
    ],
)
def test_each_half_can_be_turned_off(values: tuple[str, ...], expected: set[str], render: Render) -> None:
    objects = render(*values)
    assert names(objects) == names(objects, BINDING) == expected


def test_they_judge_our_kinds_when_they_are_written_and_nothing_else(render: Render) -> None:
    for policy in of_kind(render(), POLICY):
        (rule,) = policy["spec"]["matchConstraints"]["resourceRules"]
        assert rule["apiGroups"] == [GROUP]
        assert rule["resources"] == ["trainingruns", "trainingschedules", "trainingsweeps"]  # not their status
        assert rule["operations"] == ["CREATE", "UPDATE"]


def test_what_cannot_be_judged_is_refused(render: Render) -> None:
    assert all(policy["spec"]["failurePolicy"] == "Fail" for policy in of_kind(render(), POLICY))


def test_they_hold_where_the_operator_works(render: Render) -> None:
    assert all("matchResources" not in b["spec"] for b in of_kind(render(), BINDING))
    for binding in of_kind(render("watchNamespaces={a,b}"), BINDING):
        (expression,) = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
        assert expression == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]}


def test_the_operators_own_account_is_let_through_by_those_about_authors(render: Render) -> None:
    objects = render("serviceAccount.name=other")
    account = one(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
    other = f"request.userInfo.username != 'system:serviceaccount:trainyard-system:{account}'"
    for policy in of_kind(objects, POLICY):
        expected = other if policy["metadata"]["name"] in AUTHORS else None
        assert condition(policy, "not-the-operator") == expected


def test_no_policy_asks_more_questions_than_the_api_server_answers(render: Render) -> None:
    """It counts 350,000 for each of them, of 1,000,000 for an expression and 10,000,000 for a policy."""
    for policy in of_kind(render(), POLICY):
        expressions = [e["expression"] for e in (*policy["spec"]["variables"], *policy["spec"]["validations"])]
        questions = [e.count(".check(") for e in expressions]
        assert max(questions) <= 2
        assert sum(questions) * 350_000 <= 9_500_000


def test_no_message_needs_an_answer_of_the_authorizer(render: Render) -> None:
    """The API server makes messages without it."""
    for policy in of_kind(render(), POLICY):
        asking = {v["name"] for v in policy["spec"]["variables"] if "authorizer" in v["expression"]}
        for validation in policy["spec"]["validations"]:
            read = set(re.findall(r"variables\.(\w+)", validation.get("messageExpression", "")))
            assert not asking & read
            assert validation["message"]


@pytest.mark.parametrize("level", ["restricted", "baseline"])
def test_the_editors_role_says_what_it_gives(level: str, render: Render) -> None:
    told = editor(render(f"admissionPolicy.podSecurity={level}"))
    assert "run any image and command" in told
    assert f"pods of the level {level}" in told
    assert "that the same person may use anyway" in told


def editor(objects: Objects) -> str:
    role = next(o for o in of_kind(objects, "ClusterRole") if o["metadata"]["name"] == "trainyard-editor")
    return str(role["metadata"]["annotations"]["kubernetes.io/description"])


def test_without_policies_the_role_says_so_too(render: Render) -> None:
    told = editor(render("admissionPolicy.enabled=false"))
    assert "any pod that the namespace's Pod Security lets in" in told
    assert "every Secret, ConfigMap and ServiceAccount in it" in told
