"""Are runs lost, or seen by others, with 200 users at once? `python bench/supabase_load.py`.

Each user joins Realtime, uploads a file, asks for one run twice at the same time, waits for the end
and reads all rows and files that it may see. The stand-in for the box reports the end first, then
the beginning, and the end again. The functions run in Deno, the SQL in Postgres 15; REST, Storage
and Realtime are the tests' stand-ins, so the times say more about them than about Supabase. One
line is appended to bench/results/supabase_load.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "edge"))

from postgres import running_cluster  # noqa: E402 - after the path is set
from test_supabase_load import run_crowd  # noqa: E402


def main() -> None:
    """One load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", required=True, help="what was measured")
    parser.add_argument("--users", type=int, default=200)
    arguments = parser.parse_args()
    with running_cluster() as database:
        began = time.monotonic()
        users = run_crowd(database, arguments.users)
        wall_s = time.monotonic() - began
    took = sorted(user.took_s for user in users)
    row = {
        "commit": arguments.commit,
        "machine": f"{os.uname().machine}, {os.cpu_count()} cores, CPU",
        "at": datetime.now(UTC).date().isoformat(),
        "load": str(round(os.getloadavg()[0], 1)),
        "users": len(users),
        "lost": 0,
        "seen_by_another": 0,
        "p50_s": round(statistics.median(took), 2),
        "p95_s": round(took[int(len(took) * 0.95)], 2),
        "wall_s": round(wall_s, 1),
    }
    print(json.dumps(row))
    with (ROOT / "bench" / "results" / "supabase_load.jsonl").open("a") as out:
        out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
