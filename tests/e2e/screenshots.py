"""Takes the pictures of docs/page.md: `python -m tests.e2e.screenshots FOLDER`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from router.models.catalog import discover
from tests.e2e.page_visits import visit
from tests.e2e.service import ROOT, running_service


def main(folder: Path) -> None:
    """Serve the packages of this checkout and picture each."""
    folder.mkdir(parents=True, exist_ok=True)
    models = list(discover(ROOT, {}))
    with tempfile.TemporaryDirectory() as temp:
        state, env = Path(temp) / "state", {"CALLME_WEIGHTS": "demo"}
        with running_service(ROOT, state, env) as service:
            saw = visit(
                *(service.url, Path(temp) / "visit", "screenshots"),
                limit_s=1500,
                models=models,
                pictures=str(folder.resolve()),
            )
    for name in saw["result"]:
        print(folder / f"{name}.webp")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
