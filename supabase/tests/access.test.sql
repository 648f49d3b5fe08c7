-- What the database refuses, tried as two users, an anonymous sign-in, a visitor and the service
-- role. Run by `supabase test db`, or `psql -XqAt -f` as a superuser where pgTAP is installed.
-- Everything is rolled back.
begin;
create extension if not exists pgtap;

\set A aaaaaaaa-0000-0000-0000-00000000000a
\set B bbbbbbbb-0000-0000-0000-00000000000b
\set N cccccccc-0000-0000-0000-00000000000c
insert into auth.users (id, email, is_anonymous) values
  (:'A', 'a@example.com', false), (:'B', 'b@example.com', false), (:'N', null, true)
  on conflict (id) do update set is_anonymous = excluded.is_anonymous;

-- Run one statement as somebody, as PostgREST does it. Returns the first value, else the number of
-- rows, else `ERR` with the code.
create function pg_temp.try(who text, sql text) returns text language plpgsql as $$
declare
  result text;
  rows int;
  role text := case when who in ('anon', 'service_role') then who else 'authenticated' end;
  claims jsonb := jsonb_build_object('role', role);
begin
  if role = 'authenticated' and who <> 'nobody' then claims := claims || jsonb_build_object('sub', who); end if;
  perform set_config('request.jwt.claims', claims::text, true);
  perform set_config('role', role, true);
  begin
    if sql ~* '(^select|returning )' then execute sql into result;
    else execute sql; get diagnostics rows = row_count; result := rows || ' rows'; end if;
  exception when others then result := 'ERR ' || sqlstate;
  end;
  perform set_config('role', 'none', true);
  perform set_config('request.jwt.claims', '', true);
  return coalesce(result, 'null');
end $$;
create function pg_temp.make(who text, columns text, what text) returns text language sql as
  $$ select pg_temp.try(who, format('insert into callme.predictions (%s) values (%s)', columns, what)) $$;
create function pg_temp.with_file(who text, reference text) returns text language sql as $$
  select pg_temp.make(who, 'model, input', quote_literal('m') || ', ' ||
    quote_literal(jsonb_build_object('image', reference))) $$;

select no_plan();

-- ---- what is allowed ---------------------------------------------------------------------
select is(pg_temp.try(:'A', $$insert into callme.predictions (key, model, input)
  values ('k1', 'sketch2real', '{"seed": 7}') returning user_id$$), :'A', 'A makes one, and owns it');
select is(pg_temp.try(:'B', $$insert into callme.predictions (key, model) values ('k1', 'm') returning user_id$$),
  :'B', 'B may use the same key');
select is(pg_temp.try(:'A', 'select count(*) from callme.predictions'), '1', 'A sees one');
select is(pg_temp.try('service_role', 'select count(*) from callme.predictions'), '2', 'the service sees both');
select is(pg_temp.with_file(:'A', 'storage://callme-inputs/' || :'A' || '/cat.png'), '1 rows', 'A uses a file of its own');
select id as a1 from callme.predictions where user_id = :'A' and key = 'k1' \gset
select id as b1 from callme.predictions where user_id = :'B' \gset
insert into storage.objects (bucket_id, name) values
  ('callme-outputs', :'A' || '/1/x.png'), ('callme-outputs', :'B' || '/1/x.png'), ('callme-inputs', :'B' || '/x.png');
select is(pg_temp.try(:'A', 'select count(*) from storage.objects'), '1', 'A sees its own file');
select is(pg_temp.try(:'A', format('insert into storage.objects (bucket_id, name) values (%L, %L)',
  'callme-inputs', :'A' || '/y.png')), '1 rows', 'A uploads into its folder');
select set_config('realtime.topic', 'callme:user:' || :'A', true);
select cmp_ok(pg_temp.try(:'A', 'select count(*) from realtime.messages')::int, '>', 0, 'A hears of its own');
select is((select count(*)::int from realtime.messages where payload ?| array['input', 'output', 'log_tail', 'user_id']),
  0, 'a message has no content');

-- ---- a user against others ---------------------------------------------------------------
select is(pg_temp.try(:'A', format('select count(*) from callme.predictions where user_id = %L', :'B')), '0', '01 read another user''s');
select is(pg_temp.make(:'A', 'model, user_id', format('%L, %L', 'm', :'B')), 'ERR 42501', '02 forge the owner');
select is(pg_temp.try(:'A', format('update callme.predictions set model = %L where id = %L', 'x', :'b1')), 'ERR 42501', '03 change another user''s');
select is(pg_temp.try(:'A', format('delete from callme.predictions where id = %L', :'b1')), 'ERR 42501', '04 delete another user''s');
select is(pg_temp.with_file(:'A', 'storage://callme-inputs/' || :'B' || '/x.png'), 'ERR 42501', '05 use another user''s file');
select is(pg_temp.make(:'A', 'model, input', format('%L, %L', 'm', jsonb_build_object('deep', jsonb_build_array(1,
  jsonb_build_object('in', 'storage://callme-outputs/' || :'B' || '/1/x.png'))))), 'ERR 42501', '06 the same, deep in a list');
select is(pg_temp.with_file(:'A', 'storage://callme-inputs/' || :'A' || '/../' || :'B' || '/x.png'), 'ERR 42501', '07 climb out of the folder');
select is(pg_temp.with_file(:'A', 'storage://callme-inputs/' || :'A' || '/a/%2e%2e/%2e%2e/x.png'), 'ERR 42501', '08 climb, in percent signs');
select is(pg_temp.with_file(:'A', 'storage://avatars/' || :'A' || '/x.png'), 'ERR 42501', '09 use a bucket of the app');
select is(pg_temp.try(:'A', format('select count(*) from storage.objects where name like %L', :'B' || '%')), '0', '10 read another user''s files');
select is(pg_temp.try(:'A', format('insert into storage.objects (bucket_id, name) values (%L, %L)', 'callme-inputs', :'B' || '/z.png')), 'ERR 42501', '11 upload for another user');
select is(pg_temp.try(:'A', format('delete from storage.objects where name = %L', :'B' || '/x.png')), '0 rows', '12 delete another user''s file');
select set_config('realtime.topic', 'callme:user:' || :'B', true);
select is(pg_temp.try(:'A', 'select count(*) from realtime.messages'), '0', '13 listen to another user');
select is(pg_temp.try(:'A', format('select count(*) from callme.usage where user_id = %L', :'B')), '0', '14 read another user''s usage');
select is(pg_temp.try(:'A', format('select callme.cancel(%L, %L)', :'b1', :'B')), 'ERR 42501', '15 cancel another user''s');
select is(pg_temp.try(:'A', format('select callme.forget(%L, %L)', :'b1', :'B')), 'ERR 42501', '16 forget another user''s');

-- ---- a user against the results ----------------------------------------------------------
select is(pg_temp.make(:'A', 'model, status', $$'m', 'succeeded'$$), 'ERR 42501', '17 begin at the end');
select is(pg_temp.make(:'A', 'model, output', $$'m', '{}'$$), 'ERR 42501', '18 bring an output');
select is(pg_temp.make(:'A', 'model, id', format('%L, %L', 'm', gen_random_uuid())), 'ERR 42501', '19 choose the id');
select is(pg_temp.make(:'A', 'model, created_at', $$'m', '2000-01-01'$$), 'ERR 42501', '20 date it back');
select is(pg_temp.make(:'A', 'model, sent_at', $$'m', now()$$), 'ERR 42501', '21 claim that the box has it');
select is(pg_temp.try(:'A', $$update callme.predictions set status = 'succeeded'$$), 'ERR 42501', '22 end one''s own');
select is(pg_temp.try(:'A', $$update callme.predictions set input = '{}'$$), 'ERR 42501', '23 change one''s own input');
select is(pg_temp.try(:'A', 'delete from callme.predictions'), 'ERR 42501', '24 delete one''s own');
select is(pg_temp.try(:'A', 'truncate callme.predictions cascade'), 'ERR 42501', '25 truncate');
select is(pg_temp.try(:'A', format('select callme.apply_event(%L)', jsonb_build_object('id', :'a1', 'status', 'succeeded'))), 'ERR 42501', '26 report an end');
select is(pg_temp.try(:'A', 'select callme.claim()'), 'ERR 42501', '27 claim work');
select is(pg_temp.try(:'A', format('select callme.mark_sent(%L, %L)', :'a1', 'box')), 'ERR 42501', '28 mark as sent');
select is(pg_temp.try(:'A', 'select callme.tick()'), 'ERR 42501', '29 turn the clock');
select is(pg_temp.try(:'A', format('insert into storage.objects (bucket_id, name) values (%L, %L)', 'callme-outputs', :'A' || '/1/y.png')), 'ERR 42501', '30 upload an output');
select is(pg_temp.try(:'A', $$update storage.objects set name = 'x' where bucket_id = 'callme-outputs'$$), '0 rows', '31 move an output');
select is(pg_temp.try(:'A', $$delete from storage.objects where bucket_id = 'callme-outputs'$$), '0 rows', '32 delete an output');
select is(pg_temp.try(:'A', format('insert into realtime.messages (topic, extension, private) values (%L, %L, true)', 'callme:user:' || :'A', 'broadcast')), 'ERR 42501', '33 send a message');

-- ---- a user against the quota ------------------------------------------------------------
select is(pg_temp.make(:'A', 'model', $$'m'$$), 'ERR PT429', '34 a third at the same time');
select is(pg_temp.try(:'A', 'update callme.settings set running = 1000'), 'ERR 42501', '35 raise everybody''s quota');
select is(pg_temp.try(:'A', format('insert into callme.quotas values (%L, 1000, 1000)', :'A')), 'ERR 42501', '36 raise one''s own quota');
select is(pg_temp.try(:'A', 'update callme.usage set made = 0'), 'ERR 42501', '37 set the count to zero');
select is(pg_temp.try(:'A', 'select * from callme.settings'), 'ERR 42501', '38 read the settings');
select is(pg_temp.try(:'A', 'select * from callme.trash'), 'ERR 42501', '39 read the trash');
select is(pg_temp.make(:'A', 'model, key', $$'m', 'k1'$$), 'ERR 23505', '40 the same key again, told before the quota');
select is(pg_temp.try(:'A', $$insert into callme.predictions (model, key) values ('x', 'k1')
  on conflict (user_id, key) do update set model = 'x'$$), 'ERR 42501', '41 replace by an upsert');
select is(pg_temp.make(:'N', 'model', $$'m'$$), '1 rows', 'an anonymous sign-in may run one');
select is(pg_temp.make(:'N', 'model', $$'m'$$), 'ERR PT429', '42 and not a second');
insert into callme.quotas values (:'B', 1000, 3);
select is(pg_temp.make(:'B', 'model', $$'m'$$) || pg_temp.make(:'B', 'model', $$'m'$$), '1 rows1 rows', 'B has a quota of its own');
select is(pg_temp.make(:'B', 'model', $$'m'$$), 'ERR PT429', '43 a fourth on one day');
delete from callme.predictions where user_id = :'B' and id <> :'b1';
select is(pg_temp.make(:'B', 'model', $$'m'$$), 'ERR PT429', '44 nor after the others are deleted');

-- ---- values that are too much ------------------------------------------------------------
update callme.settings set running = 1000;
select is(pg_temp.make(:'A', 'model, input', format('%L, %L', 'm', jsonb_build_object('t', repeat('x', 300000)))), 'ERR 23514', '45 a file in place of its path');
select is(pg_temp.make(:'A', 'model, input', $$'m', '[1]'$$), 'ERR 23514', '46 an input that is a list');
select is(pg_temp.make(:'A', 'model', $$'../../keys'$$), 'ERR 23514', '47 a path as a model');
select is(pg_temp.make(:'A', 'model, key', format('%L, %L', 'm', repeat('k', 201))), 'ERR 23514', '48 a key that is too long');

-- ---- a visitor ---------------------------------------------------------------------------
select is(pg_temp.try('anon', 'select count(*) from callme.predictions'), 'ERR 42501', '49 read as a visitor');
select is(pg_temp.make('anon', 'model', $$'m'$$), 'ERR 42501', '50 run as a visitor');
select is(pg_temp.try('anon', format('select callme.apply_event(%L)', '{}')), 'ERR 42501', '51 report as a visitor');
select is(pg_temp.try('anon', 'select count(*) from storage.objects'), '0', '52 read files as a visitor');
select is(pg_temp.try('anon', 'select count(*) from realtime.messages'), '0', '53 listen as a visitor');
select is(pg_temp.try('nobody', 'select count(*) from callme.predictions'), '0', '54 read with a token without a user');
select matches(pg_temp.make('nobody', 'model', $$'m'$$), '^ERR', '55 run with a token without a user');

-- ---- not even the service role -----------------------------------------------------------
create function pg_temp.set(what text, which text) returns text language sql as
  $$ select pg_temp.try('service_role', format('update callme.predictions set %s where id = %L', what, which)) $$;
select is(pg_temp.set($$status = 'processing'$$, :'a1'), '1 rows', 'the service goes on');
select is(pg_temp.set($$status = 'starting'$$, :'a1'), 'ERR 23514', '56 back to the start');
select is(pg_temp.set(format('user_id = %L', :'B'), :'a1'), 'ERR 23514', '57 change the owner');
select is(pg_temp.set($$input = '{"seed": 8}'$$, :'a1'), 'ERR 23514', '58 change the input');
select is(pg_temp.try('service_role', format('select callme.forget(%L, %L)', :'a1', :'A')), 'false', '59 forget what runs');
select is(pg_temp.try('service_role', format('select callme.cancel(%L, %L)', :'a1', :'B')), 'null', '60 cancel for another user');
select is(pg_temp.set($$status = 'succeeded', output = '1'$$, :'a1'), '1 rows', 'the service ends it');
select is(pg_temp.set($$status = 'processing'$$, :'a1'), 'ERR 23514', '61 run again');
select is(pg_temp.set($$status = 'failed'$$, :'a1'), 'ERR 23514', '62 end in another way');
select is(pg_temp.set($$output = '2'$$, :'a1'), 'ERR 23514', '63 change the output');
select is(pg_temp.try(:'A', format('select status::text || completed_at::date from callme.predictions where id = %L', :'a1')),
  'succeeded' || current_date, 'A reads the result');
select is(pg_temp.try('service_role', format('select callme.forget(%L, %L)', :'a1', :'A')), 'true', 'what has ended can be forgotten');
select is((select prefix from callme.trash where bucket = 'callme-outputs' and prefix like '%' || :'a1' || '/'),
  :'A' || '/' || :'a1' || '/', 'and its files are listed');

select * from finish();
rollback;
