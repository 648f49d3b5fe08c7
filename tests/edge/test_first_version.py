"""Do the tests of the defects bite? They are run against the version that had them."""

import json
import re
import subprocess
from pathlib import Path

from deno_server import FUNCTION, find_deno, plain_env

FIRST_VERSION = Path(__file__).with_name("first_version.ts")
# Those three are shown with a real server, Deno's own tools and the real CLI.
UNIT_TESTED = set(range(1, 20)) - {7, 15, 19}


def test_every_defect_fails_its_test_on_the_first_version(tmp_path: Path) -> None:
    """With the first version in the handler's place, each defect's tests fail."""
    swap = {(FUNCTION / "handler.ts").as_uri(): FIRST_VERSION.as_uri()}
    import_map = tmp_path / "swap.json"
    import_map.write_text(json.dumps({"imports": swap}))
    arguments = ["test", "--no-check", "--no-remote", "--import-map", str(import_map)]
    done = subprocess.run(
        [str(find_deno()), *arguments, "defects_test.ts"],
        cwd=FUNCTION,
        env=plain_env(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    failed = {int(number) for number in re.findall(r"^(\d+): .* \.\.\. FAILED", output, re.M)}
    assert failed == UNIT_TESTED, output
