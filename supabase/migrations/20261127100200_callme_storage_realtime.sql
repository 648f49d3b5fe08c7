-- Files in Storage and messages over Realtime. The app's own buckets and policies are not touched:
-- these buckets have names that no app has by chance. This file can be run again.

insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types) values
  ('callme-inputs', 'callme-inputs', false, 52428800, array['image/*', 'audio/*', 'video/*']),
  ('callme-outputs', 'callme-outputs', false, 52428800, null)
on conflict (id) do nothing;

-- A user's files are in a folder with the user's id as its name. Nobody but the service role writes
-- outputs: the box uploads them to URLs that a function has signed.
drop policy if exists "callme: users add their inputs" on storage.objects;
create policy "callme: users add their inputs" on storage.objects for insert to authenticated
  with check (bucket_id = 'callme-inputs'
    and (storage.foldername(name))[1] = (select auth.uid())::text);
drop policy if exists "callme: users read their files" on storage.objects;
create policy "callme: users read their files" on storage.objects for select to authenticated
  using (bucket_id in ('callme-inputs', 'callme-outputs')
    and (storage.foldername(name))[1] = (select auth.uid())::text);
drop policy if exists "callme: users delete their inputs" on storage.objects;
create policy "callme: users delete their inputs" on storage.objects for delete to authenticated
  using (bucket_id = 'callme-inputs'
    and (storage.foldername(name))[1] = (select auth.uid())::text);

-- One private channel for each user. A message has no content, only what to read again: Realtime
-- does not promise that it arrives.
create or replace function callme.tell() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if tg_op = 'UPDATE' and (new.status, new.progress, new.log_tail, new.cancel_requested_at)
     is not distinct from (old.status, old.progress, old.log_tail, old.cancel_requested_at) then
    return null;
  end if;
  -- Realtime takes the message's id from `id`, so the prediction's has another name.
  perform realtime.send(
    jsonb_build_object('prediction', new.id, 'status', new.status, 'progress', new.progress,
      'version', new.version),
    'prediction', 'callme:user:' || new.user_id, true);
  return null;
end $$;
create or replace trigger callme_tell after insert or update on callme.predictions
  for each row execute function callme.tell();

drop policy if exists "callme: users hear of their predictions" on realtime.messages;
create policy "callme: users hear of their predictions" on realtime.messages
  for select to authenticated
  using (extension = 'broadcast'
    and (select realtime.topic()) = 'callme:user:' || (select auth.uid())::text);
