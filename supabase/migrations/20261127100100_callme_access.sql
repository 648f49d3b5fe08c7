-- Who may do what. A user inserts predictions and reads their own, and nothing else; the service
-- role does the rest, by the functions below. This file can be run again.

alter table callme.predictions enable row level security;
alter table callme.settings enable row level security;
alter table callme.quotas enable row level security;
alter table callme.usage enable row level security;
alter table callme.trash enable row level security;

-- Since 2026-10 a project gives no grants by itself; an older one may have given too many.
revoke all on schema callme from public, anon, authenticated;
revoke all on all tables in schema callme from public, anon, authenticated;
grant usage on schema callme to authenticated, service_role;
grant all on all tables in schema callme to service_role;
grant select on callme.predictions, callme.quotas, callme.usage to authenticated;
-- Only what a user may say. Owner, state, result and times are out of reach.
grant insert (key, model, input) on callme.predictions to authenticated;

-- `(select auth.uid())` is computed once a statement and not once a row.
drop policy if exists "users read their own predictions" on callme.predictions;
create policy "users read their own predictions" on callme.predictions
  for select to authenticated using ((select auth.uid()) = user_id);
drop policy if exists "users make their own predictions" on callme.predictions;
create policy "users make their own predictions" on callme.predictions
  for insert to authenticated with check ((select auth.uid()) = user_id);
drop policy if exists "users read their own quota" on callme.quotas;
create policy "users read their own quota" on callme.quotas
  for select to authenticated using ((select auth.uid()) = user_id);
drop policy if exists "users read their own usage" on callme.usage;
create policy "users read their own usage" on callme.usage
  for select to authenticated using ((select auth.uid()) = user_id);

-- ---- for the functions, as the service role ----------------------------------------------
-- They run with the caller's rights, so a caller without rights on the tables can do nothing.

-- Take predictions that the box should hear of, so that nobody else tells it at the same time. With
-- `wanted` only that one. Each is taken again later, with growing delays, until it is marked as
-- sent.
create or replace function callme.claim(wanted uuid default null, most int default 20)
returns setof callme.predictions language sql set search_path = '' as $$
  update callme.predictions p
  set tries = least(p.tries + 1, 1000),
      next_try_at = now() + least(interval '15 minutes', interval '15 seconds' * 2 ^ least(p.tries, 8))
  where p.id in (
    select c.id from callme.predictions c
    where c.status in ('starting', 'processing') and c.next_try_at <= now()
      and (c.sent_at is null or c.cancel_requested_at is not null)
      and (wanted is null or c.id = wanted)
    order by c.next_try_at limit most for update skip locked)
  returning p.*
$$;

-- The box has taken it. Returns the row: a cancel may have come in the meantime.
create or replace function callme.mark_sent(sent uuid, to_box text)
returns setof callme.predictions language sql set search_path = '' as $$
  update callme.predictions set sent_at = coalesce(sent_at, now()), box = to_box
  where id = sent returning *
$$;

-- A user does not want it any more. One that the box has not taken ends at once; for any other the
-- box is told, and its own report ends the row. Returns no row when `owner` has none of this id.
create or replace function callme.cancel(wanted uuid, owner uuid)
returns setof callme.predictions language sql set search_path = '' as $$
  update callme.predictions p
  set cancel_requested_at = case when callme.has_ended(p.status) then p.cancel_requested_at
        else coalesce(p.cancel_requested_at, now()) end,
      status = case when p.sent_at is null and p.status = 'starting' then 'canceled' else p.status end,
      next_try_at = now()
  where p.id = wanted and p.user_id = owner returning p.*
$$;

-- The box has been told of the cancel.
create or replace function callme.mark_canceled_at_box(told uuid) returns void
language sql set search_path = '' as $$
  update callme.predictions set next_try_at = now() + interval '10 minutes' where id = told
$$;

-- Delete one that has ended, with its files (`forget` in trigger `callme_to_trash`).
create or replace function callme.forget(wanted uuid, owner uuid) returns boolean
language sql set search_path = '' as $$
  with gone as (
    delete from callme.predictions p
    where p.id = wanted and p.user_id = owner and callme.has_ended(p.status) returning 1)
  select exists (select from gone)
$$;

-- Apply one event of the box, in whichever order events come and however often:
--   * what has ended stays as it is;
--   * an end contains everything, so it replaces all of the row's results;
--   * of the events before the end, the one with the latest `at` decides progress and log;
--   * a state only goes forward.
-- `event`: {id, status, at, progress, log_tail, output, output_files, error, error_code, metrics,
-- started_at, completed_at}; `at` in ms since the epoch. Returns `applied`, `known` (it changed
-- nothing) or `unknown` (no such prediction).
create or replace function callme.apply_event(event jsonb) returns text
language plpgsql set search_path = '' as $$
declare
  row callme.predictions;
  new_status callme.status;
  at bigint := coalesce((event ->> 'at')::numeric::bigint, 0);
  log text := coalesce(event ->> 'log_tail', '');
  result jsonb := event -> 'output';
  file jsonb;
  place text[];
begin
  select * into row from callme.predictions where id = (event ->> 'id')::uuid for update;
  if not found then return 'unknown'; end if;
  if callme.has_ended(row.status) then return 'known'; end if;
  new_status := case event ->> 'status' when 'aborted' then 'canceled' else event ->> 'status' end;

  if not callme.has_ended(new_status) then
    -- Of two events with one time, the larger: then their order does not matter.
    if (at, coalesce((event ->> 'progress')::smallint, -1), log) <=
       (row.event_at, coalesce(row.progress, -1), row.log_tail) and new_status <= row.status then
      return 'known';
    end if;
    if (at, coalesce((event ->> 'progress')::smallint, -1), log) >
       (row.event_at, coalesce(row.progress, -1), row.log_tail) then
      row.event_at := at;
      row.progress := (event ->> 'progress')::smallint;
      row.log_tail := log;
      row.started_at := coalesce((event ->> 'started_at')::timestamptz, row.started_at);
    end if;
    update callme.predictions set
      status = greatest(status, new_status), event_at = row.event_at, progress = row.progress,
      log_tail = row.log_tail, started_at = row.started_at,
      sent_at = coalesce(sent_at, now())
    where id = row.id;
    return 'applied';
  end if;

  -- The box leaves null where a file was, and says in `output_files` which one belongs there.
  for file in select jsonb_array_elements(coalesce(event -> 'output_files', '[]')) loop
    place := array(select jsonb_array_elements_text(file -> 'place'));
    result := case when cardinality(place) = 0 then to_jsonb(callme.output_path(row, file ->> 'name'))
      else jsonb_set(result, place, to_jsonb(callme.output_path(row, file ->> 'name')), false) end;
  end loop;
  if octet_length(result::text) > 1048576 then
    result := null;
    new_status := 'failed';
    event := event || '{"error_code": "output_too_large", "error": "The output is over 1 MiB of JSON"}';
  end if;
  update callme.predictions set
    status = new_status,
    progress = case when new_status = 'succeeded' then 100 else (event ->> 'progress')::smallint end,
    output = nullif(result, 'null'), error = event ->> 'error', error_code = event ->> 'error_code',
    log_tail = log, metrics = coalesce(nullif(event -> 'metrics', 'null'), '{}'),
    started_at = (event ->> 'started_at')::timestamptz,
    completed_at = coalesce((event ->> 'completed_at')::timestamptz, now()),
    event_at = at, sent_at = coalesce(sent_at, now())
  where id = row.id;
  return 'applied';
end $$;

-- Where an output file is: `storage://callme-outputs/<user id>/<prediction id>/<name>`.
create or replace function callme.output_path(of callme.predictions, name text) returns text
language sql immutable set search_path = '' as $$
  select 'storage://callme-outputs/' || of.user_id || '/' || of.id || '/' || name
$$;
