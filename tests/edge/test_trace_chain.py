"""One trace from the web app's request to a span inside a package, at a real OTLP receiver."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
from deno_server import edge_process
from otlp_receiver import running_receiver
from polling import until
from router_process import running_router

KEY = "0123456789abcdef0123456789abcdef"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
RUN = """
from cog import BaseRunner, Input, Path
from opentelemetry import trace

tracer = trace.get_tracer(__name__)


class Runner(BaseRunner):
    def run(self, image: Path = Input(description="A picture")) -> int:
        with tracer.start_as_current_span("measure the picture") as span:
            span.set_attribute("picture.bytes", len(image.read_bytes()))
            return len(image.read_bytes())
"""
CONFIG = """
build:
  python_version: "3.11"
run: "run.py:Runner"
observability:
  traces:
    enabled: true
"""
# From the caller's span down.
PATH_DOWN = (
    *("POST /{model}", "prediction", "prediction.run"),
    *("POST /predictions", "cog.prediction", "cog.prediction.execute", "cog.prediction.invoke"),
    "measure the picture",
)


def test_from_the_edge_function_to_a_span_inside_a_package(tmp_path: Path) -> None:
    """The app's span is above all. The queue has the model's start, and both logs have the trace.
    A second request without a trace gets one of its own."""
    folder = tmp_path / "packages" / "measure"
    folder.mkdir(parents=True)
    (folder / "run.py").write_text(RUN)
    (folder / "cog.yaml").write_text(CONFIG)
    with running_receiver() as receiver:
        otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        state = tmp_path / "state"
        with running_router(folder.parent, state, f"web:{KEY}", otel) as router:
            env = {
                "GPU_BACKEND_URL": router.url,
                "GPU_BACKEND_KEY": KEY,
                "GPU_BACKEND_KEY_ID": "web",
                "GPU_BACKEND_ENDPOINTS": "measure:image",
            }
            with edge_process(env) as function, httpx.Client(timeout=120) as http:
                body = {"endpoint": "measure", "image": "data:image/png;base64,iVBORw0KGgo="}
                headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
                answer = http.post(function.url, json=body, headers=headers)
                assert (answer.status_code, answer.json()) == (200, 8), answer.text
                spans = until(
                    # Each program sends its spans when it likes.
                    lambda: (s := receiver.of(TRACE)).keys() >= set(PATH_DOWN) and s
                )
                second = http.post(function.url, json=body)
                assert second.status_code == 200
                own = second.headers["traceresponse"].split("-")[1]
                until(lambda: PATH_DOWN[-1] in receiver.of(own))
                edge = [json.loads(line) for line in function.lines if "trace_id" in line]
    above = SPAN
    for name in PATH_DOWN:
        assert spans[name].parent_id == above, name
        above = spans[name].span_id
    assert spans["measure the picture"].attributes == {"picture.bytes": 8}
    assert answer.headers["traceresponse"] == f"00-{TRACE}-{spans['POST /{model}'].span_id}-01"
    assert {spans[n].service for n in PATH_DOWN[:3]} == {"callme"}
    assert {spans[n].service for n in PATH_DOWN[3:]} == {"measure"}
    for name in ("prediction.files", "prediction.queue"):
        assert spans[name].parent_id == spans["prediction"].span_id, name
    start, queue = spans["model.start"], spans["prediction.queue"]
    assert start.parent_id == queue.span_id
    assert queue.began_at <= start.began_at < start.ended_at <= queue.ended_at
    assert [entry["trace_id"] for entry in edge] == [TRACE, own]
    lines = [json.loads(s) for s in router.log.read_text().splitlines() if s.startswith("{")]
    logged = [entry["trace_id"] for entry in lines if "trace_id" in entry]
    assert logged == [TRACE, own]
    # The second request's trace has no model.start: the model was ready.
    assert own != TRACE
    assert "model.start" not in receiver.of(own)
    assert receiver.of(own)["POST /{model}"].parent_id == ""
