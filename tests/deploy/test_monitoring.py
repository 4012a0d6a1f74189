"""Dashboard and alerts: each name in them is exposed, and Prometheus can read them."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.system.processes import ROOT
from uppercase.services.metrics import FAMILIES

DEPLOY = ROOT / "deploy"
SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
LABELS = {
    f"uppercase_{family.name}{suffix}": {*family.labels, "instance", "job", "le"}
    for family in FAMILIES
    for suffix in SUFFIXES[family.kind]
}


def dashboard() -> list[str]:
    """Return the expressions of the dashboard."""
    board = json.loads((DEPLOY / "grafana" / "uppercase.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def alerts() -> str:
    return (DEPLOY / "prometheus" / "alerts.yml").read_text()


def test_every_name_and_label_is_exposed() -> None:
    text = "\n".join([*dashboard(), alerts()])
    used = re.findall(r"\b(uppercase_[a-z_]+)(?:\{([^}]*)\})?", text)
    assert len(used) > 20
    for name, selector in used:
        assert name in LABELS
        assert set(re.findall(r'(\w+)\s*=~?"', selector)) <= LABELS[name], (name, selector)
    for expression in dashboard():
        names = re.findall(r"\b(uppercase_[a-z_]+)", expression)
        for group in re.findall(r"\bby \(([^)]*)\)", expression):
            assert set(group.split(", ")) <= set.union(*(LABELS[name] for name in names))


def test_the_dashboard_shows_every_family() -> None:
    """But the one that belongs to a trial of `--rate`, and what a sum of others tells."""
    shown = set(re.findall(r"\b(uppercase_[a-z_]+)", "\n".join(dashboard())))
    hidden = [
        each.name for each in FAMILIES if not any(f"uppercase_{each.name}" in s for s in shown)
    ]
    assert hidden == ["datagrams_would_drop"]


@pytest.mark.needs_program("promtool")
def test_prometheus_can_read_all_of_it(tmp_path: Path) -> None:
    folder = DEPLOY / "prometheus"
    subprocess.run(["promtool", "check", "config", folder / "prometheus.yml"], check=True)
    expressions = [text.replace("$__rate_interval", "5m") for text in dashboard()]
    rules = [{"record": f"panel:{n}", "expr": text} for n, text in enumerate(expressions)]
    path = tmp_path / "dashboard.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    subprocess.run(["promtool", "check", "rules", path], check=True)


@pytest.mark.needs_program("promtool")
def test_the_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """One that pages, one whose labels have to match, one whose series begins with the fault."""
    refused = 'uppercase_connections_refused_total{instance="a",service="tcp",reason="%s"}'
    labels = '{instance="a",service="tcp",transform="mine"}'
    accept = 'uppercase_accept_failures_total{instance="a",service="tcp",error="EMFILE"}'
    closed = 'uppercase_connections_closed_total{instance="%s",service="tcp",outcome="%s"}'
    lag = 'uppercase_event_loop_lag_seconds_count{instance="%s"}'
    series = [
        {"series": closed % ("a", "handshake"), "values": "0+60x30"},
        {"series": closed % ("a", "finished"), "values": "0+30x30"},
        {"series": closed % ("b", "handshake"), "values": "0+60x30"},
        {"series": closed % ("b", "finished"), "values": "0+90x30"},
        {"series": refused % "full", "values": "0+60x30"},
        {"series": refused % "address-full", "values": "0+60x30"},
        {"series": f"uppercase_transform_failures_total{labels}", "values": "0+5x30"},
        {"series": f"uppercase_transform_seconds_count{labels}", "values": "0+100x30"},
        {"series": accept, "values": "_x17 40+0x20"},
        {"series": 'up{instance="a"}', "values": "1x40"},
        # Whose metrics nobody could scrape for a while.
        {"series": accept.replace('"a"', '"g"'), "values": "40x4 _x12 40x20"},
        {"series": 'up{instance="g"}', "values": "1x4 0x12 1x20"},
        {"series": 'uppercase_worker_restarts_total{instance="a"}', "values": "0x10 1+1x20"},
        # One that is restarted once, and one that never lives for long.
        {"series": lag % "b", "values": "1000+120x10 0+120x20"},
        # All workers of one hang, and one of another's two.
        {"series": lag % "d", "values": "1000+240x10 3400x20"},
        {"series": lag % "e", "values": "0+120x30"},
        {"series": 'uppercase_workers{instance="e"}', "values": "2x30"},
        {"series": lag % "f", "values": "0+236x30"},
        {"series": 'uppercase_workers{instance="f"}', "values": "2x30"},
        {"series": lag % "c", "values": "7 3 9 5 8 2 4 3 9 8 2 5 3 2 9 1 8 4 7 5 6"},
    ]
    fired = {
        "UppercaseIsDown": [{"instance": "d", "severity": "page"}],
        "UppercaseEventLoopIsLate": [{"instance": "e", "severity": "ticket"}],
        "UppercaseTurnsClientsAway": [{"service": "tcp", "reason": "full", "severity": "page"}],
        "UppercaseTransformFails": [{"service": "tcp", "transform": "mine", "severity": "ticket"}],
        "UppercaseDropsDatagrams": [],
        "UppercaseHandshakesFail": [{"service": "tcp", "severity": "page"}],
        "UppercaseKeepsRestarting": [{"severity": "page"}, {"instance": "c", "severity": "page"}],
        "UppercaseHasNoDescriptors": [{"service": "tcp", "error": "EMFILE", "severity": "ticket"}],
    }
    summaries = {
        "UppercaseIsDown": (
            "%(instance)s does not answer its scraper, or none of its workers does anything"
        ),
        "UppercaseEventLoopIsLate": (
            "the event loop of %(instance)s is late; see uppercase_slow_calls_total for which "
            "transform blocks it"
        ),
        "UppercaseKeepsRestarting": (
            "%(instance)s keeps ending and being started again; its log says why"
        ),
        "UppercaseHandshakesFail": (
            "tcp on a agrees on TLS with hardly anybody; has its certificate expired?"
        ),
        "UppercaseTurnsClientsAway": "tcp on a has no room for everybody (--max-connections)",
        "UppercaseTransformFails": "mine fails on more than 1 %% of the messages of tcp",
        "UppercaseHasNoDescriptors": "tcp on a cannot accept: EMFILE (LimitNOFILE)",
    }
    tests = [
        {
            "eval_time": "20m",
            "alertname": name,
            "exp_alerts": [
                {
                    "exp_labels": {"instance": "a", **found},
                    "exp_annotations": {"summary": summaries[name] % {"instance": "a", **found}},
                }
                for found in expected
            ],
        }
        for name, expected in fired.items()
    ]
    content = {
        "rule_files": [str(DEPLOY / "prometheus" / "alerts.yml")],
        "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": tests}],
    }
    path = tmp_path / "test.yml"
    path.write_text(json.dumps(content))
    done = subprocess.run(
        ["promtool", "test", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
