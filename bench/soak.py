"""Does anything grow? `make soak MINUTES=5`: steady mixed load, then the slopes.

Every second it notes the router's memory and file descriptors; at the end it prints requests,
errors and what memory and descriptors gained per minute (least squares, the first fifth left
out as warm-up), and appends one JSON line to bench/results/soak.jsonl. Exit status 1 when an
answer was wrong, a prediction was lost, or a file was left behind.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.e2e.service import Service, running_service  # noqa: E402 - after the path is set

CLIENTS = 4
KINDS = ("form", "upload", "cog", "asynchronous", "refused")


class Soak:
    """The counts of one run."""

    def __init__(self, service: Service, seconds: float) -> None:
        self.service = service
        self.until = time.monotonic() + seconds
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.accepted: list[str] = []

    def client(self, seed: int) -> None:
        """Requests of random kinds until the time is over."""
        rng = random.Random(seed)  # noqa: S311 - dice
        with httpx.Client(base_url=self.service.url, timeout=60) as http:
            while time.monotonic() < self.until:
                kind = rng.choice(KINDS)
                try:
                    self.request(http, kind, rng)
                except httpx.TransportError as error:
                    self.wrong.append(f"{kind}: {error!r}")
                self.counts[kind] += 1

    def request(self, http: httpx.Client, kind: str, rng: random.Random) -> None:
        """One request, whose answer must be right."""
        model = rng.choice(["echo", "parrot"])
        match kind:
            case "form":
                answer, wanted = http.post(f"/{model}", files={"text": (None, "hi")}), 200
            case "upload":
                body = rng.randbytes(rng.randrange(1, 200_000))
                answer, wanted = http.post(f"/{model}", files={"file": ("a.bin", body)}), 200
            case "cog":
                body_json = {"input": {"text": "hi"}}
                answer = http.post(f"/models/{model}/predictions", json=body_json)
                wanted = 200
            case "asynchronous":
                headers = {"Prefer": "respond-async"}
                answer = http.post(f"/{model}", files={"text": (None, "hi")}, headers=headers)
                wanted = 202
                self.accepted.append(answer.json().get("id", ""))
            case _:
                answer, wanted = http.post(f"/{model}", files={"number": (None, "7")}), 422
        if answer.status_code != wanted:
            self.wrong.append(f"{kind}: {answer.status_code} {answer.text[:200]}")

    def lost(self) -> int:
        """How many accepted predictions cannot be found again, or have not succeeded."""
        with httpx.Client(base_url=self.service.url, timeout=60) as http:
            states = [http.get(f"/predictions/{i}").json().get("status") for i in self.accepted]
        return sum(s != "succeeded" for s in states)


def slope_per_minute(samples: list[tuple[float, float]]) -> float:
    """Least-squares gain per minute over the last four fifths of (seconds, value)."""
    kept = np.array(samples[len(samples) // 5 :])
    return float(np.polyfit(kept[:, 0] / 60, kept[:, 1], 1)[0])


def main() -> int:
    """Run, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        packages = Path(folder) / "packages"
        for name in ("echo", "parrot"):
            shutil.copytree(
                ROOT / "tests" / "packages" / "echo",
                packages / name,
                ignore=shutil.ignore_patterns(".cog", "__pycache__"),
            )
        with running_service(packages, Path(folder) / "state") as service:
            return watch(service, minutes)


def watch(service: Service, minutes: float) -> int:
    """Load the service and note its size every second."""
    soak = Soak(service, minutes * 60)
    threads = [threading.Thread(target=soak.client, args=(i,)) for i in range(CLIENTS)]
    router = psutil.Process(service.child.pid)
    rss: list[tuple[float, float]] = []
    fds: list[tuple[float, float]] = []
    began = time.monotonic()
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        at = time.monotonic() - began
        rss.append((at, router.memory_info().rss / (1 << 20)))
        fds.append((at, router.num_fds()))
        threads[0].join(1)
    for t in threads:
        t.join()
    time.sleep(1)
    total = sum(soak.counts.values())
    lost, left = soak.lost(), len(service.spooled())
    row = {
        "at": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU",
        "minutes": minutes,
        "requests": total,
        "per_second": round(total / (minutes * 60), 1),
        "wrong": len(soak.wrong),
        "lost": lost,
        "files_left": left,
        "rss_mib": round(rss[-1][1], 1),
        "rss_mib_per_minute": round(slope_per_minute(rss), 3),
        "fds": fds[-1][1],
        "fds_per_minute": round(slope_per_minute(fds), 3),
    }
    for name, value in row.items():
        print(f"{name:>20}: {value}")
    for text in soak.wrong[:10]:
        print(text)
    results = ROOT / "bench" / "results"
    results.mkdir(exist_ok=True)
    with (results / "soak.jsonl").open("a") as out:
        out.write(json.dumps(row) + "\n")
    return 1 if soak.wrong or lost or left else 0


if __name__ == "__main__":
    sys.exit(main())
