"""Pictures of the page in all its states: `python -m tests.e2e.screenshots DOCS ALL`.

Those that docs/page.md shows go to DOCS, all of them to ALL. Prints what opening the page costs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from router.models.catalog import discover
from tests.e2e.page_visits import visit
from tests.e2e.service import ROOT, running_service


def main(shown: Path, pictures: Path) -> None:
    """Serve the packages of this checkout and picture them."""
    for folder in (shown, pictures):
        folder.mkdir(parents=True, exist_ok=True)
    models = list(discover(ROOT, {}))
    with tempfile.TemporaryDirectory() as temp:
        state, env = Path(temp) / "state", {"CALLME_WEIGHTS": "demo"}
        with running_service(ROOT, state, env) as service:
            saw = visit(
                *(service.url, Path(temp) / "visit", "screenshots"),
                limit_s=2400,
                models=models,
                slow=models[-1],
                shown=str(shown.resolve()),
                pictures=str(pictures.resolve()),
            )
    costs = saw["result"]["costs"]
    print(
        f"Opening the page: {costs['requests']} requests, {costs['kB']} kB,"
        f" usable after {costs['usable_ms']} ms (the middle of five)"
    )
    for name in saw["result"]["taken"]:
        print(pictures / f"{name}-*.webp")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
