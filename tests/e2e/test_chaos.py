"""Good, malformed, oversized and abandoned requests over all APIs while workers are killed.

`CALLME_CHAOS_REQUESTS` sets how many (CI: 1,000; `make chaos`: 10,000). The seed is fixed, the
interleaving is not: that is the point.
"""

from __future__ import annotations

import collections
import os
import random
import socket
import threading
from functools import partial
from pathlib import Path

import httpx
import psutil

from tests.e2e.service import Service, kill, running_service
from tests.waiting import wait_until

REQUESTS = int(os.environ.get("CALLME_CHAOS_REQUESTS", "1000"))
CLIENTS = 8
# By what was answered, not by the clock: on a slow machine no model would come to work at all.
KILL_EVERY_ANSWERS = 100
# A client does as Retry-After says, but the test has not all day.
LONGEST_PAUSE_S = 1.0
MAX_GROWTH_MIB = 40
# Where coglet 0.23.1 makes a folder for each prediction.
COGLETS = Path("/tmp/coglet/predictions")  # noqa: S108


class Chaos:
    """One run: what was sent, what came back."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.statuses: collections.Counter[str] = collections.Counter()
        self.accepted: dict[str, str] = {}  # id of an asynchronous prediction: its text
        self.answered: set[str] = set()  # texts that a synchronous call got back
        self.sent: list[str] = []  # ids of synchronous predictions
        self.stop = threading.Event()

    def client(self, seed: int, count: int) -> None:
        """A client that sends `count` requests of random kinds."""
        rng = random.Random(seed)
        kinds = [
            *[self.good] * 3,
            *[self.by_cog] * 2,
            *[self.by_replicate] * 2,
            *[self.asynchronous] * 3,
            self.malformed,
            self.oversized,
            self.abandoned,
            self.invalid,
        ]
        with httpx.Client(base_url=self.service.url, timeout=240) as http:
            for i in range(count):
                kind = rng.choice(kinds)
                try:
                    status = kind(http, rng, f"{seed}-{i}")
                except httpx.TransportError as error:
                    status = type(error).__name__
                if status in ("429", "503"):
                    self.stop.wait(LONGEST_PAUSE_S * rng.random())
                self.statuses[f"{kind.__name__} {status}"] += 1

    def good(self, http: httpx.Client, rng: random.Random, text: str) -> str:
        """A form with a file, whose answer must be its own."""
        model = rng.choice(["echo", "parrot"])
        body = rng.randbytes(rng.randrange(1, 50_000))
        files = {"text": (None, text), "file": ("a.bin", body)}
        answer = http.post(f"/{model}", files=files)  # type: ignore[arg-type]
        assert answer.status_code != 500, answer.text
        if prediction_id := answer.headers.get("x-prediction-id"):
            self.sent.append(prediction_id)
        if answer.status_code == 200:
            assert answer.json()["text"] == text
            assert answer.json()["file_bytes"] == len(body)
            self.answered.add(text)
        return str(answer.status_code)

    def by_cog(self, http: httpx.Client, rng: random.Random, text: str) -> str:
        """Cog's API, with an id of the client's, asked for twice: it runs once."""
        body = {"input": {"text": text, "file": "data:;base64,aGVsbG8="}}
        url = f"/models/{rng.choice(['echo', 'parrot'])}/predictions/{text}"
        answer = http.put(url, json=body)
        if answer.status_code in (200, 202):
            again = http.put(url, json=body)
            assert again.status_code in (200, 202), again.text
            self.accepted[text] = text
        if answer.status_code == 200 and answer.json()["status"] == "succeeded":
            assert answer.json()["output"]["file_bytes"] == len(b"hello")
            self.answered.add(text)
        return str(answer.status_code)

    def by_replicate(self, http: httpx.Client, rng: random.Random, text: str) -> str:
        """Replicate's API, waiting a while or not."""
        headers = {"Prefer": "wait=5"} if rng.random() < 0.5 else {}
        answer = http.post(
            f"/v1/models/acme/{rng.choice(['echo', 'parrot'])}/predictions",
            json={"input": {"text": text}},
            headers=headers,
        )
        if answer.status_code in (201, 202):
            self.accepted[answer.json()["id"]] = text
            if answer.json()["status"] == "succeeded":
                assert answer.json()["output"]["text"] == text
                self.answered.add(text)
        return str(answer.status_code)

    def asynchronous(self, http: httpx.Client, rng: random.Random, text: str) -> str:
        """Accepted is accepted."""
        files = {"text": (None, text), "delay_s": (None, str(rng.random() / 100))}
        answer = http.post("/echo", files=files, headers={"Prefer": "respond-async"})
        if answer.status_code == 202:
            self.accepted[answer.json()["id"]] = text
        return str(answer.status_code)

    def malformed(self, http: httpx.Client, rng: random.Random, text: str) -> str:
        """Random bytes under a form's name."""
        body = b"--b\r\n" + rng.randbytes(rng.randrange(200))
        headers = {"content-type": "multipart/form-data; boundary=b"}
        answer = http.post("/echo", content=body, headers=headers)
        assert answer.status_code in (400, 422), answer.text
        return str(answer.status_code)

    def oversized(self, http: httpx.Client, rng: random.Random, text: str) -> str:
        """More than the limit, said or unsaid."""
        answer = http.post("/echo", files={"file": ("a", b"\0" * (200 << 10))})
        assert answer.status_code == 413
        return str(answer.status_code)

    def abandoned(self, http: httpx.Client, rng: random.Random, text: str) -> str:
        """A client that goes away, in the body or while it waits."""
        part = f'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\n{text}\r\n--b--\r\n'
        head = (
            "POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(part)}\r\n\r\n"
        )
        whole = (head + part).encode()
        port = int(self.service.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 10) as s:
            s.sendall(whole[: rng.randrange(1, len(whole) + 1)])
        return "left"

    def invalid(self, http: httpx.Client, rng: random.Random, text: str) -> str:
        """Refused by the schema, by the model, or raised in it."""
        wrong = rng.choice([("number", "7"), ("mode", "invalid"), ("mode", "raise"), ("x", "y")])
        answer = http.post("/echo", files={wrong[0]: (None, wrong[1])})
        assert answer.status_code in (422, 429, 500, 502, 503), answer.text
        return str(answer.status_code)

    def killer(self) -> None:
        """Kill a random worker whenever so many more were answered."""
        rng = random.Random(7)
        next_at = KILL_EVERY_ANSWERS
        while not self.stop.wait(0.01):
            if len(self.answered) >= next_at and (workers := self.service.workers()):
                kill([rng.choice(workers)])
                self.statuses["worker killed"] += 1
                next_at = len(self.answered) + KILL_EVERY_ANSWERS


def test_chaos(echo_packages: Path, tmp_path: Path) -> None:
    """Afterwards it serves; no accepted prediction is lost or run twice to success; no file or
    process is left; memory is flat."""
    journal = tmp_path / "journal"
    env = {
        "CALLME_MAX_UPLOAD_BYTES": str(100 << 10),
        "ECHO_JOURNAL": str(journal),
        "CALLME_QUEUE_LIMIT": "32",
    }
    with running_service(echo_packages, tmp_path / "state", env) as service:
        for model in ("echo", "parrot"):
            assert service.http.post(f"/{model}", files={"text": (None, "0")}).status_code == 200
        chaos = Chaos(service)
        killer = threading.Thread(target=chaos.killer)
        killer.start()
        # A first tenth warms every path up, so that growth is growth and not the first use.
        run_clients(chaos, 0, REQUESTS // 10)
        router = psutil.Process(service.child.pid)
        before = router.memory_info().rss
        fds_before = router.num_fds()
        run_clients(chaos, CLIENTS, REQUESTS - REQUESTS // 10)
        chaos.stop.set()
        killer.join()
        ended = {"succeeded", "failed"}
        states = wait_until(lambda: settled(service, chaos.accepted, ended), 240)
        runs = collections.Counter(journal.read_text().split())
        for prediction_id, text in chaos.accepted.items():
            if states[prediction_id] == "succeeded":
                assert runs[text] == 1, f"{text} ran {runs[text]} times"
        assert all(runs[text] == 1 for text in chaos.answered)
        wait_until(lambda: service.spooled() == [])
        ids = (*chaos.sent, *chaos.accepted)
        wait_until(lambda: not [i for i in ids if (COGLETS / i).exists()])
        growth_mib = (router.memory_info().rss - before) / (1 << 20)
        growth_fds = router.num_fds() - fds_before
        for what, count in sorted(chaos.statuses.items()):
            print(f"{count:>6}  {what}")
        print(f"memory grew by {growth_mib:.1f} MiB, file descriptors by {growth_fds}")
        assert growth_mib < MAX_GROWTH_MIB
        assert growth_fds < 30
        for model in ("echo", "parrot"):
            assert wait_until(partial(served, service, model), 240) == "after"
        assert len(service.workers()) == 2
        assert chaos.statuses["worker killed"] > 0


def run_clients(chaos: Chaos, first_seed: int, count: int) -> None:
    """All clients at once, to their end; a failed assertion in one fails the test."""
    failures: list[BaseException] = []

    def guarded(seed: int) -> None:
        try:
            chaos.client(seed, max(1, count // CLIENTS))
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=guarded, args=(first_seed + i,)) for i in range(CLIENTS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures, failures


def settled(service: Service, accepted: dict[str, str], ended: set[str]) -> dict[str, str] | None:
    """Each prediction's status once all have ended, else None."""
    states = {}
    for prediction_id in list(accepted):
        answer = service.http.get(f"/predictions/{prediction_id}")
        assert answer.status_code == 200, "an accepted prediction was lost"
        states[prediction_id] = answer.json()["status"]
        if states[prediction_id] not in ended:
            return None
    return states


def served(service: Service, model: str) -> str | None:
    """The text that the model gives back, None while it is being replaced."""
    answer = service.http.post(f"/{model}", files={"text": (None, "after")})
    return str(answer.json()["text"]) if answer.status_code == 200 else None
