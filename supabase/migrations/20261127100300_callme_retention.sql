-- What happens by the clock: old predictions are deleted, lost ones are ended, and the function
-- `predictions` is called when something waits. With pg_cron it runs each minute; without it,
-- `select callme.tick()` does the same. This file can be run again.

-- A deleted prediction leaves files; so does a deleted user.
create or replace function callme.to_trash() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  insert into callme.trash (bucket, prefix)
    values ('callme-outputs', old.user_id || '/' || old.id || '/') on conflict do nothing;
  return null;
end $$;
create or replace trigger callme_to_trash after delete on callme.predictions
  for each row execute function callme.to_trash();

-- Call the function `predictions`, when pg_net is there and the address is known. It needs no proof
-- of who calls: it only does what is due in any case. pg_net may lose a call; the next tick repeats it.
create or replace function callme.ring() returns void
language plpgsql security definer set search_path = '' as $$
declare
  url text := (select functions_url from callme.settings);
begin
  if url is null or not exists (
    select from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'net' and p.proname = 'http_post') then return; end if;
  execute format('select net.http_post(url := %L, body := %L::jsonb, timeout_milliseconds := 10000)',
    url || '/predictions/sweep', '{}');
exception when others then
  raise warning 'callme: the function was not called: %', sqlerrm;
end $$;

create or replace function callme.ring_on_insert() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if (select s.ring_on_insert from callme.settings s) then perform callme.ring(); end if;
  return null;
end $$;
create or replace trigger callme_ring after insert on callme.predictions
  for each statement execute function callme.ring_on_insert();

create or replace function callme.tick() returns void
language plpgsql security definer set search_path = '' as $$
declare
  rules callme.settings;
  due int;
begin
  select * into rules from callme.settings;
  -- The box keeps a result for a day. What has not come by then does not come.
  update callme.predictions set status = 'failed', error_code = 'lost',
    error = 'The GPU box did not report an end in time'
  where status in ('starting', 'processing')
    and created_at < now() - make_interval(hours => rules.give_up_hours);
  delete from callme.predictions where id in (
    select id from callme.predictions where status in ('succeeded', 'failed', 'canceled')
      and completed_at < now() - make_interval(days => rules.keep_days) limit 5000);
  delete from callme.usage where day < (now() at time zone 'utc')::date - 35;
  insert into callme.trash (bucket, prefix)
    select o.bucket_id, o.name from storage.objects o where o.bucket_id = 'callme-inputs'
      and o.created_at < now() - make_interval(days => rules.keep_days) limit 1000
    on conflict do nothing;
  select count(*) into due from callme.predictions where status in ('starting', 'processing')
    and next_try_at <= now() and (sent_at is null or cancel_requested_at is not null);
  due := greatest(due, (select count(*) from (select from callme.trash limit 120) waiting));
  -- One call of the function takes two of each. After an outage many are due, and calls at the same
  -- time do not take the same.
  for i in 1 .. least((due + 1) / 2, 60) loop perform callme.ring(); end loop;
end $$;

-- For the function: files to remove. What was not confirmed within ten minutes is given again.
create or replace function callme.claim_trash(most int default 50) returns setof callme.trash
language sql set search_path = '' as $$
  update callme.trash t set claimed_at = now()
  where (t.bucket, t.prefix) in (
    select c.bucket, c.prefix from callme.trash c
    where c.claimed_at is null or c.claimed_at < now() - interval '10 minutes'
    limit most for update skip locked)
  returning t.*
$$;

-- Start the clock. Say it again after pg_cron has been added to the project.
create or replace function callme.schedule() returns text
language plpgsql set search_path = '' as $$
begin
  if not exists (select from pg_extension where extname = 'pg_cron') then
    return 'pg_cron is not there: turn it on, then say: select callme.schedule();';
  end if;
  execute $cron$select cron.schedule('callme-tick', '* * * * *', 'select callme.tick()')$cron$;
  return 'callme.tick() runs each minute';
end $$;
do $$ begin raise notice '%', callme.schedule(); end $$;

-- Functions are open to everybody by default, and this schema is exposed. Triggers need no grant.
revoke execute on all functions in schema callme from public, anon, authenticated;
grant execute on all functions in schema callme to service_role;
