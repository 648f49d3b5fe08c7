"""npm's Chromium as the tests unpack it: a small package of its form, unpacked by several."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.chromium import unpacked, why_not

PACK = """
const zlib = require("node:zlib"), fs = require("node:fs");
const [from, to] = process.argv.slice(1);
for (const name of fs.readdirSync(from)) {
  fs.writeFileSync(`${to}/${name}.br`, zlib.brotliCompressSync(fs.readFileSync(`${from}/${name}`)));
}
"""
PROGRAM = """#!/bin/sh
[ "$2" = --version ] || [ "$1" = --no-zygote ] || exit 1
cat "$LD_LIBRARY_PATH/libnss3.so" "$FONTCONFIG_FILE" "$(dirname "$0")/libEGL.so"
"""


def tar_of(path: Path, *names: str) -> None:
    """An archive whose files hold their own names."""
    with tarfile.open(path, "w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(name)
            tar.addfile(entry, io.BytesIO(name.encode()))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """The package's bin folder; its program says what it finds."""
    plain, packed = tmp_path / "plain", tmp_path / "bin"
    plain.mkdir()
    packed.mkdir()
    (plain / "chromium").write_text(PROGRAM)
    tar_of(plain / "al2023.tar", "lib/libnss3.so")
    tar_of(plain / "swiftshader.tar", "libEGL.so")
    tar_of(plain / "fonts.tar", "fonts/Open_Sans/OpenSans-Regular.ttf", "fonts.conf")
    subprocess.run([node(), "-e", PACK, str(plain), str(packed)], check=True)
    return packed


def node() -> str:
    """Node; skips the test without it."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("needs node on PATH")
    return found


def test_many_unpack_it_at_once(packed: Path, tmp_path: Path) -> None:
    """Everyone gets the whole of it, it was unpacked once, and nothing is left lying about."""
    folder = tmp_path / "npm" / "unpacked"
    folder.parent.mkdir()

    def run(_: int) -> tuple[str, int]:
        program = unpacked(packed, folder, node())
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        return done.stdout, program.stat().st_ino

    with ThreadPoolExecutor(4) as pool:
        seen = set(pool.map(run, range(4)))
    ((said, _),) = seen
    assert said.startswith("lib/libnss3.so")
    assert f"<dir>{folder}/fonts</dir>" in said
    assert said.endswith("libEGL.so")
    assert (folder / "fonts/fonts/Open_Sans/OpenSans-Regular.ttf").is_file()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["unpacked", "unpacked.lock"]


def test_what_was_broken_off_is_done_again(packed: Path, tmp_path: Path) -> None:
    """A package that cannot be unpacked leaves no half of it for the next."""
    folder = tmp_path / "unpacked"
    whole = (packed / "fonts.tar.br").read_bytes()
    (packed / "fonts.tar.br").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(subprocess.CalledProcessError):
        unpacked(packed, folder, node())
    assert not folder.exists()
    (packed / "fonts.tar.br").write_bytes(whole)
    assert why_not(str(unpacked(packed, folder, node()))) is None


def test_a_browser_that_does_not_run_says_why(tmp_path: Path) -> None:
    """As Ubuntu's placeholder does, which is on PATH without a browser."""
    stub = tmp_path / "chromium-browser"
    stub.write_text("#!/bin/sh\necho 'requires the chromium snap' >&2\nexit 1\n")
    stub.chmod(0o755)
    assert why_not(str(stub)) == "requires the chromium snap"
    assert why_not(str(tmp_path / "absent")) == "FileNotFoundError"
