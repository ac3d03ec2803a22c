# Triggers.

create table t (id int primary key, v text, n int generated always as (id * 2) stored); create table log (s text);
---

create function say() returns trigger language plpgsql as $$ begin raise notice '% % % % % args=% old=% new=% depth=%', tg_name, tg_when, tg_level, tg_op, tg_table_name, tg_argv, old, new, pg_trigger_depth(); if tg_op = 'DELETE' then return old; end if; if tg_when = 'BEFORE' then new.v := new.v || '!'; end if; return new; end $$;
---

create function note() returns trigger language plpgsql as $$ begin insert into log values (tg_name || ' ' || tg_level || ' ' || tg_op); return null; end $$;
---

create trigger b before insert or update or delete on t for each row execute function say('x', 'it''s');
---

create trigger a after insert or update of v or delete on t for each row when (pg_trigger_depth() = 0) execute function say();
---

create trigger s after insert or update or delete or truncate on t execute procedure note();
---

create trigger w after update on t for each row when (old.* is distinct from new.* and new.id > 1) execute function note();
---

select pg_get_triggerdef(oid), pg_get_triggerdef(oid, true) from pg_trigger where not tgisinternal order by tgname;
---
pg_get_triggerdef|pg_get_triggerdef
CREATE TRIGGER a AFTER INSERT OR DELETE OR UPDATE OF v ON public.t FOR EACH ROW WHEN ((pg_trigger_depth() = 0)) EXECUTE FUNCTION say()|CREATE TRIGGER a AFTER INSERT OR DELETE OR UPDATE OF v ON t FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION say()
CREATE TRIGGER b BEFORE INSERT OR DELETE OR UPDATE ON public.t FOR EACH ROW EXECUTE FUNCTION say('x', 'it''s')|CREATE TRIGGER b BEFORE INSERT OR DELETE OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION say('x', 'it''s')
CREATE TRIGGER s AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.t FOR EACH STATEMENT EXECUTE FUNCTION note()|CREATE TRIGGER s AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION note()
CREATE TRIGGER w AFTER UPDATE ON public.t FOR EACH ROW WHEN (((old.* IS DISTINCT FROM new.*) AND (new.id > 1))) EXECUTE FUNCTION note()|CREATE TRIGGER w AFTER UPDATE ON t FOR EACH ROW WHEN (old.* IS DISTINCT FROM new.* AND new.id > 1) EXECUTE FUNCTION note()
(4 rows)

insert into t values (1, 'a'), (2, 'b') returning *;
---
NOTICE:  00000: b BEFORE ROW INSERT t args=[0:1]={x,it's} old=<NULL> new=(1,a,) depth=1
NOTICE:  00000: b BEFORE ROW INSERT t args=[0:1]={x,it's} old=<NULL> new=(2,b,) depth=1
NOTICE:  00000: a AFTER ROW INSERT t args=<NULL> old=<NULL> new=(1,a!,2) depth=1
NOTICE:  00000: a AFTER ROW INSERT t args=<NULL> old=<NULL> new=(2,b!,4) depth=1
id|v|n
1|a!|2
2|b!|4
(2 rows)

update t set v = 'z' where id = 1 returning *;
---
NOTICE:  00000: b BEFORE ROW UPDATE t args=[0:1]={x,it's} old=(1,a!,2) new=(1,z,) depth=1
NOTICE:  00000: a AFTER ROW UPDATE t args=<NULL> old=(1,a!,2) new=(1,z!,2) depth=1
id|v|n
1|z!|2
(1 row)

update t set id = id where id = 2;
---
NOTICE:  00000: b BEFORE ROW UPDATE t args=[0:1]={x,it's} old=(2,b!,4) new=(2,b!,) depth=1

update t set v = 'q' where id = 2;
---
NOTICE:  00000: b BEFORE ROW UPDATE t args=[0:1]={x,it's} old=(2,b!!,4) new=(2,q,) depth=1
NOTICE:  00000: a AFTER ROW UPDATE t args=<NULL> old=(2,b!!,4) new=(2,q!,4) depth=1

insert into t values (1, 'c') on conflict (id) do update set v = excluded.v || t.v returning *;
---
NOTICE:  00000: b BEFORE ROW INSERT t args=[0:1]={x,it's} old=<NULL> new=(1,c,) depth=1
NOTICE:  00000: b BEFORE ROW UPDATE t args=[0:1]={x,it's} old=(1,z!,2) new=(1,c!z!,) depth=1
NOTICE:  00000: a AFTER ROW UPDATE t args=<NULL> old=(1,z!,2) new=(1,c!z!!,2) depth=1
id|v|n
1|c!z!!|2
(1 row)

delete from t where id = 1;
---
NOTICE:  00000: b BEFORE ROW DELETE t args=[0:1]={x,it's} old=(1,c!z!!,2) new=<NULL> depth=1
NOTICE:  00000: a AFTER ROW DELETE t args=<NULL> old=(1,c!z!!,2) new=<NULL> depth=1

select * from log;
---
s
s STATEMENT INSERT
s STATEMENT UPDATE
w ROW UPDATE
s STATEMENT UPDATE
w ROW UPDATE
s STATEMENT UPDATE
s STATEMENT UPDATE
s STATEMENT INSERT
s STATEMENT DELETE
(9 rows)

# Who returns NULL before a row leaves it as it is.
create function no() returns trigger language plpgsql as $$ begin return null; end $$; create trigger aa before insert on t for each row when (new.id > 100) execute function no();
---

with i as (insert into t values (101, 'no'), (50, 'yes') returning id) select * from i;
---
NOTICE:  00000: b BEFORE ROW INSERT t args=[0:1]={x,it's} old=<NULL> new=(50,yes,) depth=1
NOTICE:  00000: a AFTER ROW INSERT t args=<NULL> old=<NULL> new=(50,yes!,100) depth=1
id
50
(1 row)

truncate log; truncate t; select * from log;
---
s
s STATEMENT TRUNCATE
(1 row)

alter table t disable trigger b; alter table t disable trigger a; insert into t values (7, 'x'); alter trigger b on t rename to bb; alter table t enable trigger bb; update t set v = 'y';
---
NOTICE:  00000: bb BEFORE ROW UPDATE t args=[0:1]={x,it's} old=(7,x,14) new=(7,y,) depth=1

drop function say();
---
ERROR:  2BP01: cannot drop function say() because other objects depend on it
DETAIL:  trigger bb on table t depends on function say()
trigger a on table t depends on function say()
HINT:  Use DROP ... CASCADE to drop the dependent objects too.

drop trigger nosuch on t; drop trigger if exists nosuch on t; drop trigger a on nosuch; create trigger bb before insert on t for each row execute function note();
---
ERROR:  42704: trigger "nosuch" for table "t" does not exist
NOTICE:  00000: trigger "nosuch" for relation "t" does not exist, skipping
ERROR:  42P01: relation "nosuch" does not exist
ERROR:  42710: trigger "bb" for relation "t" already exists

# What was put off until COMMIT does not happen to what was rolled back.
drop trigger bb on t; create constraint trigger ct after insert on t deferrable initially deferred for each row execute function note(); truncate log;
---

begin; insert into t values (9, 'n'); savepoint x; insert into t values (10, 'n'); rollback to x; select * from log where s like 'ct%'; commit; select * from log where s like 'ct%';
---
s
(0 rows)
s
ct ROW INSERT
(1 row)

begin; insert into t values (11, 'n'); alter table t add column z int; rollback; begin; set constraints ct immediate; insert into t values (12, 'n'); select count(*) from log where s like 'ct%'; rollback;
---
ERROR:  55006: cannot ALTER TABLE "t" because it has pending trigger events
count
2
(1 row)

drop trigger ct on t; select count(*) from pg_constraint where contype = 't';
---
count
0
(1 row)

create function wrong() returns trigger language plpgsql as $$ begin return row(1, 'x'::text); end $$; create trigger wr before update on t for each row execute function wrong(); update t set v = 'k' where id = 7;
---
ERROR:  42804: returned row structure does not match the structure of the triggering table
DETAIL:  Number of returned columns (2) does not match expected column count (3).

create or replace function wrong() returns trigger language plpgsql as $$ begin end $$; update t set v = 'k' where id = 7;
---
ERROR:  2F005: control reached end of trigger procedure without RETURN

# A row that is changed before it is changed.
create or replace function wrong() returns trigger language plpgsql as $$ begin if pg_trigger_depth() < 2 then update t set v = 'up' where id = new.id; end if; return new; end $$; update t set v = 'k' where id = 7;
---
ERROR:  27000: tuple to be updated was already modified by an operation triggered by the current command
HINT:  Consider using an AFTER trigger instead of a BEFORE trigger to propagate changes to other rows.

create trigger e before insert on t for each row when (old.id = 1) execute function no();
---
ERROR:  42P17: INSERT trigger's WHEN condition cannot reference OLD values
LINE 1: ...e trigger e before insert on t for each row when (old.id = 1...
                                                             ^

create trigger e before insert on t when (new.id = 1) execute function no();
---
ERROR:  42P17: statement trigger's WHEN condition cannot reference column values
LINE 1: create trigger e before insert on t when (new.id = 1) execut...
                                                  ^

create trigger e before insert on t for each row when (new.n = 1) execute function no();
---
ERROR:  42P17: BEFORE trigger's WHEN condition cannot reference NEW generated columns
LINE 1: ...e trigger e before insert on t for each row when (new.n = 1)...
                                                             ^
DETAIL:  Column "n" is a generated column.

create trigger e before truncate on t for each row execute function no(); create trigger e instead of insert on t for each row execute function no(); create trigger e before insert on t for each row execute function now(); create trigger e before insert on t for each row execute function nosuch(); create trigger e before update of nosuch on t for each row execute function no();
---
ERROR:  0A000: TRUNCATE FOR EACH ROW triggers are not supported
ERROR:  42809: "t" is a table
DETAIL:  Tables cannot have INSTEAD OF triggers.
ERROR:  42P17: function now must return type trigger
ERROR:  42883: function nosuch() does not exist
ERROR:  42703: column "nosuch" of relation "t" does not exist

create function targ(int) returns trigger language sql as 'select 1'; select no();
---
ERROR:  42P13: SQL functions cannot return type trigger
ERROR:  0A000: trigger functions can only be called as triggers

alter table t rename v to vv; alter table t rename id to ident; select pg_get_triggerdef(oid) from pg_trigger where tgname = 'w';
---
pg_get_triggerdef
CREATE TRIGGER w AFTER UPDATE ON public.t FOR EACH ROW WHEN (((old.* IS DISTINCT FROM new.*) AND (new.ident > 1))) EXECUTE FUNCTION note()
(1 row)

# Temporary and cascaded: rows that a foreign key deletes have triggers too.
create table p (id int primary key); create table c (p int references p on delete cascade); create trigger d after delete on c for each row execute function note(); insert into p values (1), (2); insert into c values (1), (1), (2); truncate log; delete from p where id = 1; select * from log;
---
s
d ROW DELETE
d ROW DELETE
(2 rows)

# Polymorphic functions are compiled for the types they are called with.
create function same(a anyelement, b anyelement) returns bool language plpgsql as $$ begin return a = b; end $$; create function firstof(a anyarray) returns anyelement language plpgsql as $$ begin return a[1]; end $$; select same(1, 2), same('x'::text, 'x'), firstof(array[3,4]), firstof(array['p','q']);
---
same|same|firstof|firstof
f|t|3|p
(1 row)

drop table t, log, p, c; select count(*) from pg_trigger where not tgisinternal;
---
count
0
(1 row)
