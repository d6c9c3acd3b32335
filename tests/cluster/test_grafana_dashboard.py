"""The dashboard asks only for metrics that the code exports, by labels that they have."""

import json
import re
from pathlib import Path

import pytest
import ray
from cluster_manifests import CLUSTER

DASHBOARD = json.loads((CLUSTER / "grafana-dashboard.json").read_text(encoding="utf-8"))
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
QUERIES = [variable["query"]["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
# Read, not imported: it needs ray[default].
AGENT = Path(ray.__file__).parent / "dashboard" / "modules" / "reporter" / "reporter_agent.py"
METRICS_OF_RAY = set(re.findall(r'Gauge\(\s*"(\w+)"', AGENT.read_text(encoding="utf-8")))
ADDED = {"ray_io_cluster", "instance", "le"}
"""Labels from Prometheus and KubeRay's PodMonitor."""


def exported():
    """Names in Prometheus, with the labels of each."""
    from jobs.metrics import METRICS

    names = {f"ray_{name}": set(metric.tags) for name, metric in METRICS.items()}
    names |= {f"ray_{name}_bucket": set(metric.tags) for name, metric in METRICS.items() if name.endswith("_seconds")}
    return names | {f"ray_{name}": {"GpuIndex", "GpuDeviceName"} for name in METRICS_OF_RAY}


@pytest.mark.parametrize("expression", [*EXPRESSIONS, *QUERIES])
def test_metrics_and_labels_are_there(expression):
    names = set(re.findall(r"\bray_(?!io_)\w+", expression))
    assert names <= set(exported()), names - set(exported())
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(",")}
    assert grouped <= ADDED.union(*(exported()[name] for name in names))
    for counter in (name for name in names if name.endswith("_total") and "label_values" not in expression):
        assert f"rate({counter}{{" in expression
    assert expression.count("(") == expression.count(")")


def test_everything_that_is_exported_is_shown():
    from jobs.metrics import METRICS

    shown = {name for expression in EXPRESSIONS for name in re.findall(r"\bray_(csrm_\w+?)(?:_bucket)?\{", expression)}
    assert shown == set(METRICS)


def test_labels_in_legends_are_grouped_by():
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b", target["expr"])


def test_panels_do_not_lie_on_one_another():
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["description"] for panel in DASHBOARD["panels"])


def test_it_names_no_place_of_ours():
    text = json.dumps(DASHBOARD)
    assert "http" not in text
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${datasource}"}
