-- Predictions in the app's own database: one row is one run of a model on the GPU box.
--
-- Everything is in the schema `callme`; nothing is in `public`. This file can be run again. It makes
-- the tables and the rules that hold for every role, the service role too. The next files say who
-- may do what, and add Storage, Realtime and retention. supabase/down/ removes all of it.

create schema if not exists callme;
comment on schema callme is 'Runs of models on the GPU box. Add it to "Exposed schemas".';

do $$ begin
  create type callme.status as enum ('starting', 'processing', 'succeeded', 'failed', 'canceled');
exception when duplicate_object then null;
end $$;

create table if not exists callme.predictions (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null default auth.uid() references auth.users on delete cascade,
  -- The client's own name for this request: a second insert with the same key is refused (23505).
  key text check (char_length(key) between 1 and 200),
  model text not null check (model ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
  -- A file is `storage://callme-inputs/<user id>/<name>`, never its bytes.
  input jsonb not null default '{}'
    check (jsonb_typeof(input) = 'object' and octet_length(input::text) <= 262144),
  status callme.status not null default 'starting',
  progress smallint check (progress between 0 and 100),
  output jsonb check (octet_length(output::text) <= 1048576),
  error text,
  error_code text,
  log_tail text not null default '' check (octet_length(log_tail) <= 16384),
  metrics jsonb not null default '{}',
  created_at timestamptz not null default now(),
  started_at timestamptz,
  completed_at timestamptz,
  updated_at timestamptz not null default now(),
  -- Counts changes. A message says to which version it belongs, so a late one is recognized.
  version bigint not null default 1,
  cancel_requested_at timestamptz,
  -- How the row gets to the box: `sent_at` is null until the box has taken it.
  box text,
  sent_at timestamptz,
  tries smallint not null default 0,
  next_try_at timestamptz not null default now(),
  -- The box's time, in ms since the epoch, of the newest event that is in the row.
  event_at bigint not null default 0,
  constraint predictions_key unique (user_id, key)
);
create index if not exists predictions_by_user on callme.predictions (user_id, created_at desc);
create index if not exists predictions_open on callme.predictions (next_try_at)
  where status in ('starting', 'processing');
create index if not exists predictions_ended on callme.predictions (completed_at)
  where status in ('succeeded', 'failed', 'canceled');

-- One row, which the team edits.
create table if not exists callme.settings (
  only_row boolean primary key default true check (only_row),
  running int not null default 2 check (running >= 0),
  per_day int not null default 50 check (per_day >= 0),
  anonymous_running int not null default 1 check (anonymous_running >= 0),
  anonymous_per_day int not null default 5 check (anonymous_per_day >= 0),
  keep_days int not null default 30 check (keep_days > 0),
  give_up_hours int not null default 26 check (give_up_hours > 0),
  -- `https://<ref>.supabase.co/functions/v1`; with it and pg_net the database calls the function.
  functions_url text,
  ring_on_insert boolean not null default false
);
insert into callme.settings default values on conflict do nothing;

-- The quota of one user, in place of the one in `settings`. A null means: as in `settings`.
create table if not exists callme.quotas (
  user_id uuid primary key references auth.users on delete cascade,
  running int check (running >= 0),
  per_day int check (per_day >= 0)
);

-- What each user has made on each day (UTC). It does not shrink when a prediction is deleted.
create table if not exists callme.usage (
  user_id uuid references auth.users on delete cascade,
  day date,
  made int not null default 0,
  primary key (user_id, day)
);

-- Files in Storage that nobody needs any more. SQL must not delete them; a function does.
create table if not exists callme.trash (
  bucket text not null,
  prefix text not null,
  claimed_at timestamptz,
  primary key (bucket, prefix)
);

-- ---- what holds for every role -----------------------------------------------------------

create or replace function callme.has_ended(status callme.status) returns boolean
language sql immutable set search_path = '' as $$
  select status in ('succeeded', 'failed', 'canceled')
$$;

-- A new row: its files are in the user's own folder, and the user is within the quota.
create or replace function callme.admit() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  rules callme.settings;
  own callme.quotas;
  is_anonymous boolean;
  reference text;
  running_limit int;
  day_limit int;
  running_now int;
  made_today int;
begin
  for reference in
    select texts.value #>> '{}'
    from jsonb_path_query(new.input, 'strict $.** ? (@.type() == "string")') texts (value)
    where texts.value #>> '{}' like 'storage://%'
  loop
    if reference !~ ('^storage://callme-(inputs|outputs)/' || new.user_id || '/[A-Za-z0-9]')
      or substr(reference, 11) ~ '/\.{0,2}/|/\.{0,2}$|\\|[?#%]' then
      raise exception 'Cannot use the file %: it must be in your own folder', left(reference, 200)
        using errcode = '42501';
    end if;
  end loop;

  -- One insert of a user at a time. Without this lock, inserts at the same time pass the quota.
  perform pg_advisory_xact_lock(hashtextextended('callme:' || new.user_id, 0));
  -- A repeated key is told before the quota, so that a client can find what it has made.
  if exists (select from callme.predictions p where p.user_id = new.user_id and p.key = new.key) then
    raise exception 'A prediction with this key exists' using errcode = '23505',
      constraint = 'predictions_key', schema = 'callme', table = 'predictions';
  end if;

  select * into rules from callme.settings;
  select * into own from callme.quotas q where q.user_id = new.user_id;
  select u.is_anonymous into is_anonymous from auth.users u where u.id = new.user_id;
  running_limit := coalesce(own.running,
    case when is_anonymous then rules.anonymous_running else rules.running end);
  day_limit := coalesce(own.per_day,
    case when is_anonymous then rules.anonymous_per_day else rules.per_day end);

  select count(*) into running_now from callme.predictions p
    where p.user_id = new.user_id and p.status in ('starting', 'processing');
  if running_now >= running_limit then
    raise exception 'Cannot run more than % predictions at the same time', running_limit
      using errcode = 'PT429', hint = 'Wait until one has ended.', detail = 'running';
  end if;
  -- A user whose account is being deleted has no row to count in; the foreign key refuses later.
  insert into callme.usage as u (user_id, day, made)
    values (new.user_id, (now() at time zone 'utc')::date, 1)
    on conflict (user_id, day) do update set made = u.made + 1
    returning made into made_today;
  if made_today > day_limit then
    raise exception 'Cannot run more than % predictions a day', day_limit
      using errcode = 'PT429', hint = 'The day begins at 00:00 UTC.', detail = 'per_day';
  end if;
  return new;
end $$;

-- A change: a state never goes back, and what has ended does not change any more.
create or replace function callme.go_forward() returns trigger
language plpgsql set search_path = '' as $$
begin
  if (new.id, new.user_id, new.model, new.input, new.created_at) is distinct from
     (old.id, old.user_id, old.model, old.input, old.created_at) or new.key is distinct from old.key then
    raise exception 'Cannot change what was asked for' using errcode = '23514';
  end if;
  if callme.has_ended(old.status) and
     (new.status, new.progress, new.output, new.error, new.error_code, new.log_tail, new.metrics,
      new.started_at, new.completed_at) is distinct from
     (old.status, old.progress, old.output, old.error, old.error_code, old.log_tail, old.metrics,
      old.started_at, old.completed_at) then
    raise exception 'Cannot change prediction %: it has ended', old.id using errcode = '23514';
  end if;
  if new.status < old.status then
    raise exception 'Cannot go back from % to %', old.status, new.status using errcode = '23514';
  end if;
  if callme.has_ended(new.status) then
    new.completed_at := coalesce(new.completed_at, now());
  end if;
  new.version := old.version + 1;
  new.updated_at := now();
  return new;
end $$;

create or replace trigger callme_admit before insert on callme.predictions
  for each row execute function callme.admit();
create or replace trigger callme_go_forward before update on callme.predictions
  for each row execute function callme.go_forward();
