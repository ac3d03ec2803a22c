# Index options and conditions, VACUUM's options, large values' options: what is taken and what is refused.

create table x (a int, b text, c int);
---

insert into x select nullif(g % 100, 0), 'B' || g, g % 10 from generate_series(1, 5000) g;
---

create index bad on x (a) include (lower(b));
---
ERROR:  0A000: expressions are not supported in included columns

create index bad on x (a) with (fillfactor = 5);
---
ERROR:  22023: value 5 out of bounds for option "fillfactor"
DETAIL:  Valid values are between "10" and "100".

create index bad on x (a) with (fillfactor = many);
---
ERROR:  22023: invalid value for integer option "fillfactor": many

create index bad on x (a) with (deduplicate_items = perhaps);
---
ERROR:  22023: invalid value for boolean option "deduplicate_items": perhaps

create index bad on x (a) with (nosuch = 1);
---
ERROR:  22023: unrecognized parameter "nosuch"

create index x_a on x (a) with (fillfactor = 50, deduplicate_items = off);
---

create index x_ad on x (a desc, c);
---

select indexdef from pg_indexes where tablename = 'x' order by 1;
---
indexdef
CREATE INDEX x_a ON public.x USING btree (a) WITH (fillfactor='50', deduplicate_items=off)
CREATE INDEX x_ad ON public.x USING btree (a DESC, c)
(2 rows)

vacuum analyze x;
---

set enable_seqscan = off;
---

set enable_bitmapscan = off;
---

drop index x_ad;
---

# NULLs at either end of an index, and the conditions that keep away from them.
explain (costs off) select a from x where a is not null;
---
QUERY PLAN
Index Only Scan using x_a on x
  Index Cond: (a IS NOT NULL)
(2 rows)

select count(*), count(a) from x where a is not null;
---
count|count
4950|4950
(1 row)

explain (costs off) select a from x where a is null;
---
QUERY PLAN
Index Only Scan using x_a on x
  Index Cond: (a IS NULL)
(2 rows)

select count(*) from x where a is null;
---
count
50
(1 row)

drop index x_a;
---

create index x_nf on x (c, a desc nulls first);
---

select count(*), min(a), max(a) from x where c = 0 and a is not null;
---
count|min|max
450|10|90
(1 row)

explain (costs off) select a from x where c = 0 and a is not null;
---
QUERY PLAN
Index Only Scan using x_nf on x
  Index Cond: ((c = 0) AND (a IS NOT NULL))
(2 rows)

create index x_nl on x (a desc nulls last);
---

select a from x where a is not null order by a desc nulls last limit 2;
---
a
99
99
(2 rows)

select max(a), min(a) from x;
---
max|min
99|1
(1 row)

vacuum (bogus) x;
---
ERROR:  42601: unrecognized VACUUM option "bogus"
LINE 1: vacuum (bogus) x;
                ^

analyze (full) x;
---
ERROR:  42601: unrecognized ANALYZE option "full"
LINE 1: analyze (full) x;
                 ^

vacuum (parallel) x;
---
ERROR:  42601: parallel option requires a value between 0 and 1024
LINE 1: vacuum (parallel) x;
                ^

vacuum (parallel 2000) x;
---
ERROR:  42601: parallel workers for vacuum must be between 0 and 1024
LINE 1: vacuum (parallel 2000) x;
                ^

vacuum (parallel 2) x;
---

vacuum (full, parallel 2) x;
---
ERROR:  0A000: VACUUM FULL cannot be performed in parallel

vacuum (full, disable_page_skipping) x;
---
ERROR:  0A000: VACUUM option DISABLE_PAGE_SKIPPING cannot be used with FULL

vacuum (full, process_toast off) x;
---
ERROR:  0A000: PROCESS_TOAST required with VACUUM FULL

vacuum (process_toast off, index_cleanup auto, truncate off, skip_locked) x;
---

# Options of the table of large values are that table's.
create table ts (a text) with (fillfactor = 80, toast.autovacuum_enabled = off, toast.vacuum_truncate = off);
---

select c.reloptions as own, t.reloptions as toast from pg_class c join pg_class t on t.oid = c.reltoastrelid where c.relname = 'ts';
---
own|toast
{fillfactor=80}|{autovacuum_enabled=off,vacuum_truncate=off}
(1 row)

alter table ts set (toast.autovacuum_enabled = on, autovacuum_enabled = off);
---

alter table ts reset (toast.vacuum_truncate);
---

select c.reloptions as own, t.reloptions as toast from pg_class c join pg_class t on t.oid = c.reltoastrelid where c.relname = 'ts';
---
own|toast
{fillfactor=80,autovacuum_enabled=off}|{autovacuum_enabled=on}
(1 row)

# A small target shrinks what is too long, nothing else.
create table tt (a text) with (toast_tuple_target = 500);
---

insert into tt select string_agg(md5(g::text), '') from generate_series(1, 40) g;
---

select pg_relation_size(reltoastrelid) as out_of_line from pg_class where relname = 'tt';
---
out_of_line
0
(1 row)

# Storage parameters of tables: names and values as PostgreSQL judges them.
create table bad (a int) with (fillfactor = 9);
---
ERROR:  22023: value 9 out of bounds for option "fillfactor"
DETAIL:  Valid values are between "10" and "100".

create table bad (a int) with (fillfactor = half);
---
ERROR:  22023: invalid value for integer option "fillfactor": half

create table bad (a int) with (nosuch = 1);
---
ERROR:  22023: unrecognized parameter "nosuch"

create table bad (a int) with (nosuch.fillfactor = 50);
---
ERROR:  22023: unrecognized parameter namespace "nosuch"

create table bad (a int) with (toast.fillfactor = 50);
---
ERROR:  22023: unrecognized parameter "fillfactor"

create table bad (a int) with (fillfactor = 50, fillfactor = 60);
---
ERROR:  22023: parameter "fillfactor" specified more than once

create table bad (a int) with (oids = true);
---
ERROR:  0A000: tables declared WITH OIDS are not supported

create table bad (a int) with (autovacuum_enabled = maybe);
---
ERROR:  22023: invalid value for boolean option "autovacuum_enabled": maybe

create table bad (a int) with (autovacuum_vacuum_scale_factor = 100.5);
---
ERROR:  22023: value 100.5 out of bounds for option "autovacuum_vacuum_scale_factor"
DETAIL:  Valid values are between "0.000000" and "100.000000".

create table bad (a int) with (autovacuum_vacuum_cost_delay = fast);
---
ERROR:  22023: invalid value for floating point option "autovacuum_vacuum_cost_delay": fast

create table bad (a int) with (toast.autovacuum_vacuum_cost_limit = 0);
---
ERROR:  22023: value 0 out of bounds for option "autovacuum_vacuum_cost_limit"
DETAIL:  Valid values are between "1" and "10000".

create table bad (a int) with (vacuum_index_cleanup = never);
---
ERROR:  22023: invalid value for enum option "vacuum_index_cleanup": never
DETAIL:  Valid values are "on", "off", and "auto".

create table bad (a int) with (toast_tuple_target = 127);
---
ERROR:  22023: value 127 out of bounds for option "toast_tuple_target"
DETAIL:  Valid values are between "128" and "8160".

create table bad (a int) with (toast_tuple_target = 99999999999);
---
ERROR:  22023: invalid value for integer option "toast_tuple_target": 99999999999

create table bad as select 1 as a;
---

create table bad2 with (nosuch = 1) as select 1 as a;
---
ERROR:  22023: unrecognized parameter "nosuch"

create view bad_view with (nosuch = 1) as select 1 as a;
---
ERROR:  22023: unrecognized parameter "nosuch"

create view bad_view with (security_barrier = perhaps) as select 1 as a;
---
ERROR:  22023: invalid value for boolean option "security_barrier": perhaps

create table good (a int primary key with (fillfactor = 70), b text)
    with (fillfactor = 40, autovacuum_enabled, oids = false, toast.autovacuum_enabled = off, vacuum_truncate = off);
---

select relname, reloptions from pg_class where relname in ('good', 'good_pkey') order by 1;
---
relname|reloptions
good|{fillfactor=40,autovacuum_enabled=true,vacuum_truncate=off}
good_pkey|{fillfactor=70}
(2 rows)

select t.reloptions from pg_class c join pg_class t on t.oid = c.reltoastrelid where c.relname = 'good';
---
reloptions
{autovacuum_enabled=off}
(1 row)

alter table good set (fillfactor = 5);
---
ERROR:  22023: value 5 out of bounds for option "fillfactor"
DETAIL:  Valid values are between "10" and "100".

alter table good set (nosuch = 5);
---
ERROR:  22023: unrecognized parameter "nosuch"

alter table good reset (fillfactor = 5);
---
ERROR:  42601: RESET must not include values for parameters

alter table good set (fillfactor = 60, toast.vacuum_truncate = false), reset (autovacuum_enabled, nosuch);
---

alter index good_pkey set (fillfactor = 101);
---
ERROR:  22023: value 101 out of bounds for option "fillfactor"
DETAIL:  Valid values are between "10" and "100".

alter index good_pkey set (autovacuum_enabled = on);
---
ERROR:  22023: unrecognized parameter "autovacuum_enabled"

alter index good_pkey reset (fillfactor);
---

select relname, reloptions from pg_class where relname in ('good', 'good_pkey') order by 1;
---
relname|reloptions
good|{vacuum_truncate=off,fillfactor=60}
good_pkey|
(2 rows)

select t.reloptions from pg_class c join pg_class t on t.oid = c.reltoastrelid where c.relname = 'good';
---
reloptions
{autovacuum_enabled=off,vacuum_truncate=false}
(1 row)

# What fillfactor leaves free stays free for updates.
create table half (a int, b text) with (fillfactor = 50);
---

create table whole (a int, b text);
---

insert into half select g, repeat('x', 100) from generate_series(1, 3000) g;
---

insert into whole select g, repeat('x', 100) from generate_series(1, 3000) g;
---

select pg_relation_size('half') * 10 / pg_relation_size('whole') between 18 and 22 as twice;
---
twice
t
(1 row)

insert into half select 3001, string_agg(md5(g::text), '') from generate_series(1, 200) g;
---

update half set b = repeat('y', 100) where a <= 3000;
---

select pg_relation_size('half') * 10 / pg_relation_size('whole') between 18 and 22 as twice;
---
twice
t
(1 row)

drop table half, whole, good, bad;
---

# COPY FREEZE: only into a file that is new here.
create table f (a int, b text);
---

copy f from stdin with (freeze on);
5	row 5
\.
---
ERROR:  55000: cannot perform COPY FREEZE because the table was not created or truncated in the current subtransaction

copy f from stdin with (freeze maybe);
---
ERROR:  42601: freeze requires a Boolean value

begin;
---

truncate f;
---

savepoint s;
---

copy f from stdin with (freeze on);
5	row 5
\.
---
ERROR:  55000: cannot perform COPY FREEZE because the table was not created or truncated in the current subtransaction

rollback to s;
---

release s;
---

copy f from stdin with (freeze on);
5	row 5
6	row 6
7	row 7
8	row 8
9	row 9
10	row 10
11	row 11
\.
---

select count(*), min(b), max(b) from f;
---
count|min|max
7|row 10|row 9
(1 row)

update f set b = 'changed' where a = 7;
---

delete from f where a = 8;
---

select count(*), sum(a) from f where a < 10;
---
count|sum
4|27
(1 row)

rollback;
---

select count(*) from f;
---
count
0
(1 row)

begin;
---

truncate f;
---

copy f from stdin with (freeze on);
5	row 5
6	row 6
7	row 7
8	row 8
9	row 9
10	row 10
11	row 11
\.
---

commit;
---

select count(*), sum(a), (select relfrozenxid::text::bigint > 0 from pg_class where relname = 'f') from f;
---
count|sum|?column?
7|56|t
(1 row)

# A row compared with a row is a range of an index.
create table k (a int, b int, c text collate "C");
---

insert into k select g / 10, g % 10, 'v' || g from generate_series(0, 9999) g;
---

insert into k values (5, null, 'n'), (null, 5, 'n'), (null, null, 'n'), (2000, null, 'n');
---

create index k_ab on k (a, b);
---

create index k_ca on k (c, a desc);
---

vacuum analyze k;
---

set enable_seqscan = off;
---

set enable_bitmapscan = off;
---

explain (costs off) select * from k where (a, b) > (5, 7) order by a, b limit 5;
---
QUERY PLAN
Limit
  ->  Index Scan using k_ab on k
        Index Cond: (ROW(a, b) > ROW(5, 7))
(3 rows)

select * from k where (a, b) > (5, 7) order by a, b limit 5;
---
a|b|c
5|8|v58
5|9|v59
6|0|v60
6|1|v61
6|2|v62
(5 rows)

explain (costs off) select * from k where (a, b) <= (5, 7) order by a desc, b desc limit 3;
---
QUERY PLAN
Limit
  ->  Index Scan Backward using k_ab on k
        Index Cond: (ROW(a, b) <= ROW(5, 7))
(3 rows)

select * from k where (a, b) <= (5, 7) order by a desc, b desc limit 3;
---
a|b|c
5|7|v57
5|6|v56
5|5|v55
(3 rows)

explain (costs off) select * from k where (5, 7) < (a, b) order by a, b limit 2;
---
QUERY PLAN
Limit
  ->  Index Scan using k_ab on k
        Index Cond: (ROW(a, b) > ROW(5, 7))
(3 rows)

select * from k where (5, 7) < (a, b) order by a, b limit 2;
---
a|b|c
5|8|v58
5|9|v59
(2 rows)

select * from k where (a, b) >= (5, null::int) order by a, b limit 2;
---
a|b|c
6|0|v60
6|1|v61
(2 rows)

select count(*) from k where (a, b) > (null::int, 5);
---
count
0
(1 row)

select count(*) from k where (a, b) > (998, 3);
---
count
17
(1 row)

select count(*) from k where (a, b) < (5, 3000000000);
---
count
60
(1 row)

select count(*) from k where (a, b) > (5, -3000000000::bigint) and a < 7;
---
count
20
(1 row)

select count(*) from k where (a, b) between (5, 3) and (7, 1);
---
count
19
(1 row)

explain (costs off) select * from k where (a, b, c) > (998, 9, 'v') order by a, b;
---
QUERY PLAN
Index Scan using k_ab on k
  Index Cond: (ROW(a, b) >= ROW(998, 9))
  Filter: (ROW(a, b, c) > ROW(998, 9, 'v'::text))
(3 rows)

select a, b, c from k where (a, b, c) > (998, 9, 'v') order by a, b, c limit 3;
---
a|b|c
998|9|v9989
999|0|v9990
999|1|v9991
(3 rows)

explain (costs off) select * from k where (c, a) > ('v9998', 1) order by c;
---
QUERY PLAN
Index Scan using k_ca on k
  Index Cond: (ROW(c, a) > ROW('v9998'::text, 1))
(2 rows)

select a, b, c from k where (c, a) > ('v9998', 1) order by c, a;
---
a|b|c
999|8|v9998
999|9|v9999
(2 rows)

explain (costs off) select * from k where a = 5 and (b, c) > (7, 'v');
---
QUERY PLAN
Index Scan using k_ab on k
  Index Cond: ((a = 5) AND (b >= 7))
  Filter: (ROW(b, c) > ROW(7, 'v'::text))
(3 rows)

# What a pattern begins with is a range of an index too.
explain (costs off) select * from k where c like 'v99%';
---
QUERY PLAN
Index Scan using k_ca on k
  Index Cond: ((c >= 'v99'::text) AND (c < 'v9:'::text))
  Filter: (c ~~ 'v99%'::text)
(3 rows)

select count(*), min(c), max(c) from k where c like 'v99%';
---
count|min|max
111|v99|v9999
(1 row)

explain (costs off) select * from k where c like 'v9998';
---
QUERY PLAN
Index Scan using k_ca on k
  Index Cond: (c = 'v9998'::text)
  Filter: (c ~~ 'v9998'::text)
(3 rows)

select count(*) from k where c like 'v9\9_8';
---
count
10
(1 row)

explain (costs off) select * from k where c ~ '^v99';
---
QUERY PLAN
Index Scan using k_ca on k
  Index Cond: ((c >= 'v99'::text) AND (c < 'v9:'::text))
  Filter: (c ~ '^v99'::text)
(3 rows)

select count(*) from k where c ~ '^v99*$';
---
count
4
(1 row)

explain (costs off) select * from k where c ^@ 'v999';
---
QUERY PLAN
Index Scan using k_ca on k
  Index Cond: ((c >= 'v999'::text) AND (c < 'v99:'::text))
  Filter: (c ^@ 'v999'::text)
(3 rows)

select count(*) from k where c ^@ 'v999';
---
count
11
(1 row)

create index k_pattern on k (c text_pattern_ops);
---

drop index k_ca;
---

explain (costs off) select * from k where c like 'v99%';
---
QUERY PLAN
Index Scan using k_pattern on k
  Index Cond: ((c ~>=~ 'v99'::text) AND (c ~<~ 'v9:'::text))
  Filter: (c ~~ 'v99%'::text)
(3 rows)

select count(*) from k where c like 'v99%';
---
count
111
(1 row)

create table w (v varchar(20), d text collate "C");
---

insert into w select 'n' || g, 'd' || g from generate_series(1, 3000) g;
---

create index w_v on w (v varchar_pattern_ops);
---

create index w_d on w (d desc);
---

vacuum analyze w;
---

explain (costs off) select * from w where v like 'n29%';
---
QUERY PLAN
Index Scan using w_v on w
  Index Cond: (((v)::text ~>=~ 'n29'::text) AND ((v)::text ~<~ 'n2:'::text))
  Filter: ((v)::text ~~ 'n29%'::text)
(3 rows)

select count(*) from w where v like 'n29%';
---
count
111
(1 row)

explain (costs off) select * from w where d like 'd29%' order by d;
---
QUERY PLAN
Index Scan Backward using w_d on w
  Index Cond: ((d >= 'd29'::text) AND (d < 'd2:'::text))
  Filter: (d ~~ 'd29%'::text)
(3 rows)

select d from w where d like 'd299_' order by d limit 3;
---
d
d2990
d2991
d2992
(3 rows)

prepare like_ (text) as select count(*) from w where d like $1;
---

execute like_ ('d29%');
---
count
111
(1 row)

execute like_ ('%99');
---
count
30
(1 row)

execute like_ (null);
---
count
0
(1 row)

drop table k, w, f;
---

reset enable_seqscan;
---

reset enable_bitmapscan;
---

# CLUSTER writes a table in the order of an index, and remembers which.
create table cl (a int primary key, b text);
---

insert into cl select (g * 37) % 1000, 'b' || g from generate_series(1, 999) g;
---

delete from cl where a % 10 = 3;
---

create index cl_b on cl (b desc);
---

create index cl_part on cl (b) where a > 5;
---

create table other (a int primary key);
---

cluster cl;
---
ERROR:  42704: there is no previously clustered index for table "cl"

cluster cl using nosuch;
---
ERROR:  42704: index "nosuch" for table "cl" does not exist

cluster cl using other_pkey;
---
ERROR:  42809: "other_pkey" is not an index for table "cl"

cluster cl using cl_part;
---
ERROR:  0A000: cannot cluster on partial index "cl_part"

cluster (nosuch) cl;
---
ERROR:  42601: unrecognized CLUSTER option "nosuch"
LINE 1: cluster (nosuch) cl;
                 ^

cluster nosuch using cl_b;
---
ERROR:  42P01: relation "nosuch" does not exist

begin; cluster;
---
ERROR:  25001: CLUSTER cannot run inside a transaction block

rollback;
---

cluster cl using cl_pkey;
---

select bool_and(later > earlier) from (select a as later, lag(a) over (order by ctid) as earlier from cl) x;
---
bool_and
t
(1 row)

select relname, indisclustered from pg_index join pg_class c on c.oid = indexrelid where indrelid = 'cl'::regclass order by 1;
---
relname|indisclustered
cl_b|f
cl_part|f
cl_pkey|t
(3 rows)

update cl set a = 2000 + a where a < 100;
---

cluster cl;
---

select bool_and(later > earlier), count(*) from (select a as later, lag(a) over (order by ctid) as earlier from cl) x;
---
bool_and|count
t|899
(1 row)

alter table cl cluster on cl_b;
---

alter table cl cluster on other_pkey;
---
ERROR:  42809: "other_pkey" is not an index for table "cl"

cluster cl;
---

select bool_and(later < earlier), count(*), sum(a) from (select a, b as later, lag(b) over (order by ctid) as earlier from cl) x;
---
bool_and|count|sum
t|899|627700
(1 row)

set enable_seqscan = off;
---

select * from cl where a = 2000;
---
a|b
(0 rows)

select * from cl where a = 2001;
---
a|b
2001|b973
(1 row)

reset enable_seqscan;
---

alter table cl set without cluster;
---

cluster cl;
---
ERROR:  42704: there is no previously clustered index for table "cl"

drop table cl, other;
---

# Functions with bodies in an index: built, kept up, built anew.
create table fx (a int);
insert into fx select generate_series(1, 500);
create function fx_plpgsql(int) returns int language plpgsql immutable as $$ begin return -$1; end $$;
create function fx_sql(int) returns int language sql immutable as 'select $1 * 2';
create function fx_caught(int) returns int language plpgsql immutable as
$$ begin return 1000 / ($1 % 10); exception when division_by_zero then return 0; end $$;
create function fx_asks(int) returns int language plpgsql immutable as $$ begin return (select count(*) from pg_class where oid = 0) + $1; end $$;
create index fx_plpgsql_i on fx (fx_plpgsql(a));
create index fx_sql_i on fx (fx_sql(a)) where fx_plpgsql(a) < -10;
create index concurrently fx_caught_i on fx (fx_caught(a));
create unique index concurrently fx_asks_i on fx (fx_asks(a));
insert into fx values (501), (510);
reindex table fx;
reindex index concurrently fx_plpgsql_i;
reindex index fx_caught_i;
insert into fx values (520);
set enable_seqscan = off;
select a from fx where fx_plpgsql(a) < -500 order by fx_plpgsql(a);
select a from fx where fx_sql(a) = 1020 and fx_plpgsql(a) < -10;
select count(*) from fx where fx_caught(a) = 0;
select a from fx where fx_asks(a) in (501, 520) order by 1;
reset enable_seqscan;
insert into fx values (520);
---
a
520
510
501
(3 rows)
a
510
(1 row)
count
52
(1 row)
a
501
520
(2 rows)
ERROR:  23505: duplicate key value violates unique constraint "fx_asks_i"
DETAIL:  Key (fx_asks(a))=(520) already exists.
SCHEMA NAME:  public
TABLE NAME:  fx
CONSTRAINT NAME:  fx_asks_i

# One that fails, and what comes after it.
create function fx_fails(int) returns int language plpgsql immutable as $$ begin if $1 = 300 then raise 'not %', $1; end if; return $1; end $$;
create index fx_fails_i on fx (fx_fails(a));
begin;
savepoint s;
create index fx_fails_i on fx (fx_fails(a));
rollback to s;
create index fx_late_i on fx (fx_plpgsql(a));
commit;
select count(*) from pg_indexes where tablename = 'fx';
drop table fx;
---
ERROR:  P0001: not 300
ERROR:  P0001: not 300
count
5
(1 row)

# What CREATE INDEX and REINDEX find out about the table.
create table sized (a int primary key, b int);
create index sized_b on sized (b);
select relname, relpages > 0 as pages, reltuples, relhasindex from pg_class where relname like 'sized%' order by 1;
insert into sized select n, n % 10 from generate_series(1, 1000) n;
select relname, reltuples from pg_class where relname = 'sized';
create index sized_ab on sized (a, b) where b = 3;
select relname, relpages > 0 as pages, reltuples from pg_class where relname in ('sized', 'sized_ab') order by 1;
delete from sized where b = 3;
reindex index sized_b;
select reltuples from pg_class where relname = 'sized';
delete from sized where b = 4;
create index concurrently sized_late on sized (b);
select reltuples from pg_class where relname = 'sized';
insert into sized values (2000, 3);
begin;
create index sized_undone on sized (b);
rollback;
select reltuples, relhasindex from pg_class where relname = 'sized';
truncate sized;
reindex table sized;
select relpages > 0 as pages, reltuples from pg_class where relname = 'sized';
drop table sized;
---
relname|pages|reltuples|relhasindex
sized|f|-1|t
sized_b|t|0|f
sized_pkey|t|0|f
(3 rows)
relname|reltuples
sized|-1
(1 row)
relname|pages|reltuples
sized|t|1000
sized_ab|t|100
(2 rows)
reltuples
900
(1 row)
reltuples
800
(1 row)
reltuples|relhasindex
801|t
(1 row)
pages|reltuples
f|-1
(1 row)

# What has one value orders nothing.
create table one (id int primary key, a int, b int);
create table two (x int primary key, y int);
insert into one select n, n % 7, n % 3 from generate_series(1, 100) n;
insert into two select n, n from generate_series(1, 10) n;
analyze one, two;
explain (costs off) select * from one where a = 3 order by a;
explain (costs off) select * from one where a = 3 and 2 = b order by b, id desc, a;
explain (costs off) select * from one where a = 3 order by id, id;
explain (costs off) select * from one where a = 3 or b = 1 order by a;
explain (costs off) select distinct on (a) * from one where a = 3 order by a, id;
explain (costs off) select id from one where a = 3 order by b, a offset 1;
select id from one where a = 3 order by a, id limit 3;
select distinct on (a, b) a, b, id from one where a = 3 order by a, b, id desc;
select count(*), min(b), max(b) from (select a, b from one where a = 3 order by a, b fetch first 2 rows with ties) x;
select count(*) from (select id from one where a = 3 order by a fetch first 2 rows with ties) x;
select x, y, a from two left join one on id = x and a = 3 order by a, x;
select x, y, a from two join one on id = x and a = 3 order by a, y desc;
prepare by_a (int) as select id from one where a = $1 order by a, id desc limit 2;
execute by_a (5);
drop table one, two;
---
QUERY PLAN
Seq Scan on one
  Filter: (a = 3)
(2 rows)
QUERY PLAN
Sort
  Sort Key: id DESC
  ->  Seq Scan on one
        Filter: ((a = 3) AND (2 = b))
(4 rows)
QUERY PLAN
Sort
  Sort Key: id
  ->  Seq Scan on one
        Filter: (a = 3)
(4 rows)
QUERY PLAN
Sort
  Sort Key: a
  ->  Seq Scan on one
        Filter: ((a = 3) OR (b = 1))
(4 rows)
QUERY PLAN
Unique
  ->  Sort
        Sort Key: id
        ->  Seq Scan on one
              Filter: (a = 3)
(5 rows)
QUERY PLAN
Limit
  ->  Sort
        Sort Key: b
        ->  Seq Scan on one
              Filter: (a = 3)
(5 rows)
id
3
10
17
(3 rows)
a|b|id
3|0|87
3|1|94
3|2|80
(3 rows)
count|min|max
5|0|0
(1 row)
count
14
(1 row)
x|y|a
3|3|3
10|10|3
1|1|
2|2|
4|4|
5|5|
6|6|
7|7|
8|8|
9|9|
(10 rows)
x|y|a
10|10|3
3|3|3
(2 rows)
id
96
89
(2 rows)
