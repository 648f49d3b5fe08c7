"""Boxes whose models lead back to themselves, and boxes that help each other out."""

from __future__ import annotations

import concurrent.futures
import contextlib
from functools import partial
from pathlib import Path

from tests.e2e.remote_boxes import cog_remote, front
from tests.e2e.service import Service
from tests.waiting import free_port, wait_until


def test_a_box_that_names_itself(tmp_path: Path) -> None:
    """Through any API: refused at once, and asked no more than a few times. What overflows to
    itself stays."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    cloud = f"""
[models.cloud]
backend = "replicate"
[models.cloud.remote]
url = "{url}"
model = "callme/cloud"
"""
    toml = f'[models.far]\nbackend = "cog"\n[models.far.remote]\nurl = "{url}/models/far"\n'
    toml += cloud + cog_remote("echo", url, "overflow_after_s = 0.1", backend="overflow")
    with front(tmp_path, toml, with_echo=True, port=port) as service:
        for name in ("far", "cloud"):
            for _ in range(5):
                told = service.http.post(f"/{name}", files={"text": (None, "x")})
                assert (told.status_code, told.json()["error"]["code"]) == (
                    503,
                    "model_unavailable",
                )
                assert "leads back to this box" in told.json()["error"]["message"]
                assert int(told.headers["retry-after"]) >= 1
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            paths = [f"/models/echo/predictions/p{n}" for n in range(3)]
            body = {"input": {"delay_s": 1.0}}
            asked = [pool.submit(service.http.put, path, json=body) for path in paths]
            assert [a.result().status_code for a in asked] == [200] * 3
        assert service.model("echo@cog")["served"] == 0
        metrics = service.http.get("/metrics").text
        assert 1 <= sum(map(_count, _lines(metrics, 'status="508"'))) <= 50


def _lines(metrics: str, label: str) -> list[str]:
    return [x for x in metrics.splitlines() if "http_requests_total{" in x and label in x]


def _count(line: str) -> float:
    return float(line.rpartition(" ")[2])


def test_two_boxes_that_name_each_other(tmp_path: Path) -> None:
    """Neither has the model: both say so. Both have it and are busy: it waits at the second."""
    ports = [free_port(), free_port()]
    with contextlib.ExitStack() as stack:
        boxes = []
        for n, port in enumerate(ports):
            url = f"http://127.0.0.1:{ports[1 - n]}"
            toml = f'[models.far]\nbackend = "cog"\n[models.far.remote]\nurl = "{url}/models/far"\n'
            toml += cog_remote("echo", url, "overflow_after_s = 2.0", backend="overflow")
            folder = tmp_path / str(n)
            boxes.append(stack.enter_context(front(folder, toml, with_echo=True, port=port)))
        for box in boxes:
            told = box.http.post("/far", files={"text": (None, "x")})
            assert (told.status_code, told.json()["error"]["code"]) == (503, "model_unavailable")
        later = {"Prefer": "respond-async"}
        running = []
        for box in boxes:
            parts = {"delay_s": (None, "4")}
            running.append(box.http.post("/echo", files=parts, headers=later).json()["id"])
        answer = boxes[0].http.post("/echo", files={"text": (None, "hi")})
        assert (answer.status_code, answer.json()["text"]) == (200, "hi")
        for box, prediction_id in zip(boxes, running, strict=True):
            wait_until(partial(_is_done, box, prediction_id))


def _is_done(service: Service, prediction_id: str) -> bool:
    return bool(service.http.get(f"/predictions/{prediction_id}").json()["status"] == "succeeded")
