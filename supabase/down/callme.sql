-- Removes all that the migrations have made, with all predictions. Run it as `postgres`, for example
-- in the SQL editor, then `supabase migration repair --status reverted 20261127100000 20261127100100
-- 20261127100200 20261127100300`. It can be run again.
--
-- Not removed: the buckets callme-inputs and callme-outputs and their files. Delete them in the
-- dashboard, because a file whose row is deleted by SQL stays in Storage and counts.

do $$ begin
  if exists (select from pg_extension where extname = 'pg_cron') then
    execute $cron$select cron.unschedule(jobid) from cron.job where jobname = 'callme-tick'$cron$;
  end if;
end $$;
drop policy if exists "callme: users add their inputs" on storage.objects;
drop policy if exists "callme: users read their files" on storage.objects;
drop policy if exists "callme: users delete their inputs" on storage.objects;
drop policy if exists "callme: users hear of their predictions" on realtime.messages;
drop schema if exists callme cascade;
