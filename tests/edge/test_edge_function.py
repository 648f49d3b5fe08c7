"""The edge function's own checks, each reported: types, lint, format, unit tests."""

import re
import subprocess
from pathlib import Path

import pytest
from deno_server import FUNCTION, ROOT, find_deno, plain_env
from npm_tools import DENO_HOSTED, npm_binary

FOLDERS = sorted(path.parent for path in FUNCTION.parent.glob("*/deno.json"))


def run_deno(deno: Path, *arguments: str, folder: Path = FUNCTION) -> str:
    """Runs Deno in the function's folder; fails with all it said unless it exits 0."""
    done = subprocess.run(
        [str(deno), *arguments],
        cwd=folder,
        env=plain_env(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, f"deno {' '.join(arguments)} exited {done.returncode}:\n{output}"
    return output


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
@pytest.mark.parametrize("arguments", [["check"], ["lint"], ["fmt", "--check"]], ids=lambda a: a[0])
def test_types_lint_and_format_are_clean(arguments: list[str], folder: Path) -> None:
    """`deno check`, `lint` and `fmt --check` find nothing, tests and shared files included."""
    files = sorted(path.name for path in folder.glob("*.ts")) if arguments == ["check"] else ["."]
    shared = [] if folder == FUNCTION or arguments == ["check"] else ["../_shared"]
    run_deno(find_deno(), *arguments, *files, *shared, folder=folder)


def test_unit_tests_pass_on_the_pinned_deno() -> None:
    """`deno test` passes, with types checked and no permission but reading the vectors."""
    assert "| 0 failed" in run_deno(find_deno(), "test", "--no-remote", "--allow-read")


def test_unit_tests_pass_on_the_hosted_runtimes_deno() -> None:
    """`deno test` passes on the Deno that Supabase's hosted runtime is compatible with."""
    deno = npm_binary(DENO_HOSTED, "deno")
    # Its older type definitions lack what the pinned one checks; what matters here is that it runs.
    output = run_deno(deno, "test", "--no-check", "--no-remote", "--allow-read")
    assert "| 0 failed" in output


def test_nothing_is_imported_from_the_network() -> None:
    """Every import is a file of the functions' folders, or of what Deno has of Node built in."""
    built_in = {"node:crypto"}
    for path in FUNCTION.parent.glob("*/*.ts"):
        for line in path.read_text().splitlines():
            if " from " in line and line.lstrip().startswith(("import", "export", "}")):
                source = line.rsplit(" from ", 1)[1].strip(' ;"')
                allowed = (
                    source.startswith(("./", "../backend_server/", "../_shared/"))
                    or source in built_in
                    or (source == "node:assert/strict" and path.name.endswith("_test.ts"))
                )
                assert allowed, f"{path.name} imports {source}"


def test_the_pages_name_every_secret_and_every_error_code() -> None:
    """Each environment variable the function reads, and each code it answers, has its row."""
    readme = (ROOT / "supabase" / "README.md").read_text()
    answers = (ROOT / "docs" / "supabase" / "backend-server.md").read_text()
    sources = [path for path in FUNCTION.glob("*.ts") if not path.name.endswith("_test.ts")]
    code = "\n".join(path.read_text() for path in sources if path.name != "testing.ts")
    secrets = set(re.findall(r"[\"'`]((?:GPU_BACKEND|CORS|BACKEND_SERVER)_[A-Z_]+)[\"'`]", code))
    assert len(secrets) == 11
    assert secrets == set(re.findall(r"^\| `([A-Z_]+)` \|", readme, re.M))
    codes = set(re.findall(r"^  ([a-z_]+): \d{3},", (FUNCTION / "errors.ts").read_text(), re.M))
    documented = set(re.findall(r"^\| \d{3} \| `([a-z_]+)` \|", answers, re.M))
    assert codes - {"client_closed_request"} == documented  # that one, nobody is left to read
