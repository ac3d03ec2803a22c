# MERGE.

create table tgt (id int primary key, v int, w text default 'd', check (v < 1000)); create table src (id int, v int); insert into tgt values (1, 10), (2, 20), (3, 30); insert into src values (1, 1), (2, 99), (4, 4), (5, 0), (3, -1);
---

merge into tgt using src on tgt.id = src.id when matched and src.v > 25 then delete when matched and src.v < 0 then do nothing when matched then update set v = tgt.v + src.v, w = tgt.w || src.id when not matched and src.v = 0 then do nothing when not matched then insert (id, v) values (src.id, src.v);
---

select * from tgt order by id;
---
id|v|w
1|11|d1
3|30|d
4|4|d
(3 rows)

merge into tgt as t using (values (1), (9)) s(id) on t.id = s.id when not matched then insert values (s.id, 9, default) when matched then update set v = default;
---

select * from tgt order by id;
---
id|v|w
1||d1
3|30|d
4|4|d
9|9|d
(4 rows)

with c as (select id + 100 as id from tgt) merge into tgt using c on false when not matched then insert (id) values (c.id); select count(*) from tgt;
---
count
8
(1 row)

merge into tgt using src on true when matched then delete; select count(*) from tgt;
---
ERROR:  21000: MERGE command cannot affect row a second time
HINT:  Ensure that not more than one source row matches any one target row.
count
8
(1 row)

merge into tgt using (values (7), (7)) s(id) on tgt.id = s.id when not matched then insert (id, v) values (s.id, 1);
---
ERROR:  23505: duplicate key value violates unique constraint "tgt_pkey"
DETAIL:  Key (id)=(7) already exists.
SCHEMA NAME:  public
TABLE NAME:  tgt
CONSTRAINT NAME:  tgt_pkey

insert into tgt values (7, 7); merge into tgt using (values (7), (7)) s(id) on tgt.id = s.id when matched then update set v = v + 1;
---
ERROR:  21000: MERGE command cannot affect row a second time
HINT:  Ensure that not more than one source row matches any one target row.

merge into tgt using src on tgt.id = src.id when matched then update set v = 5000 when not matched then insert (id, v) values (src.id, 5000);
---
ERROR:  23514: new row for relation "tgt" violates check constraint "tgt_v_check"
DETAIL:  Failing row contains (1, 5000, d1).
SCHEMA NAME:  public
TABLE NAME:  tgt
CONSTRAINT NAME:  tgt_v_check

merge into tgt using src on tgt.id = src.id when matched then delete when matched then do nothing;
---
ERROR:  42601: unreachable WHEN clause specified after unconditional WHEN clause

merge into tgt using src tgt on true when matched then delete;
---
ERROR:  42712: name "tgt" specified more than once
DETAIL:  The name is used both as MERGE target table and data source.

merge into tgt using src on tgt.id = src.id when not matched then insert (id, v) values (tgt.id, 1);
---
ERROR:  42P01: invalid reference to FROM-clause entry for table "tgt"
LINE 1: ...c.id when not matched then insert (id, v) values (tgt.id, 1)...
                                                             ^
HINT:  There is an entry for table "tgt", but it cannot be referenced from this part of the query.

merge into tgt using src on tgt.id = src.id when not matched then insert (id, v) values (1);
---
ERROR:  42601: INSERT has more target columns than expressions
LINE 1: ...tgt.id = src.id when not matched then insert (id, v) values ...
                                                             ^

merge into tgt using src on tgt.id = src.id when not matched then insert (id, nosuch) values (1, 2);
---
ERROR:  42703: column "nosuch" of relation "tgt" does not exist
LINE 1: ...tgt.id = src.id when not matched then insert (id, nosuch) va...
                                                             ^

merge into tgt using nosuch on true when matched then delete;
---
ERROR:  42P01: relation "nosuch" does not exist
LINE 1: merge into tgt using nosuch on true when matched then delete...
                             ^

prepare m(int) as merge into tgt using (values ($1)) s(id) on tgt.id = s.id when matched then update set v = v + 1 when not matched then insert (id, v) values (s.id, 0); execute m(7); execute m(8); execute m(8); select id, v from tgt order by id;
---
id|v
1|
3|30
4|4
7|8
8|1
9|9
101|
103|
104|
109|
(10 rows)

create function say() returns trigger language plpgsql as $$ begin raise notice '% % % % %', tg_when, tg_level, tg_op, old, new; return coalesce(new, old); end $$; create trigger r before insert or update or delete on tgt for each row execute function say(); create trigger a after insert or update or delete on tgt for each row execute function say(); create trigger s before insert or update or delete on tgt execute function say(); create trigger t after insert or update or delete on tgt execute function say();
---

merge into tgt using (values (7, 'u'), (8, 'd'), (10, 'i')) s(id, what) on tgt.id = s.id when matched and s.what = 'd' then delete when matched then update set v = 70 when not matched then insert (id, v) values (s.id, 1);
---
NOTICE:  00000: BEFORE STATEMENT INSERT <NULL> <NULL>
NOTICE:  00000: BEFORE STATEMENT UPDATE <NULL> <NULL>
NOTICE:  00000: BEFORE STATEMENT DELETE <NULL> <NULL>
NOTICE:  00000: BEFORE ROW UPDATE (7,8,d) (7,70,d)
NOTICE:  00000: BEFORE ROW DELETE (8,1,d) <NULL>
NOTICE:  00000: BEFORE ROW INSERT <NULL> (10,1,d)
NOTICE:  00000: AFTER ROW UPDATE (7,8,d) (7,70,d)
NOTICE:  00000: AFTER ROW DELETE (8,1,d) <NULL>
NOTICE:  00000: AFTER ROW INSERT <NULL> (10,1,d)
NOTICE:  00000: AFTER STATEMENT DELETE <NULL> <NULL>
NOTICE:  00000: AFTER STATEMENT UPDATE <NULL> <NULL>
NOTICE:  00000: AFTER STATEMENT INSERT <NULL> <NULL>

create table child (id int references tgt on delete cascade); insert into child values (7), (10); merge into tgt using (values (7)) s(id) on tgt.id = s.id when matched then delete; select * from child;
---
NOTICE:  00000: BEFORE STATEMENT DELETE <NULL> <NULL>
NOTICE:  00000: BEFORE ROW DELETE (7,70,d) <NULL>
NOTICE:  00000: AFTER ROW DELETE (7,70,d) <NULL>
NOTICE:  00000: AFTER STATEMENT DELETE <NULL> <NULL>
id
10
(1 row)

do $$ declare n int; begin merge into tgt using (values (11)) s(id) on tgt.id = s.id when not matched then insert (id) values (s.id); get diagnostics n = row_count; raise notice 'rows %', n; end $$;
---
NOTICE:  00000: BEFORE STATEMENT INSERT <NULL> <NULL>
NOTICE:  00000: BEFORE ROW INSERT <NULL> (11,,d)
NOTICE:  00000: AFTER ROW INSERT <NULL> (11,,d)
NOTICE:  00000: AFTER STATEMENT INSERT <NULL> <NULL>
NOTICE:  00000: rows 1

drop table child, tgt, src;
---
