"""Pictures of the page in all its states: `python -m tests.e2e.screenshots DOCS ALL`.

Those that docs/page.md shows go to DOCS, with a sheet of all states for each screen and colour
scheme; all of them go to ALL. Prints what opening the page costs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from router.models.catalog import discover
from tests.e2e.page_visits import visit
from tests.e2e.service import ROOT, running_service

# Pictures in a row of a sheet, and the width of each in pixels.
SHEETS = {"wide": (4, 600), "phone": (8, 300)}


def write_sheets(names: list[str], pictures: Path, shown: Path) -> None:
    """Put all states of each screen and colour scheme on one sheet, in the order of `names`."""
    for screen, (columns, width) in SHEETS.items():
        for scheme in ("light", "dark"):
            taken = [Image.open(pictures / f"{name}-{screen}-{scheme}.webp") for name in names]
            height = width * taken[0].height // taken[0].width
            size = (columns * width, -(-len(taken) // columns) * height)
            sheet = Image.new("RGB", size)
            for number, picture in enumerate(taken):
                place = (number % columns * width, number // columns * height)
                sheet.paste(picture.convert("RGB").resize((width, height)), place)
            sheet.save(shown / f"states-{screen}-{scheme}.webp", quality=80)


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
    write_sheets(saw["result"]["taken"], pictures, shown)
    costs = saw["result"]["costs"]
    print(
        f"Opening the page: {costs['requests']} requests, {costs['kB']} kB,"
        f" usable after {costs['usable_ms']} ms (the middle of five)"
    )
    for name in saw["result"]["taken"]:
        print(pictures / f"{name}-*.webp")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
