"""`callme up --public`: prepares the tunnel, and prints what happens to it."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr
from rich.markup import escape

from router.cli.common import base_url, console, fail
from router.errors import RouterError
from router.keys.key import split_key
from router.predictions.webhook_sender import WEBHOOK_FILE, load_secret
from router.settings import Settings
from router.storage.private_files import NotPrivateError, make_state_folder
from router.tunnel.announce import Exposed, Tell
from router.tunnel.announcers import Publisher, PublishSetup, make_publisher
from router.tunnel.cloudflared import TunnelOptions

if TYPE_CHECKING:
    from router.http.context import Context

KEY_ID = "tunnel"
# The names of inputs that the edge function reads.
INPUT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# The variables that other tools use for these.
PROJECT, TOKEN, TUNNEL = "SUPABASE_PROJECT_ID", "SUPABASE_ACCESS_TOKEN", "TUNNEL_TOKEN"
NO_CLOUDFLARED = (
    "Install it: https://developers.cloudflare.com/cloudflare-one/connections/connect-networks/"
    "downloads/ ; callme doctor looks for it."
)


def prepare(settings: Settings, targets: Sequence[str], dry_run: bool) -> tuple[Settings, Exposed]:
    """The settings, with a key, since a tunnel never opens without one; and how the box is exposed.
    Ends with code 2 when something is missing."""
    program = shutil.which("cloudflared")
    if program is None:
        fail("Cannot open a tunnel: 'cloudflared' is not on PATH.", NO_CLOUDFLARED, 2)
    command_env = dict(os.environ)
    tunnel_token = _secret(settings.tunnel_token, TUNNEL)
    if tunnel_token and not settings.tunnel_url:
        message = "Cannot open the named tunnel: its address is not set."
        fail(message, "Set CALLME_TUNNEL_URL=https://… to its address at Cloudflare.", 2)
    setup = PublishSetup(
        cwd=Path.cwd(),
        env=command_env,
        webhook_secret=_webhook_secret(settings.state),
        supabase_project=settings.supabase_project or os.environ.get(PROJECT),
        supabase_token=_secret(settings.supabase_access_token, TOKEN),
        supabase_api_url=settings.supabase_api_url.rstrip("/"),
    )
    settings, key_id, key = _with_key(settings)
    options = TunnelOptions(
        program=Path(program),
        origin=base_url(settings),
        state=settings.state,
        token=tunnel_token,
        public_url=settings.tunnel_url if tunnel_token else None,
    )
    publishers = _publishers(targets or settings.publish, setup)
    return settings, Exposed(options, key_id, key, publishers, dry_run)


def _webhook_secret(state: Path) -> str:
    try:
        make_state_folder(state)
        return load_secret(state / WEBHOOK_FILE)
    except NotPrivateError as error:
        fail(f"Cannot start: {error}")


def _with_key(settings: Settings) -> tuple[Settings, str, str]:
    """The first configured key, else a new one for this run, which is not stored. It is never an
    admin key, as the users of an app must not see each other's predictions."""
    if settings.keys:
        key_id, _, key = split_key(settings.keys[0].get_secret_value())
        return settings, key_id or "key1", key
    key = f"ck_{secrets.token_urlsafe(32)}"
    given = (SecretStr(f"{KEY_ID}:{key}"),)
    return settings.model_copy(update={"keys": given}), KEY_ID, key


def _publishers(targets: Sequence[str], setup: PublishSetup) -> tuple[Publisher, ...]:
    if not targets and setup.supabase_project and setup.supabase_token:
        targets = ("supabase",)
    try:
        return tuple(make_publisher(target, setup) for target in targets)
    except ValueError as error:
        fail(str(error), code=2)


def _secret(configured: SecretStr | None, name: str) -> str | None:
    """The setting, else the environment variable of that name."""
    return configured.get_secret_value() if configured else os.environ.get(name)


async def models_of(context: Context) -> str:
    """The models that the box serves, each with the first file that it needs: the form of
    `router.tunnel.announcers.Address`. It waits for the schemas of all models. One that cannot be
    read is left out, so the web app is refused at once."""
    found = []
    for name in context.models:
        try:
            fields = (await context.input_schema(context.packages[name])).fields
        except RouterError:
            continue
        needed = [n for n, field in fields.items() if field.is_file and field.required]
        usable = [n for n in needed if INPUT.fullmatch(n)]
        found.append(f"{name}:{usable[0]}" if usable else name)
    return ",".join(found)


def teller(exposed: Exposed) -> Tell:
    """A function that prints what happens to the tunnel."""

    def tell(kind: str, message: str) -> None:
        console.print(_line(exposed, kind, message), soft_wrap=True, markup=kind != "by hand")

    return tell


def _line(exposed: Exposed, kind: str, message: str) -> str:
    text = escape(message)
    lines = {
        "tunnel": "Tunnel: opening …",
        "open": f"Tunnel: [bold]{text}[/bold] leads here",
        "published": f"Published: {text} has the address, the key and the models",
        "preview": f"Dry run, not published: {text}",
        "trouble": f"[yellow]Tunnel:[/yellow] {text}",
    }
    if kind != "by hand":
        return lines[kind]
    # The key is printed only on a terminal: a log would keep it.
    key = exposed.key if console.is_terminal else "<the key; set CALLME_KEYS to choose it>"
    return (
        f"The address was not published. To set it for your edge function:\n  supabase secrets set "
        f"GPU_BACKEND_URL={message} GPU_BACKEND_KEY={key} GPU_BACKEND_KEY_ID={exposed.key_id}"
    )
