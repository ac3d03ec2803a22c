# INSERT, UPDATE, DELETE and their clauses.

create table a (id int primary key, v text, n int); create table b (id int, w text);
---

insert into a values (1, 'one', 10), (2, 'two', 20), (3, 'three', 30) returning id, v || '!' as w;
---
id|w
1|one!
2|two!
3|three!
(3 rows)

insert into a (v, id) select 'gen' || g, g from generate_series(4, 6) g;
---

insert into a values (1, 'again', 0) on conflict do nothing;
---

insert into a values (1, 'again', 0), (7, 'seven', 70) on conflict (id) do update set v = excluded.v || '/' || a.v, n = a.n + 1 returning *;
---
id|v|n
1|again/one|11
7|seven|70
(2 rows)

insert into a values (1, 'x', 0) on conflict (id) do update set n = 99 where a.n > 1000 returning *;
---
id|v|n
(0 rows)

insert into a values (8, 'p', 1), (8, 'q', 2) on conflict (id) do update set v = excluded.v;
---
ERROR:  21000: ON CONFLICT DO UPDATE command cannot affect row a second time
HINT:  Ensure that no rows proposed for insertion within the same command have duplicate constrained values.

insert into a values (1, 'clash', 1) on conflict (v) do nothing;
---
ERROR:  42P10: there is no unique or exclusion constraint matching the ON CONFLICT specification

insert into a default values;
---
ERROR:  23502: null value in column "id" of relation "a" violates not-null constraint
DETAIL:  Failing row contains (null, null, null).
SCHEMA NAME:  public
TABLE NAME:  a
COLUMN NAME:  id

insert into b values (1, 'bone'), (1, 'bone2'), (9, 'bnine');
---

update a set n = n * 2 where id <= 2 returning id, n;
---
id|n
1|22
2|40
(2 rows)

update a set (v, n) = ('both', 1) where id = 3 returning *;
---
id|v|n
3|both|1
(1 row)

update a set v = b.w from b where a.id = b.id and b.w = 'bone' returning a.id, a.v, b.w;
---
id|v|w
1|bone|bone
(1 row)

update a set n = (select count(*) from b where b.id = a.id) where id in (1, 2);
---

select * from a order by id;
---
id|v|n
1|bone|2
2|two|0
3|both|1
4|gen4|
5|gen5|
6|gen6|
7|seven|70
(7 rows)

update a set id = 2 where id = 1;
---
ERROR:  23505: duplicate key value violates unique constraint "a_pkey"
DETAIL:  Key (id)=(2) already exists.
SCHEMA NAME:  public
TABLE NAME:  a
CONSTRAINT NAME:  a_pkey

update a set id = id + 100;
---

select id from a order by id;
---
id
101
102
103
104
105
106
107
(7 rows)

update a set n = default, v = null where id = 101 returning *;
---
id|v|n
101||
(1 row)

delete from a using b where a.id = b.id + 100 returning a.id, b.w;
---
id|w
101|bone
(1 row)

delete from a where id > 105 returning *;
---
id|v|n
106|gen6|
107|seven|70
(2 rows)

with gone as (delete from a where n is null returning id) select count(*) from gone;
---
count
2
(1 row)

select * from a order by id;
---
id|v|n
102|two|0
103|both|1
(2 rows)

with ins as (insert into a values (500, 'cte', 5) returning *) select v, n from ins;
---
v|n
cte|5
(1 row)

update a set nope = 1;
---
ERROR:  42703: column "nope" of relation "a" does not exist
LINE 1: update a set nope = 1;
                     ^

update nope set a = 1;
---
ERROR:  42P01: relation "nope" does not exist
LINE 1: update nope set a = 1;
               ^

delete from a where nope = 1;
---
ERROR:  42703: column "nope" does not exist
LINE 1: delete from a where nope = 1;
                            ^

insert into a values (600);
---

insert into a values (601, 'a', 1, 2);
---
ERROR:  42601: INSERT has more expressions than target columns
LINE 1: insert into a values (601, 'a', 1, 2);
                                           ^

insert into a (id) values (1, 2);
---
ERROR:  42601: INSERT has more expressions than target columns
LINE 1: insert into a (id) values (1, 2);
                                      ^

insert into a values ('x');
---
ERROR:  22P02: invalid input syntax for type integer: "x"
LINE 1: insert into a values ('x');
                              ^

delete from a; select count(*) from a;
---
count
0
(1 row)

create table d (id int default 5, at text default 'd' || 'e', u int default null);
---

insert into d values (default, default, 1), (6, 'x', default) returning *;
---
id|at|u
5|de|1
6|x|
(2 rows)

insert into d select 1, 'multi', g from generate_series(1, 1000) g; select count(*), sum(u), min(u), max(u) from d;
---
count|sum|min|max
1002|500501|1|1000
(1 row)

update d set u = u + 1 where u % 2 = 0; select count(*) filter (where u % 2 = 1), sum(u) from d;
---
count|sum
1001|501001
(1 row)

create table sw (id int primary key, x int); insert into sw select g, g from generate_series(1, 5) g; update sw set x = 6 - x; select * from sw order by id;
---
id|x
1|5
2|4
3|3
4|2
5|1
(5 rows)

# A set-returning function in a lone row of VALUES runs as in a SELECT.
create table srf (a int, b text default 'd', c int);
insert into srf values (generate_series(1,2), 'x'), (3, 'y');
---
ERROR:  0A000: set-returning functions are not allowed in VALUES
LINE 1: insert into srf values (generate_series(1,2), 'x'), (3, 'y')...
                                ^

insert into srf values (generate_series(1,3));
insert into srf values (generate_series(4,5), default, generate_series(7,9)) returning *;
insert into srf(c, a) values (1, generate_series(10,11), 2);
values (generate_series(1,2));
---
a|b|c
4|d|7
5|d|8
|d|9
(3 rows)
ERROR:  42601: INSERT has more expressions than target columns
LINE 1: insert into srf(c, a) values (1, generate_series(10,11), 2);
                                                                 ^
ERROR:  0A000: set-returning functions are not allowed in VALUES
LINE 1: values (generate_series(1,2));
                ^

with w as (select 2 as n) insert into srf(a) values (generate_series(1,(select n from w))) returning a;
select a, b, c from srf order by a, c;
---
a
1
2
(2 rows)
a|b|c
1|d|
1|d|
2|d|
2|d|
3|d|
4|d|7
5|d|8
|d|9
(8 rows)

select generate_series(1,3) as g, generate_series(1,2) as h, 'k' as k;
select * from rows from (generate_series(1,3), unnest(array['a','b'])) with ordinality as r(a, b, n);
select case when true then generate_series(1,2) end;
select coalesce(generate_series(1,2), 1);
select count(generate_series(1,2));
---
g|h|k
1|1|k
2|2|k
3||k
(3 rows)
a|b|n
1|a|1
2|b|2
3||3
(3 rows)
ERROR:  0A000: set-returning functions are not allowed in CASE
LINE 1: select case when true then generate_series(1,2) end;
                                   ^
HINT:  You might be able to move the set-returning function into a LATERAL FROM item.
ERROR:  0A000: set-returning functions are not allowed in COALESCE
LINE 1: select coalesce(generate_series(1,2), 1);
                        ^
HINT:  You might be able to move the set-returning function into a LATERAL FROM item.
ERROR:  0A000: aggregate function calls cannot contain set-returning function calls
LINE 1: select count(generate_series(1,2));
                     ^
HINT:  You might be able to move the set-returning function into a LATERAL FROM item.

# A partial unique index arbitrates only where its condition follows from that of ON CONFLICT.
create table part (id int unique, s text, st text);
create unique index on part(s) where st = 'active';
create unique index on part(st) where id > 10 and id < 100;
insert into part values (1, 'a', 'active');
---

insert into part values (2, 'a', 'active') on conflict (s) do nothing;
insert into part values (2, 'a', 'active') on conflict (s) where st = 'active' do update set id = excluded.id returning *;
insert into part values (3, 'a', 'active') on conflict (s) where st = 'other' do nothing;
insert into part values (3, 'a', 'active') on conflict (s) where st in ('active') and id > 0 do nothing;
insert into part values (3, 'a', 'x') on conflict (st) where id > 20 and id < 50 do nothing;
insert into part values (4, 'a', 'x') on conflict (st) where id > 20 do nothing;
insert into part values (4, 'a', 'x') on conflict (st) where id > 20 and id <= 100 do nothing;
insert into part values (2, 'zz', 'x') on conflict (id) where id > 20 do nothing;
drop table srf, part;
---
ERROR:  42P10: there is no unique or exclusion constraint matching the ON CONFLICT specification
id|s|st
2|a|active
(1 row)
ERROR:  42P10: there is no unique or exclusion constraint matching the ON CONFLICT specification
ERROR:  42P10: there is no unique or exclusion constraint matching the ON CONFLICT specification
ERROR:  42P10: there is no unique or exclusion constraint matching the ON CONFLICT specification

# System columns in RETURNING; people tell by xmax whether ON CONFLICT inserted.
create table sys (id int primary key, v int);
---

insert into sys values (1, 1), (2, 2) returning ctid, tableoid::regclass, xmin = pg_current_xact_id()::xid as mine, xmax, cmin;
---
ctid|tableoid|mine|xmax|cmin
(0,1)|sys|t|0|0
(0,2)|sys|t|0|0
(2 rows)

insert into sys values (1, 9), (3, 3) on conflict (id) do update set v = excluded.v returning id, xmax = 0 as inserted;
---
id|inserted
1|f
3|t
(2 rows)

insert into sys values (1, 9) on conflict (id) do update set v = sys.v + 1 where sys.xmin <> sys.xmax and sys.ctid is not null returning v;
---
v
10
(1 row)

update sys set v = 0 where id = 2 returning id, xmin = pg_current_xact_id()::xid as mine, xmax, tableoid::regclass;
---
id|mine|xmax|tableoid
2|t|0|sys
(1 row)

delete from sys where id = 3 returning id, xmin <> xmax as older, xmax = pg_current_xact_id()::xid as mine;
---
id|older|mine
3|t|t
(1 row)

update sys set v = 7 from (select id, xmin as x from sys) o where o.id = sys.id and sys.id = 1 returning sys.id, sys.v, o.x <> sys.xmin as older;
---
id|v|older
1|7|t
(1 row)

# EXPLAIN of what is prepared.
prepare p as select v from sys where id = 1; set enable_seqscan = off;
---

explain (costs off) execute p;
---
QUERY PLAN
Index Scan using sys_pkey on sys
  Index Cond: (id = 1)
(2 rows)

explain (costs off) execute p (1);
---
QUERY PLAN
Index Scan using sys_pkey on sys
  Index Cond: (id = 1)
(2 rows)

explain (costs off) execute q;
---
ERROR:  26000: prepared statement "q" does not exist

reset enable_seqscan; deallocate p;
---

# Arrays grow by assignment, not beyond what an array may have; a failed assignment leaves them as they were.
create temp table grown (id int primary key, a int[], m int[]);
insert into grown values (1, '[-2147483648:-2147483647]={1,2}', '{{1,2},{3,4}}'), (2, '{1,2}', null), (3, null, null);
---

update grown set a[2147483647] = 42 where id = 1;
---
ERROR:  54000: array size exceeds the maximum allowed (134217727)

update grown set a[2147483646:2147483647] = array[4,2] where id = 1;
---
ERROR:  54000: array size exceeds the maximum allowed (134217727)

update grown set a[-2147483648] = 7 where id = 2;
---
ERROR:  54000: array size exceeds the maximum allowed (134217727)

update grown set a[0:2147483647] = '{}' where id = 3;
---
ERROR:  54000: array size exceeds the maximum allowed (134217727)

update grown set a[-2147483648:2147483647] = '{}' where id = 3;
---
ERROR:  54000: array size exceeds the maximum allowed (134217727)

update grown set a[2147483647] = 1 where id = 3;
---
ERROR:  54000: array lower bound is too large: 2147483647

do $$ declare a int[] := '[-2147483648:-2147483647]={1,2}'; begin
  begin a[2147483647] := 42; exception when program_limit_exceeded then raise notice '%', a; end;
  a[-2147483646] := 3; raise notice '%', a; end $$;
---
NOTICE:  00000: [-2147483648:-2147483647]={1,2}
NOTICE:  00000: [-2147483648:-2147483646]={1,2,3}

update grown set a[4:5] = '{4,5,6}', m[1:1] = '{8,9}' where id = 2 returning *;
---
id|a|m
2|{1,2,NULL,4,5}|{8}
(1 row)

update grown set a[-1:0] = '{-1,0}' where id = 2 returning a;
---
a
[-1:5]={-1,0,1,2,NULL,4,5}
(1 row)

update grown set a[2:3] = '{22}' where id = 2;
---
ERROR:  2202E: source array too small

update grown set a[3:2] = '{22}' where id = 2;
---
ERROR:  2202E: upper bound cannot be less than lower bound

update grown set a[:2] = '{5,6,7,8}', m[2:3][1:2] = '{1,2,3,4}' where id = 2 returning *;
---
ERROR:  2202E: wrong number of array subscripts

update grown set m[2:2][1:1] = '{30}' where id = 1 returning m;
---
m
{{1,2},{30,4}}
(1 row)

update grown set m[2:3][1:1] = '{30,31}' where id = 1;
---
ERROR:  2202E: array subscript out of range

update grown set a[1:] = '{1}' where id = 3;
---
ERROR:  2202E: array slice subscript must provide both boundaries
DETAIL:  When assigning to a slice of an empty array value, slice boundaries must be fully specified.

update grown set a[1:2] = null where id = 2 returning a;
---
a
[-1:5]={-1,0,1,2,NULL,4,5}
(1 row)

# The last instants there are, in a zone.
set timezone = 'America/New_York'; select '294276-12-31 23:59:59+00'::timestamptz, '4714-11-24 00:00:00+00 BC'::timestamptz;
---
timestamptz|timestamptz
294276-12-31 18:59:59-05|4714-11-23 19:03:58-04:56:02 BC
(1 row)

reset timezone; drop table grown;
---
