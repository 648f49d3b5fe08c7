"""`callme ray status`: replicas, queues and GPUs of a Ray cluster, from its head's dashboard."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.table import Table

from router.cli.common import console, fail, print_json

DASHBOARD = "http://127.0.0.1:8265"
LIMIT_S = 15.0


def show(dashboard: str, *, as_json: bool) -> None:
    """Print a line for each model, and one for each machine."""
    dashboard = dashboard or DASHBOARD
    try:
        serve = _get(f"{dashboard}/api/serve/applications/")
        nodes = _get(f"{dashboard}/nodes?view=summary")["data"]["summary"]
        report = _get(f"{dashboard}/api/cluster_status")["data"]["clusterStatus"]
    except (OSError, ValueError) as error:
        fail(
            f"Cannot ask the head's dashboard at {dashboard}: {error}",
            "Run this on the head, or say --dashboard http://HOST:8265.",
        )
    models = [_model(name, a, serve, dashboard) for name, a in serve["applications"].items()]
    usage = ((report or {}).get("loadMetricsReport") or {}).get("usageByNode") or {}
    machines = [_machine(node, usage) for node in nodes]
    if as_json:
        print_json({"models": models, "machines": machines})
        return
    _print(models)
    if models:
        console.print()
    _print(machines)


def _model(
    name: str, application: Mapping[str, Any], serve: Mapping[str, Any], dashboard: str
) -> dict[str, Any]:
    """What runs and waits of one model; None for both when its fronts do not answer."""
    deployments = application.get("deployments") or {}
    fronts, replicas = (_states(deployments.get(kind) or {}) for kind in ("front", "model"))
    running = waiting = None
    if load := _load(application, serve["http_options"] or {}, dashboard):
        running = min(load["predictions"], replicas["RUNNING"] * load["concurrency"])
        waiting = load["predictions"] - running
    return {
        "model": name,
        "status": str(application["status"]).lower(),
        "fronts": _text(fronts),
        "replicas": _text(replicas),
        "running": running,
        "waiting": waiting,
        "message": str(application.get("message") or "").strip()[:200],
    }


def _load(
    application: Mapping[str, Any], http: Mapping[str, Any], dashboard: str
) -> dict[str, int] | None:
    """What a front says that all fronts of the model have; None when none answers."""
    host = http.get("host")
    if host in (None, "0.0.0.0"):  # noqa: S104 - every address of the head
        host = urlsplit(dashboard).hostname
    args = (application.get("deployed_app_config") or {}).get("args") or {}
    try:
        key = Path(args["key_file"]).read_text().strip() if args.get("key_file") else ""
        url = f"http://{host}:{http.get('port')}{application['route_prefix']}/load"
        return _get(url, {"Authorization": f"Bearer {key}"} if key else {})
    except (OSError, ValueError):
        return None


def _machine(node: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
    raylet = node["raylet"]
    total = (raylet.get("resourcesTotal") or {}).get("GPU", 0)
    used = (usage.get(raylet.get("nodeId")) or {}).get("GPU", (0, 0))[0]
    return {
        "machine": node["ip"],
        "state": str(raylet.get("state")).lower(),
        "head": "yes" if raylet.get("isHeadNode") else "no",
        "gpus used": f"{used:g}",
        "gpus": f"{total:g}",
    }


def _states(deployment: Mapping[str, Any]) -> Counter[str]:
    return Counter(replica["state"] for replica in deployment.get("replicas") or [])


def _text(states: Mapping[str, int]) -> str:
    """Such as "2 running, 1 starting"; "0" for none."""
    return ", ".join(f"{count} {state.lower()}" for state, count in states.items()) or "0"


def _print(rows: list[dict[str, Any]]) -> None:
    """A table, with the keys as its head."""
    table = Table(box=None, pad_edge=False, header_style="")
    for column in rows[0] if rows else ():
        table.add_column(column)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    console.print(table)


def _get(url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The JSON object at the URL. Raises OSError and ValueError."""
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - the operator's own cluster
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:  # noqa: S310
        return dict(json.load(answer))
