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
