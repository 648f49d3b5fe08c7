"""The migrations in a real Postgres: who may do what, events in any order, up and down."""

from __future__ import annotations

import json
import random
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from postgres import SUPABASE, Database, copy_of, has_cron

USER = "aaaaaaaa-0000-0000-0000-00000000000a"
OTHER = "bbbbbbbb-0000-0000-0000-00000000000b"
DOWN = SUPABASE / "down" / "callme.sql"
# What the schemas consist of, except what only the platform has.
OBJECTS = """
select 'policy', polname from pg_policy union all
select 'function', p.oid::regprocedure::text from pg_proc p where pronamespace::regnamespace::text
  not in ('pg_catalog', 'information_schema') union all
select 'relation', oid::regclass::text from pg_class where relnamespace::regnamespace::text
  not like 'pg\\_%' union all
select 'acl', oid::regclass::text || relacl::text from pg_class where relacl is not null union all
select 'schema', nspname from pg_namespace where nspname not like 'pg\\_%' order by 1, 2
"""


@pytest.fixture
def database(cluster: Database) -> Database:
    """A database with all migrations and two users, and nothing else."""
    cluster.clear()
    cluster.run(f"insert into auth.users (id) values ('{USER}'), ('{OTHER}')")
    return cluster


def as_user(sql: str, user: str = USER) -> str:
    """SQL that runs as a user of the app, as PostgREST would run it."""
    claims = json.dumps({"sub": user, "role": "authenticated"})
    return (
        "begin; set local role authenticated; "
        f"set local request.jwt.claims = '{claims}'; {sql}; commit"
    )


def insert(*keys: str) -> str:
    """SQL in which the user makes a prediction for each key."""
    rows = ", ".join(f"('m', '{key}')" for key in keys)
    return as_user(f"insert into callme.predictions (model, key) values {rows}")


def test_the_database_itself_refuses(database: Database) -> None:
    """Over sixty attempts to read, write, forge, go back and exceed a quota."""
    lines = database.script(SUPABASE / "tests" / "access.test.sql").splitlines()
    failed = [line for line in lines if line.startswith(("not ok", "#"))]
    refusals = [line for line in lines if re.match(r"ok \d+ - \d\d ", line)]
    assert not failed, "\n".join(failed)
    assert len(refusals) == 63


def test_up_twice_down_and_up(cluster: Database) -> None:
    """A second run changes nothing, down leaves what was there before, and up works again."""
    with copy_of(cluster) as database:
        after_up = database.run(OBJECTS)
        database.migrate()
        assert database.run(OBJECTS) == after_up
        database.file(DOWN)
        down = database.run(OBJECTS)
        assert "callme" not in down
        database.file(DOWN)
        assert database.run(OBJECTS) == down
        database.migrate()
        assert database.run(OBJECTS) == after_up
        assert "relation|public" not in after_up, "nothing is in public"


def test_a_project_that_grants_nothing_by_itself(cluster: Database) -> None:
    """Since 2026-10 new tables have no grants, not even for the service role."""
    with copy_of(cluster) as database:
        database.file(DOWN)
        for kind in ("tables", "functions", "sequences"):
            database.run(
                f"alter default privileges for role postgres revoke all on {kind} "
                "from public, anon, authenticated, service_role"
            )
        database.migrate()
        database.clear()
        database.run(f"insert into auth.users (id) values ('{USER}')")
        database.run(as_user("insert into callme.predictions (model) values ('m')"))
        claimed = database.run("set role service_role; select count(*) from callme.claim()")
        assert claimed == "1"


def events_of(prediction: str, chance: random.Random) -> list[dict[str, object]]:
    """What the box says of one prediction, in order. A run may begin again; not all of them end."""
    at = 1_790_000_000_000
    events: list[dict[str, object]] = []
    for attempt in range(chance.randint(1, 2)):
        at += 1000
        started = {"started_at": f"2026-11-27T10:0{attempt}:00Z"}
        events.append({"id": prediction, "at": at, "status": "processing", **started})
        for step in range(chance.randint(0, 20)):
            at += chance.choice([0, 0, 300, 900])  # 0: two events with the same time
            progress = {"progress": step * 5, "log_tail": f"step {step} of {attempt}"}
            events.append(
                {"id": prediction, "at": at, "status": "processing", **progress, **started}
            )
    end = chance.choice(["succeeded", "failed", "canceled", "aborted", None])
    if end is not None:
        output = {"picture": None, "seed": 7} if end == "succeeded" else None
        files = [{"place": ["picture"], "name": "a.webp"}] if end == "succeeded" else []
        times = {"at": at + 1, "completed_at": "2026-11-27T10:05:00Z", **started}
        result = {"output": output, "output_files": files, "metrics": {"predict_time": 1.5}}
        events.append({"id": prediction, "status": end, "log_tail": "done", **times, **result})
    return events


def test_a_thousand_events_in_any_order(database: Database) -> None:
    """Shuffled and doubled they give the same rows as in order; a row's status never goes back."""
    chance = random.Random(21)
    database.run("update callme.settings set running = 1000, per_day = 1000")
    database.run(
        as_user("insert into callme.predictions (model) select 'm' from generate_series(1, 75)")
    )
    ids = database.run("select id from callme.predictions order by id").split()
    events = [event for i in ids for event in events_of(i, chance)]
    assert len(events) > 1000
    shuffled = events * 2
    chance.shuffle(shuffled)
    results = []
    for order in (events, shuffled):
        # In one go, and without the cost of a connection for each.
        text = json.dumps(order).replace("'", "''")
        apply = f"select count(callme.apply_event(e)) from jsonb_array_elements('{text}') e"
        rows = "select to_jsonb(p) - '{version,updated_at,sent_at}'::text[]"
        said = database.run(
            f"set role service_role; begin; {apply}; {rows} from callme.predictions p order by id;"
            "rollback"
        )
        results.append(said.splitlines()[1:])
    in_order, mixed = results
    assert in_order == mixed
    ended = [json.loads(row) for row in in_order]
    assert {row["status"] for row in ended} == {"processing", "succeeded", "failed", "canceled"}
    done = next(row for row in ended if row["status"] == "succeeded")
    path = f"storage://callme-outputs/{USER}/{done['id']}/a.webp"
    assert done["output"] == {"picture": path, "seed": 7}


def test_inserts_at_the_same_time_do_not_pass_the_quota(database: Database) -> None:
    """Twelve connections at once: two rows, ten refusals."""
    slow = as_user("insert into callme.predictions (model) values ('m'); select pg_sleep(0.05)")

    def attempt(_: int) -> str:
        command = [str(database.programs / "psql"), "-Xqv", "ON_ERROR_STOP=1"]
        done = subprocess.run(
            [
                *command,
                "-v",
                "VERBOSITY=verbose",
                "-d",
                database.url("supabase_admin"),
                "-c",
                slow,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        return "made" if done.returncode == 0 else done.stderr

    with ThreadPoolExecutor(12) as pool:
        said = list(pool.map(attempt, range(12)))
    assert said.count("made") == 2
    assert sum("PT429" in text for text in said) == 10
    assert database.run("select count(*) from callme.predictions") == "2"
    assert database.run("select made from callme.usage") == "2", "a refused one is not counted"


def test_claims_are_given_once_and_again_later(database: Database) -> None:
    """Eight sweeps at once take each row once. An unsent row is due again, later and later."""
    database.run("update callme.settings set running = 100, per_day = 100")
    database.run(
        as_user("insert into callme.predictions (model) select 'm' from generate_series(1, 40)")
    )
    with ThreadPoolExecutor(8) as pool:
        claim = "set role service_role; select id from callme.claim(null, 5)"
        taken = [i for ids in pool.map(database.run, [claim] * 8) for i in ids.split()]
    assert len(taken) == len(set(taken)) == 40
    assert database.run(claim) == ""
    wait = (
        "select distinct extract(epoch from next_try_at - updated_at)::int from callme.predictions"
    )
    assert database.run(wait) == "15"
    database.run("update callme.predictions set next_try_at = now()")
    database.run("select callme.claim(null, 100)")
    assert database.run(wait) == "30"
    database.run(f"select callme.mark_sent('{taken[0]}', 'box')")
    database.run("update callme.predictions set next_try_at = now()")
    assert len(database.run("select id from callme.claim(null, 100)").split()) == 39


def test_cancel_before_and_after_the_box_has_it(database: Database) -> None:
    """An unsent one ends at once; a sent one is due again until the box reports its end."""
    database.run(
        as_user("insert into callme.predictions (model, key) values ('m', 'a'), ('m', 'b')")
    )
    database.run("select callme.mark_sent(id, 'box') from callme.predictions where key = 'b'")
    database.run(f"select callme.cancel(id, '{USER}') from callme.predictions")
    assert (
        database.run("select key, status from callme.predictions order by key")
        == "a|canceled\nb|starting"
    )
    assert database.run("select key from callme.claim()") == "b"


def test_time_ends_lost_ones_and_deletes_old_ones(database: Database) -> None:
    """One tick: a lost prediction fails, an old one and its files go, the function is called."""
    database.run(
        as_user("insert into callme.predictions (model, key) values ('m', 'lost'), ('m', 'old')")
    )
    database.run(
        "update callme.settings set functions_url = 'https://x.example/functions/v1';"
        "update callme.predictions set status = 'succeeded',"
        " completed_at = now() - interval '31 days' where key = 'old';"
        "alter table callme.predictions disable trigger callme_go_forward;"
        "update callme.predictions set created_at = now() - interval '27 hours' where key = 'lost';"
        "alter table callme.predictions enable trigger callme_go_forward;"
        f"insert into storage.objects (bucket_id, name, created_at) values"
        f" ('callme-inputs', '{USER}/old.wav', now() - interval '31 days'),"
        f" ('callme-inputs', '{USER}/new.wav', now())"
    )
    database.run("select callme.tick()")
    assert (
        database.run("select key, status, error_code from callme.predictions") == "lost|failed|lost"
    )
    trash = database.run("select bucket, prefix from callme.claim_trash()").splitlines()
    assert any(line == f"callme-inputs|{USER}/old.wav" for line in trash)
    assert len(trash) == 2
    assert database.run("select count(*) from callme.claim_trash()") == "0", "given once"
    called = database.run("select url from net.http_request_queue")
    assert called == "https://x.example/functions/v1/predictions/sweep"
    clean = "delete from callme.trash; delete from storage.objects; "
    database.run(f"{clean}select callme.tick()")
    assert database.run("select count(*) from net.http_request_queue") == "1", "nothing was due"
    # After an outage: a call takes two, so one for each two; never over sixty.
    database.run("update callme.settings set running = 1000, per_day = 1000")
    for rows, calls in ((5, 3), (200, 60)):
        values = f"select 'm' from generate_series(1, {rows})"
        database.run(as_user(f"insert into callme.predictions (model) {values}"))
        database.run(f"{clean}delete from net.http_request_queue; select callme.tick()")
        assert database.run("select count(*) from net.http_request_queue") == str(calls)


def test_an_insert_rings_when_the_app_only_inserts(database: Database) -> None:
    """Off by default; a failure of pg_net does not fail the insert."""
    database.run("update callme.settings set functions_url = 'https://x.example/functions/v1'")
    database.run(insert("x"))
    assert database.run("select count(*) from net.http_request_queue") == "0"
    database.run("update callme.settings set ring_on_insert = true, running = 9")
    database.run(insert("y"))
    assert database.run("select count(*) from net.http_request_queue") == "1"
    database.run("alter table net.http_request_queue rename to gone")
    try:
        database.run(insert("z"))
    finally:
        database.run("alter table net.gone rename to http_request_queue")
    assert database.run("select count(*) from callme.predictions") == "3"


def test_pg_cron_runs_the_clock(cluster: Database) -> None:
    """Where pg_cron is, one job; scheduled twice it is still one; down removes it."""
    if not has_cron(cluster):
        pytest.skip("needs pg_cron: apt-get install postgresql-15-cron")
    with copy_of(cluster, "clock") as database:
        database.run("create extension pg_cron; grant usage on schema cron to postgres")
        database.migrate()
        database.migrate()
        jobs = "select schedule, command, username from cron.job"
        assert database.run(jobs) == "* * * * *|select callme.tick()|postgres"
        database.file(DOWN)
        assert database.run(jobs) == ""
