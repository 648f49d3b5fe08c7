"""Sends spans to a receiver of OTLP, by OpenTelemetry's own SDK.

The SDK is imported only when the standard variables name a receiver. It is the extra `tracing` of
this project. All of its variables work as its documentation says
(https://opentelemetry.io/docs/languages/sdk-configuration/).
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from router import __version__
from router.observability.facts import Facts
from router.observability.traces import Span, Traces
from router.trace_context import TraceContext

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
CLOSE_S = 5.0
NANOSECONDS = 1_000_000_000


def is_wanted(env: Mapping[str, str]) -> bool:
    """Whether the standard variables name a receiver of traces, and nothing turns them off."""
    endpoint = next((env[name] for name in ENDPOINTS if name in env), "")
    exporters = env.get("OTEL_TRACES_EXPORTER", "otlp").split(",")
    disabled = env.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return bool(endpoint.strip()) and "otlp" in exporters and not disabled


def open_traces(facts: Facts, env: Mapping[str, str] = os.environ) -> Traces | None:
    """Traces that listen to `facts`; None when none are wanted, or none are possible: what is
    missing is logged then, and the router serves without them."""
    if not is_wanted(env):
        return None
    protocol = next((env[name] for name in PROTOCOLS if name in env), "http/protobuf")
    try:
        exporter = OtlpExporter(protocol)
    except ImportError as error:
        log.warning(
            "No traces are sent: %s is not installed. pip install 'callme-gpu[tracing]'",
            error.name,
        )
        return None
    except Exception as error:  # a variable has a value that the SDK refuses
        log.warning("No traces are sent: OpenTelemetry cannot be set up: %s", error)
        return None
    traces = Traces(exporter)
    facts.add(traces.note)
    return traces


class OtlpExporter:
    """Implements `router.observability.traces.Exporter`. Spans wait in a bounded queue, and a
    thread of the SDK sends them. What does not fit is lost; nothing else waits.

    Spans are made as the SDK's finished ones, not by its tracer: their ids and times are known, and
    a tracer takes eight times as long.
    """

    def __init__(self, protocol: str = "http/protobuf") -> None:
        """Reads the standard variables. Raises ImportError when a part of OpenTelemetry is not
        installed, and ValueError for a protocol that it does not have."""
        # Here, not at the top: the imports take a third of a second and 11 MiB.
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.context import Context  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415

        name = os.environ.get("OTEL_SERVICE_NAME", "callme")
        resource = Resource.create({"service.name": name, "service.version": __version__})
        scope = InstrumentationScope("callme", __version__)
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler  # what the environment says
        self._processor = BatchSpanProcessor(_span_exporter(protocol))
        self._trace = trace
        self._no_context = Context()
        self._make = partial(ReadableSpan, resource=resource, instrumentation_scope=scope)

    def samples(self, parent: TraceContext | None, trace_id: str) -> bool:
        """See `Exporter`."""
        context = self._no_context
        if parent is not None:
            above = self._trace.NonRecordingSpan(self._span_context(parent, parent.span_id))
            context = self._trace.set_span_in_context(above, context)
        result = self._sampler.should_sample(context, int(trace_id, 16), "request")
        return bool(result.decision.is_sampled())

    def export(self, span: Span) -> None:
        """See `Exporter`."""
        trace, kinds = span.trace, self._trace.SpanKind
        status = self._trace.Status(self._trace.StatusCode.UNSET)
        attributes = span.attributes
        if span.error:
            status = self._trace.Status(self._trace.StatusCode.ERROR, span.error)
            attributes = {**attributes, "error.type": span.error}
        self._processor.on_end(
            self._make(
                span.name,
                self._span_context(trace, trace.span_id),
                self._span_context(trace, trace.parent_id) if trace.parent_id else None,
                attributes=attributes,
                kind=kinds.SERVER if span.serves else kinds.INTERNAL,
                status=status,
                start_time=int(span.began_at * NANOSECONDS),
                end_time=int(max(span.ended_at, span.began_at) * NANOSECONDS),
            )
        )

    async def close(self) -> None:
        """See `Exporter`. A receiver that does not answer delays the end by at most CLOSE_S."""
        # A thread of its own: the interpreter would wait at its end for one of the loop's.
        ending = threading.Thread(target=self._processor.shutdown, daemon=True)
        ending.start()
        give_up = time.monotonic() + CLOSE_S
        while ending.is_alive() and time.monotonic() < give_up:
            await asyncio.sleep(0.02)
        if ending.is_alive():
            log.warning("The last spans were not sent: the receiver does not answer")

    def _span_context(self, trace: TraceContext, span_id: str) -> Any:
        state = self._trace.TraceState.from_header([trace.state]) if trace.state else None
        flags = self._trace.TraceFlags(trace.flags)
        ids = (int(trace.trace_id, 16), int(span_id, 16))
        return self._trace.SpanContext(*ids, True, flags, state)


def _span_exporter(protocol: str) -> Any:
    if protocol in ("http/protobuf", "http"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as HttpExporter,
        )

        return HttpExporter()
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter()
    raise ValueError(f"the protocol must be http/protobuf or grpc, got '{protocol}'")
