"""`callme supabase types`: what it writes is TypeScript, and fits the client."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from deno_server import ROOT, find_deno, plain_env

CLIENT = ROOT / "supabase" / "client" / "callme.ts"
HOOK = ROOT / "docs" / "examples" / "use-callme.ts"
SETTINGS = ROOT / "supabase" / "functions" / "predictions" / "deno.json"
RUN = """
from cog import BaseModel, BaseRunner, Input, Path, Secret


class Output(BaseModel):
    picture: Path
    layers: list[Path]
    score: float | None
    tags: list[str]


class Runner(BaseRunner):
    def run(
        self,
        photo: Path = Input(description="A picture */ x"),
        pages: list[Path] = Input(default=[]),
        style: str = Input(default="a | b", choices=["a | b", 'c"d']),
        size: int = Input(default=2, choices=[2, 4]),
        seed: int | None = Input(default=None),
        either: str | float = Input(description="Text or a number", default="x"),
        many: list[str] | str = Input(default="x"),
        key: Secret = Input(default=None),
    ) -> Output:
        raise NotImplementedError
"""
# What cog builds from classes within classes, and what other tools write.
NESTED: dict[str, Any] = {
    "Input": {"type": "object", "properties": {}},
    "Output": {"anyOf": [{"$ref": "#/components/schemas/Tree"}, {"type": "null"}]},
    "Tree": {
        "type": "object",
        "required": ["kind", "found-at", "sizes"],
        "properties": {
            "kind": {"const": "tree"},
            "found-at": {"allOf": [{"$ref": "#/components/schemas/Place"}], "nullable": True},
            "children": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}},
            "sizes": {"type": "object", "additionalProperties": {"type": ["integer", "null"]}},
            "anything": {},
        },
    },
    "Place": {"type": "object", "required": ["x"], "properties": {"x": {"type": "number"}}},
}
# As much of React's types as the hook needs.
REACT = """
type Set<T> = (value: T) => void;
export declare function useState<T>(value: T): [T, Set<T>];
export declare function useRef<T>(value: T): { current: T };
export declare function useCallback<F>(callback: F, depends: unknown[]): F;
export declare function useEffect(effect: () => void | (() => void), depends: unknown[]): void;
"""
RENDER = """
import json, sys
from router.cli.supabase_types import render
print(render({"nested": {"components": {"schemas": json.loads(sys.argv[1])}}}))
"""
# Each @ts-expect-error is an error itself when the line below has none.
USE = """
import { createCallme } from "./callme.ts";
import type { FileInput, Models } from "./models.ts";
import type { Models as Nested } from "./nested.ts";
import { useCallme } from "./use-callme.ts";

const callme = createCallme<Models>({});
const file: FileInput = new Blob();
const { output } = await callme.run("my-model", {
  photo: file, pages: [file, "storage://callme-inputs/u/x"], style: "a | b", size: 4, seed: null,
  either: 1, many: ["x"], key: null,
});
export const picture: string = await callme.url(output.picture);
export const layers: string[] = output.layers;
export const score: number | null | undefined = output.score;
await callme.run("my-model", { photo: file }, { onProgress: (row) => row.output?.layers });
// @ts-expect-error: it is required
await callme.run("my-model", {});
// @ts-expect-error: no such model
await callme.run("my-modle", { photo: file });
// @ts-expect-error: no such choice
await callme.run("my-model", { photo: file, style: "c" });
// @ts-expect-error: a number
await callme.run("my-model", { photo: file, seed: "7" });
// @ts-expect-error: no such choice
await callme.run("my-model", { photo: file, size: 3 });
// @ts-expect-error: no such input
await callme.run("my-model", { photo: file, sed: 7 });
// @ts-expect-error: a list of files
await callme.run("my-model", { photo: file, pages: file });
// @ts-expect-error: no such output
output.pictures;

const { output: tree } = await createCallme<Nested>({}).run("nested", {});
export const x: number | undefined = tree?.["found-at"]?.x;
export const deep: "tree" | undefined = tree?.children?.[0]?.children?.[0]?.kind;
export const size: number | null | undefined = tree?.sizes["s"];
// @ts-expect-error: may be null
tree.kind;

const hook = useCallme(callme, "my-model");
await hook.run({ photo: file });
export const shown: string | undefined = hook.row?.output?.picture;
// @ts-expect-error: it is required
await hook.run({});

// Without types all inputs are taken.
const plain = createCallme({});
await plain.run("any", { text: 1 });
"""


def test_the_types_fit_the_client_and_the_schemas(tmp_path: Path) -> None:
    """What the schema allows can be written, and what it does not is an error of the compiler."""
    package = tmp_path / "packages" / "my-model"
    package.mkdir(parents=True)
    (package / "run.py").write_text(RUN)
    (package / "cog.yaml").write_text('build:\n  python_version: "3.11"\nrun: "run.py:Runner"\n')
    command = [sys.executable, "-m", "router.cli", "supabase", "types"]
    options = ["--packages", str(package.parent), "--output", str(tmp_path / "models.ts")]
    env = plain_env(PYTHONPATH=str(ROOT))
    done = run([*command, *options], tmp_path, env)
    assert done.returncode == 0, done.stderr
    assert "my-model" in done.stderr
    rendered = run([sys.executable, "-c", RENDER, json.dumps(NESTED)], tmp_path, env)
    (tmp_path / "nested.ts").write_text(rendered.stdout)
    (tmp_path / "use.ts").write_text(USE)
    (tmp_path / "react.ts").write_text(REACT)
    shutil.copy(CLIENT, tmp_path)
    shutil.copy(HOOK, tmp_path)
    settings = {**json.loads(SETTINGS.read_text()), "imports": {"react": "./react.ts"}}
    (tmp_path / "deno.json").write_text(json.dumps(settings))
    checked = run([str(find_deno()), "check", "use.ts"], tmp_path, plain_env())
    written = (tmp_path / "models.ts").read_text() + rendered.stdout + rendered.stderr
    assert checked.returncode == 0, checked.stdout + checked.stderr + written
    assert "A picture * / x" in written
    assert "plain text" in written, "a secret is kept in the row"

    (package / "run.py").write_text("raise RuntimeError('no such library')")
    failed = run([*command, *options], tmp_path, env)
    assert (failed.returncode, "no such library" in failed.stderr) == (1, True), failed.stderr


def run(command: list[str], folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The command to its end."""
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )
