"""A model that records metrics of its own and reads the request's context."""

import cog
from cog import BaseRunner, Input, current_scope, emit_metric


class Runner(BaseRunner):
    """Records what it is asked to."""

    def run(
        self,
        way: str = Input(
            description="How to record",
            default="all",
            choices=["all", "deprecated", "reserved", "not finite", "large", "deep", "none"],
        ),
        end: str = Input(description="How to end", default="well", choices=["well", "raise"]),
    ) -> str:
        """Record metrics; give the context back."""
        scope = current_scope()
        if way == "all":
            scope.record_metric("temperature", 0.7)
            scope.record_metric("token_count", 1, mode="incr")
            scope.record_metric("token_count", 2, mode="incr")
            self.record_metric("tags", "fast", mode="append")
            self.record_metric("tags", "cached", mode="append")
            scope.record_metric("timing.preprocess", 0.1)
            scope.metrics["version"] = "v2"
            scope.metrics["gone"] = True
            del scope.metrics["gone"]
        elif way == "deprecated":
            emit_metric("output_tokens", 42)
            cog.emit_metric("input_tokens", 10)
        elif way == "reserved":
            scope.record_metric("total_time", -1.0)
            scope.record_metric("predict_time.of_mine", 3)
        elif way == "not finite":
            scope.record_metric("loss", float("nan"))
            scope.record_metric("losses", [float("inf"), 1.0])
        elif way == "large":
            scope.record_metric("many", list(range(100_000)))
            scope.record_metric("few", 1)
        elif way == "deep":
            value: list[object] = []
            for _ in range(60):  # coglet itself reads no deeper than 128
                value = [value]
            scope.record_metric("deep", value)
            scope.record_metric("flat", 1)
        if end == "raise":
            raise RuntimeError("after its metrics")
        return ",".join(f"{k}={v}" for k, v in sorted(scope.context.items()))
