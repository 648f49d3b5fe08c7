"""`callme ray`: models on a cluster of several machines, by Ray's own tools (docs/ray.md)."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from router.cli.common import Json, console, err_console, fail
from router.cli.deploy import find_tool, package_folder
from router.cli.ray_kubernetes import manifest
from router.cli.ray_status import show
from router.settings import CHECKOUT

RAY_SOURCE = CHECKOUT / "deploy" / "ray_source.py"
SERVE_PORT = 8000
# The machines on which fronts run. Serve builds applications there too, since no other deployment
# asks for a label.
FRONT = "callme=front"
NO_RAY = "install it with `pip install --constraint constraints.txt '.[ray]'`"
# serve.yaml is read by people: short lists stay on one line.
HEADER = """\
# Written by `callme ray init`; edit it. `callme ray deploy` writes the digests (docs/ray.md).
proxy_location: EveryNode
http_options: {{host: {host}, port: {port}}}
applications:
"""
APPLICATION = """\
- name: {name}
  route_prefix: /models/{name}
  import_path: ray_app:app
  args:
    package: {package}
    digest: "{digest}"
  deployments:
  - name: front
    num_replicas: {fronts}
    max_replicas_per_node: 1
    ray_actor_options: {{num_cpus: 0.1, label_selector: {{callme: front}}}}
  - name: model
    ray_actor_options: {{num_gpus: {gpus}, num_cpus: 1}}
    autoscaling_config:
      {{min_replicas: 0, max_replicas: {most}, target_ongoing_requests: {concurrency},
       upscale_delay_s: 2, downscale_delay_s: 300, look_back_period_s: 12}}
"""
UNIT = """\
# Written by `callme ray init`. On {where}: copy it to /etc/systemd/system/callme-ray.service.
[Unit]
Description=CALLME on Ray, {role}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
User=callme
WorkingDirectory={checkout}
StateDirectory=callme
Environment=CALLME_STATE_DIR=/var/lib/callme
ExecStart={callme} ray up {options}
KillMode=mixed
TimeoutStopSec=60
Restart=always
RestartSec=2
LimitNOFILE=65536
UMask=0077

[Install]
WantedBy=multi-user.target
"""

File = Annotated[Path, typer.Option("--file", "-f", help="The cluster's serve.yaml.")]
Dashboard = Annotated[str, typer.Option(help="The head's dashboard, http://10.0.0.1:8265.")]

ray = typer.Typer(help="Models on a Ray cluster of several machines.", no_args_is_help=True)


def add_commands(app: typer.Typer) -> None:
    """Add `ray`."""
    app.add_typer(ray, name="ray")


@ray.command()
def init(
    models: Annotated[list[str], typer.Argument(help="Names of models, or their folders.")],
    *,
    head: Annotated[str, typer.Option(help="The first machine's private address.")],
    fronts: Annotated[
        int, typer.Option(min=1, help="Machines that take requests, the first one included.")
    ] = 2,
    replicas: Annotated[int, typer.Option(min=1, help="The most GPUs that a model gets.")] = 3,
    file: File = Path("serve.yaml"),
) -> None:
    """Write serve.yaml and, beside it, a systemd unit for each kind of machine."""
    _private(head)
    if file.exists():
        fail(f"Cannot write {file}: it exists", "Edit it, or delete it first.")
    parts = [HEADER.format(host="0.0.0.0", port=SERVE_PORT)]  # noqa: S104 - of each machine
    for model in models:
        folder = package_folder(model)
        found = _describe(folder)
        parts.append(
            APPLICATION.format(
                name=folder.name,
                package=json.dumps(str(folder)),
                digest=found["digest"],
                fronts=fronts,
                gpus=1 if found["gpu"] else 0,
                concurrency=found["concurrency"],
                most=replicas,
            )
        )
    file.write_text("".join(parts))
    written = [str(file)]
    for role, where, options in (
        ("head", head, f"--address {head}"),
        ("front", "other machines that take requests", f"--join {head} --front"),
        ("worker", "all other machines", f"--join {head}"),
    ):
        unit = file.with_name(f"callme-ray-{role}.service")
        callme = Path(sys.executable).parent / "callme"
        unit.write_text(
            UNIT.format(where=where, role=role, checkout=CHECKOUT, callme=callme, options=options)
        )
        written.append(str(unit))
    console.print(f"Wrote {', '.join(written)}.", soft_wrap=True, markup=False)
    console.print("Install a unit on each machine. Then, on the head: callme ray deploy")


@ray.command()
def up(
    *,
    address: Annotated[
        str, typer.Option(help="This machine's private address; needed on the first machine.")
    ] = "",
    join: Annotated[str, typer.Option(help="The first machine's address; not on itself.")] = "",
    front: Annotated[bool, typer.Option(help="Take requests here; the head always does.")] = False,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="GPUs to use; default: all of this machine.")
    ] = None,
    port: Annotated[int, typer.Option(help="Of the head.")] = 6379,
    dashboard_port: Annotated[int, typer.Option(help="Of the head's dashboard.")] = 8265,
) -> None:
    """Be a machine of the cluster until it is stopped. The first machine says --address, the others
    --join."""
    if bool(address) == bool(join):
        fail("Cannot start: say --address on the first machine, or --join on another one", code=2)
    _private(address or join)
    tool = find_tool("ray", NO_RAY)
    _check_version(tool)
    command = [tool, "start", "--block", "--disable-usage-stats"]
    if address:
        for own in (port, dashboard_port):
            _check_free(address, own)
        command += ["--head", f"--node-ip-address={address}", f"--port={port}"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"]
    else:
        command.append(f"--address={join}:{port}")
    if address or front:
        command.append(f"--labels={FRONT}")
    if gpus is not None:
        command.append(f"--num-gpus={gpus}")
    # Applications are built from the checkout. What the cluster knows is kept on the
    # disk, so it is not lost with the head's process.
    env = {
        "PYTHONPATH": str(RAY_SOURCE.parent),
        "RAY_gcs_storage": "rocksdb",
        "RAY_gcs_storage_path": str(_state_folder() / "ray-gcs"),
    }
    _show(command)
    os.execve(tool, command, {**_clean_environment(), **env})  # noqa: S606


@ray.command()
def deploy(*, file: File = Path("serve.yaml"), dashboard: Dashboard = "") -> None:
    """Bring the cluster to what serve.yaml and the packages' sources say. On the head."""
    file.write_text(_with_digests(file))
    _run([find_tool("serve", NO_RAY), "deploy", str(file), *_at(dashboard)])


@ray.command()
def kubernetes(
    *,
    image: Annotated[str, typer.Option(help="Has Ray, this checkout at its path, and weights.")],
    cpus: Annotated[int, typer.Option(min=1, help="Of a pod with a GPU.")] = 4,
    memory: Annotated[str, typer.Option(help="Of a pod with a GPU.")] = "16Gi",
    file: File = Path("serve.yaml"),
) -> None:
    """Print KubeRay's RayService for serve.yaml: ... | kubectl apply -f -"""
    text = _with_digests(file)
    typer.echo(
        manifest(
            text,
            image=image,
            version=_pinned_version(),
            deploy=RAY_SOURCE.parent,
            cpus=cpus,
            memory=memory,
        ),
        nl=False,
    )


@ray.command()
def status(*, as_json: Json = False, dashboard: Dashboard = "") -> None:
    """Show each model's replicas and queue, and the GPUs of each machine."""
    show(dashboard, as_json=as_json)


@ray.command()
def down(*, dashboard: Dashboard = "") -> None:
    """Remove all models from the cluster. Its machines leave when their service is stopped."""
    _run([find_tool("serve", NO_RAY), "shutdown", "--yes", *_at(dashboard)])


# ---- helpers -----------------------------------------------------------------------------------


def _with_digests(file: Path) -> str:
    """The text of serve.yaml with the digests of the packages' sources as they are now."""
    text = _read(file)
    for application in yaml.safe_load(text)["applications"]:
        name, args = application["name"], application.get("args") or {}
        old, new = str(args.get("digest")), _describe(Path(str(args.get("package"))))["digest"]
        if old == new:
            continue
        # In its own part only: two packages may have the same source.
        part = re.search(rf"^ *- *name: *{re.escape(name)} *$", text, re.M)
        begin = part.start() if part else 0
        digest = rf"(\bdigest: *)[\"']?{re.escape(old)}[\"']?(?![\w\"'])"
        changed, count = re.subn(digest, rf'\g<1>"{new}"', text[begin:], count=1)
        if not count:
            fail(
                f"Cannot find the digest of {name} in {file}", "Below its args, write: digest: new"
            )
        text = text[:begin] + changed
        err_console.print(f"{name}: new source, {new}", markup=False)
    return text


def _describe(folder: Path) -> dict[str, Any]:
    """digest, gpu and concurrency of the package. Ends the command when it cannot be deployed."""
    if not RAY_SOURCE.is_file():
        fail(
            "Cannot use Ray: this is an installed wheel, without deploy/ray_source.py",
            "use a checkout of the repository",
        )
    found: dict[str, Any] = json.loads(
        _run([sys.executable, str(RAY_SOURCE), str(folder)], quiet=True).splitlines()[-1]
    )
    return found


def _private(address: str) -> None:
    """End the command unless the address is private: a program that reaches Ray may run code."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        fail(f"Cannot use '{address}': it must be an IP address of a private network", code=2)
    if not ip.is_private:
        fail(
            f"Cannot use {address}: it is not private",
            "Every program that reaches Ray's ports may run code there. Use a private network.",
            code=2,
        )


def _check_version(tool: str) -> None:
    """End the command unless the tool is the version that the packages were tried with."""
    pinned = _pinned_version()
    version = _run([tool, "--version"], quiet=True).rpartition(" ")[2].strip()
    if version != pinned:
        fail(f"Cannot start: Ray {pinned} is needed, {version} is installed", NO_RAY)


def _pinned_version() -> str:
    """The version of Ray that the packages were tried with."""
    constraints = (CHECKOUT / "constraints.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in constraints if line.startswith("ray=="))


def _check_free(address: str, port: int) -> None:
    """End the command when the port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            fail(f"Cannot start: {address}:{port} cannot be used: {error.strerror}")


def _state_folder() -> Path:
    """Where this machine keeps its part of the cluster's state."""
    return Path(os.environ.get("CALLME_STATE_DIR") or CHECKOUT / "var" / "ray").resolve()


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        fail(f"Cannot read {file}: {error.strerror}", "`callme ray init` writes one.")


def _at(dashboard: str) -> list[str]:
    return ["--address", dashboard] if dashboard else []


def _clean_environment() -> dict[str, str]:
    """Without the router's settings: they may contain keys, and no other tool needs them."""
    return {k: v for k, v in os.environ.items() if not k.startswith("CALLME_")}


def _show(command: Sequence[str]) -> None:
    err_console.print(shlex.join(command), style="dim", soft_wrap=True, markup=False)


def _run(command: Sequence[str], *, quiet: bool = False) -> str:
    """Run a tool. When it fails, this command ends with the same exit code. With `quiet`, its
    output is returned instead of shown, and its errors are shown."""
    if not quiet:
        _show(command)
    pipe = subprocess.PIPE if quiet else None
    done = subprocess.run(  # noqa: S603
        command, env=_clean_environment(), stdout=pipe, text=True, check=False
    )
    if done.returncode:
        raise typer.Exit(done.returncode)
    return done.stdout or ""
