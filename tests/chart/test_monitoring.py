"""Rules and dashboard of the chart: what they are asked under, and that the operator has all that they ask for."""

import json

import pytest

from tests.chart.conftest import Render, of_kind, one
from tests.chart.monitoring import DASHBOARD, LIMITS, asked, listed, names_of, operator_metrics, panels, rules


def test_neither_is_there_unless_asked_for(render: Render) -> None:
    assert not of_kind(render(), "PrometheusRule")
    assert not of_kind(render(), "ConfigMap")


def test_every_metric_of_rules_and_dashboard_is_one_of_the_operator(render: Render) -> None:
    groups = rules(render, *LIMITS)
    recorded = listed(groups, "record")
    known = names_of(operator_metrics().registry)
    assert len(known) > 30
    for expression in (*recorded.values(), *listed(groups, "alert").values()):
        assert asked(expression) <= known | recorded.keys()
    for _, expression in panels():
        assert asked(expression)
        assert asked(expression) <= known, "the dashboard works without the rules"


def test_a_threshold_of_zero_takes_its_alert_away(render: Render) -> None:
    alerts = listed(rules(render, *LIMITS), "alert")
    assert {"TrainyardTrainingIsSlow", "TrainyardAccuracyIsLow"} <= alerts.keys()
    assert alerts["TrainyardTrainingIsSlow"].endswith("> 7200")
    without = listed(rules(render, "prometheusRule.minimumAccuracy=0"), "alert")
    assert alerts.keys() - without.keys() == {"TrainyardTrainingIsSlow", "TrainyardAccuracyIsLow"}


def test_labels_say_whose_they_are(render: Render) -> None:
    objects = render(
        "prometheusRule.enabled=true", "prometheusRule.labels.release=monitoring", "grafanaDashboard.enabled=true"
    )
    assert one(objects, "PrometheusRule")["metadata"]["labels"]["release"] == "monitoring"
    found = one(objects, "ConfigMap")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found["data"]["trainyard.json"]) == json.loads(DASHBOARD.read_text())


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(set(cells)) == len(cells)
    assert all(p["x"] + p["w"] <= 24 for p in places)


@pytest.mark.parametrize(("title", "expression"), list(panels()))
def test_a_panel_of_single_models_can_be_narrowed_down(title: str, expression: str) -> None:
    if "trainyard_model_" in expression or "_loss" in expression or "gpu_utilization" in expression:
        assert 'agent=~"$agent",model=~"$model"' in expression, title
