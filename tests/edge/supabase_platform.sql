-- Plain Postgres 15 made enough like a Supabase project to run its migrations and row level security.
-- Run it as a superuser who is not `postgres`; it can be run again. Where it differs from a hosted
-- project: `postgres` owns storage.objects and realtime.messages, realtime.messages has a default
-- partition, and net.http_post only writes its call into a table.
do $$
begin
  -- roles as Supabase makes them: the three API roles do not log in; authenticator may become any of them
  if not exists (select from pg_roles where rolname = 'anon')           then create role anon nologin noinherit; end if;
  if not exists (select from pg_roles where rolname = 'authenticated')  then create role authenticated nologin noinherit; end if;
  if not exists (select from pg_roles where rolname = 'service_role')   then create role service_role nologin noinherit bypassrls; end if;
  if not exists (select from pg_roles where rolname = 'authenticator')  then create role authenticator login noinherit; end if;
  if not exists (select from pg_roles where rolname = 'supabase_auth_admin')     then create role supabase_auth_admin login noinherit createrole; end if;
  if not exists (select from pg_roles where rolname = 'supabase_storage_admin')  then create role supabase_storage_admin login noinherit createrole; end if;
  if not exists (select from pg_roles where rolname = 'supabase_realtime_admin') then create role supabase_realtime_admin nologin noinherit; end if;
  -- migrations run as postgres, which on the platform is no superuser but may bypass RLS
  if not exists (select from pg_roles where rolname = 'postgres') then create role postgres login createdb createrole bypassrls; end if;
end $$;
grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role, authenticator to postgres;
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';

create schema if not exists extensions;
create schema if not exists auth;
create schema if not exists storage;
create schema if not exists realtime;
grant usage on schema public, extensions, auth, storage, realtime to anon, authenticated, service_role, postgres;
grant create on schema public, extensions to postgres;
do $$ begin execute format('grant create on database %I to postgres', current_database()); end $$;
create extension if not exists pgcrypto with schema extensions;
create extension if not exists "uuid-ossp" with schema extensions;

-- the classic grants: every new table of postgres in public is open to the API roles, so RLS is the only guard.
-- (Projects made since 2026 may lack them: grant by name in migrations. Comment these out to test that.)
alter default privileges for role postgres in schema public grant all on tables    to anon, authenticated, service_role;
alter default privileges for role postgres in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges for role postgres in schema public grant all on sequences to anon, authenticated, service_role;

-- auth
create table if not exists auth.users (
  id uuid primary key default gen_random_uuid(), aud text default 'authenticated', role text default 'authenticated',
  email text unique, is_anonymous boolean not null default false, raw_app_meta_data jsonb default '{}',
  raw_user_meta_data jsonb default '{}', created_at timestamptz default now());
grant all on auth.users to postgres, supabase_auth_admin;   -- postgres may reference it; API roles may not read it
create or replace function auth.jwt() returns jsonb language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claim', true), ''),
                  nullif(current_setting('request.jwt.claims', true), ''))::jsonb $$;
create or replace function auth.uid() returns uuid language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
                  nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $$;
create or replace function auth.role() returns text language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claim.role', true), ''),
                  nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')::text $$;

-- storage: only what policies look at
create table if not exists storage.buckets (
  id text primary key, name text not null unique, owner_id text, public boolean default false,
  file_size_limit bigint, allowed_mime_types text[], created_at timestamptz default now());
create table if not exists storage.objects (
  id uuid primary key default gen_random_uuid(), bucket_id text references storage.buckets, name text,
  owner_id text, metadata jsonb, user_metadata jsonb, version text,
  created_at timestamptz default now(), updated_at timestamptz default now(), unique (bucket_id, name));
create or replace function storage.foldername(name text) returns text[] language plpgsql immutable as $$
declare parts text[] := string_to_array(name, '/'); begin return parts[1 : array_length(parts, 1) - 1]; end $$;
create or replace function storage.filename(name text) returns text language plpgsql immutable as $$
declare parts text[] := string_to_array(name, '/'); begin return parts[array_length(parts, 1)]; end $$;
create or replace function storage.extension(name text) returns text language sql immutable as $$
  select reverse(split_part(reverse(storage.filename(name)), '.', 1)) $$;
alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;
grant all on storage.buckets, storage.objects to anon, authenticated, service_role, postgres;
-- on the platform postgres is not owner of storage.objects but may write policies; a plain stand-in is ownership:
alter table storage.objects owner to postgres; alter table storage.buckets owner to postgres;

-- realtime: messages, send, broadcast_changes, topic (the real server is not there; rows are what a test looks at)
create table if not exists realtime.messages (
  id uuid not null default gen_random_uuid(), topic text not null, extension text not null, payload jsonb,
  event text, private boolean default false, updated_at timestamp not null default now(),
  inserted_at timestamp not null default now(), primary key (id, inserted_at)) partition by range (inserted_at);
create table if not exists realtime.messages_all partition of realtime.messages default;
alter table realtime.messages enable row level security;
grant select, insert, update on realtime.messages to anon, authenticated, service_role;
grant all on realtime.messages to postgres; alter table realtime.messages owner to postgres;
create or replace function realtime.topic() returns text language sql stable as $$
  select nullif(current_setting('realtime.topic', true), '')::text $$;
create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true)
returns void language plpgsql as $$   -- security invoker, as the real one of 2026-06: RLS of realtime.messages applies
declare generated uuid := gen_random_uuid();
begin
  begin   -- the real one swallows errors too: a failed broadcast is a warning and never fails the transaction
    if not payload ? 'id' then payload := jsonb_set(payload, '{id}', to_jsonb(generated)); end if;
    execute format('set local realtime.topic to %L', topic);
    insert into realtime.messages (id, payload, event, topic, private, extension)
    values (generated, payload, event, topic, private, 'broadcast');
  exception when others then raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
  end;
end $$;
create or replace function realtime.broadcast_changes(topic_name text, event_name text, operation text, table_name text,
  table_schema text, new record, old record, level text default 'ROW') returns void language plpgsql as $$
begin
  if level = 'STATEMENT' then raise exception 'function can only be triggered for each row, not for each statement'; end if;
  perform realtime.send(jsonb_build_object('old_record', old, 'record', new, 'operation', operation,
    'table', table_name, 'schema', table_schema), event_name, topic_name);
exception when others then raise exception 'Failed to process the row: %', sqlerrm;
end $$;
do $$ begin
  if not exists (select from pg_publication where pubname = 'supabase_realtime') then create publication supabase_realtime; end if;
end $$;
alter publication supabase_realtime owner to postgres;

-- pg_net stand-in (the extension is not in Debian): the queue is a table that a test reads
create schema if not exists net;
create table if not exists net.http_request_queue (id bigserial primary key, method text, url text, headers jsonb,
  body bytea, timeout_milliseconds int);
create or replace function net.http_post(url text, body jsonb default '{}', params jsonb default '{}',
  headers jsonb default '{"Content-Type": "application/json"}', timeout_milliseconds int default 5000)
returns bigint language sql security definer set search_path = '' as $$
  insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
  values ('POST', url, headers, convert_to(body::text, 'utf8'), timeout_milliseconds) returning id $$;
grant usage on schema net to postgres, anon, authenticated, service_role;

