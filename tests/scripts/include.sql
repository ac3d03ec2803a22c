# INCLUDE columns: stored in the index, returned by index-only scans, no part of its order or of uniqueness.
create table inc (id int, k int, note text, price numeric, f float8, iv interval, j json, c char(8), arr int[], ok boolean);
---

insert into inc select i, i % 10, case when i % 7 <> 0 then 'note ' || i end, i * 1.50, -0.0, i * interval '1 day', '{"a": 1}', 'c' || i, array[i, null], i % 3 = 0 from generate_series(1, 1000) i;
---

create index on inc (j);
---
ERROR:  42704: data type json has no default operator class for access method "btree"
HINT:  You must specify an operator class for the index or define a default operator class for the data type.

create index inc_k on inc (k) include (id, note, price, f, iv, j, c, arr, ok);
---

vacuum analyze inc;
---

set enable_seqscan = off; set enable_bitmapscan = off;
---

explain (costs off) select k, note, price from inc where k = 3 and id < 60;
---
QUERY PLAN
Index Only Scan using inc_k on inc
  Index Cond: (k = 3)
  Filter: (id < 60)
(3 rows)

select * from inc where k = 3 and id < 60 order by id;
---
id|k|note|price|f|iv|j|c|arr|ok
3|3|note 3|4.50|0|3 days|{"a": 1}|c3      |{3,NULL}|t
13|3|note 13|19.50|0|13 days|{"a": 1}|c13     |{13,NULL}|f
23|3|note 23|34.50|0|23 days|{"a": 1}|c23     |{23,NULL}|f
33|3|note 33|49.50|0|33 days|{"a": 1}|c33     |{33,NULL}|t
43|3|note 43|64.50|0|43 days|{"a": 1}|c43     |{43,NULL}|f
53|3|note 53|79.50|0|53 days|{"a": 1}|c53     |{53,NULL}|f
(6 rows)

select count(*), count(note), sum(price), min(c), max(arr) from inc where k = 4;
---
count|count|sum|min|max
100|85|74850.00|c104    |{994,NULL}
(1 row)

explain (costs off) select id from inc where k between 2 and 3 order by k desc;
---
QUERY PLAN
Index Only Scan Backward using inc_k on inc
  Index Cond: ((k >= 2) AND (k <= 3))
(2 rows)

select k, id, note from inc where k >= 9 and note is null order by id;
---
k|id|note
9|49|
9|119|
9|189|
9|259|
9|329|
9|399|
9|469|
9|539|
9|609|
9|679|
9|749|
9|819|
9|889|
9|959|
(14 rows)

# A change of an INCLUDE column is seen, before a vacuum and after it.
update inc set note = 'changed' where id = 13; select note from inc where k = 3 and id = 13;
---
note
changed
(1 row)

vacuum inc; select note from inc where k = 3 and id = 13;
---
note
changed
(1 row)

begin; update inc set note = 'never', price = 0 where k = 3; rollback; vacuum inc; select count(*) from inc where k = 3 and (note = 'never' or price = 0);
---
count
0
(1 row)

# Large values are compressed; what is too large even so is refused.
insert into inc (id, k, note) values (2000, 77, repeat('long ', 20000)); vacuum inc; select k, length(note) from inc where k = 77;
---
k|length
77|100000
(1 row)

alter table inc alter note set storage external;
---

do $$ begin insert into inc (id, k, note) values (2001, 78, repeat('long ', 600)); exception when program_limit_exceeded then raise notice '%', sqlstate; end $$;
---
NOTICE:  00000: 54000

do $$ begin insert into inc (id, k, note) values (2001, 78, (select string_agg(md5(i::text), '') from generate_series(1, 200) i)); exception when program_limit_exceeded then raise notice '%', sqlstate; end $$;
---
NOTICE:  00000: 54000

do $$ begin create index on inc (id) include (note); exception when program_limit_exceeded then raise notice '%', sqlstate; end $$;
---

reindex index inc_k;
---

select indnatts, indnkeyatts, indkey, indoption from pg_index where indexrelid = 'inc_k'::regclass;
---
indnatts|indnkeyatts|indkey|indoption
10|1|2 1 3 4 5 6 7 8 9 10|0
(1 row)

select pg_get_indexdef('inc_k'::regclass), pg_get_indexdef('inc_k'::regclass, 2, false);
---
pg_get_indexdef|pg_get_indexdef
CREATE INDEX inc_k ON public.inc USING btree (k) INCLUDE (id, note, price, f, iv, j, c, arr, ok)|id
(1 row)

select attname, attnum, atttypid::regtype, attstorage from pg_attribute where attrelid = 'inc_k'::regclass order by attnum;
---
attname|attnum|atttypid|attstorage
k|1|integer|p
id|2|integer|p
note|3|text|e
price|4|numeric|m
f|5|double precision|p
iv|6|interval|p
j|7|json|x
c|8|character|x
arr|9|integer[]|x
ok|10|boolean|p
(10 rows)

# Uniqueness is that of the key alone.
create table u (a int, b text, c int); create unique index u_a on u (a) include (b, c); insert into u values (1, 'x', 1), (2, 'y', 2);
---

insert into u values (1, 'z', 3);
---
ERROR:  23505: duplicate key value violates unique constraint "u_a"
DETAIL:  Key (a)=(1) already exists.
SCHEMA NAME:  public
TABLE NAME:  u
CONSTRAINT NAME:  u_a

insert into u values (1, 'z', 3) on conflict (a) do update set b = excluded.b, c = u.c + excluded.c returning *;
---
a|b|c
1|z|4
(1 row)

insert into u values (1, 'z', 3) on conflict (a, b) do nothing;
---
ERROR:  42P10: there is no unique or exclusion constraint matching the ON CONFLICT specification

insert into u values (null, 'n', 0), (null, 'n', 0);
---

update u set a = 2 where a = 1;
---
ERROR:  23505: duplicate key value violates unique constraint "u_a"
DETAIL:  Key (a)=(2) already exists.
SCHEMA NAME:  public
TABLE NAME:  u
CONSTRAINT NAME:  u_a

vacuum analyze u; explain (costs off) select a, b, c from u where a = 1;
---
QUERY PLAN
Index Only Scan using u_a on u
  Index Cond: (a = 1)
(2 rows)

select a, b, c from u where a = 1;
---
a|b|c
1|z|4
(1 row)

create table refs (a int references u (a));
---

create table refs (a int, b text, foreign key (a, b) references u (a, b));
---
ERROR:  42P07: relation "refs" already exists

alter table u add constraint u_pk primary key using index u_a;
---
NOTICE:  00000: ALTER TABLE / ADD CONSTRAINT USING INDEX will rename index "u_a" to "u_pk"
ERROR:  23502: column "a" of relation "u" contains null values
SCHEMA NAME:  public
TABLE NAME:  u
COLUMN NAME:  a

delete from u where a is null; alter table u add constraint u_pk primary key using index u_a;
---
NOTICE:  00000: ALTER TABLE / ADD CONSTRAINT USING INDEX will rename index "u_a" to "u_pk"

create table refs (a int references u); insert into refs values (2);
---
ERROR:  42P07: relation "refs" already exists

insert into refs values (3);
---
ERROR:  23503: insert or update on table "refs" violates foreign key constraint "refs_a_fkey"
DETAIL:  Key (a)=(3) is not present in table "u".
SCHEMA NAME:  public
TABLE NAME:  refs
CONSTRAINT NAME:  refs_a_fkey

\d u
---
Table "public.u"
Column|Type|Collation|Nullable|Default
a|integer||not null|
b|text|||
c|integer|||
Indexes:
    "u_pk" PRIMARY KEY, btree (a) INCLUDE (b, c)
Referenced by:
    TABLE "refs" CONSTRAINT "refs_a_fkey" FOREIGN KEY (a) REFERENCES u(a)

alter table u drop column c;
---
ERROR:  2BP01: cannot drop column c of table u because other objects depend on it
DETAIL:  constraint refs_a_fkey on table refs depends on index u_pk
HINT:  Use DROP ... CASCADE to drop the dependent objects too.

alter table u drop column c cascade; \d u
---
NOTICE:  00000: drop cascades to constraint refs_a_fkey on table refs
Table "public.u"
Column|Type|Collation|Nullable|Default
a|integer||not null|
b|text|||

create table p (a int, b int, c text, d text); insert into p select i, i, 'c' || i, 'd' || i from generate_series(1, 100) i;
---

alter table p add primary key (a) include (c), add unique (b) include (c, d) deferrable initially deferred;
---

\d p
---
Table "public.p"
Column|Type|Collation|Nullable|Default
a|integer||not null|
b|integer|||
c|text|||
d|text|||
Indexes:
    "p_pkey" PRIMARY KEY, btree (a) INCLUDE (c)
    "p_b_c_d_key" UNIQUE CONSTRAINT, btree (b) INCLUDE (c, d) DEFERRABLE INITIALLY DEFERRED

select conname, conkey, pg_get_constraintdef(oid) from pg_constraint where conrelid = 'p'::regclass order by conname;
---
conname|conkey|pg_get_constraintdef
p_b_c_d_key|{2}|UNIQUE (b) INCLUDE (c, d) DEFERRABLE INITIALLY DEFERRED
p_pkey|{1}|PRIMARY KEY (a) INCLUDE (c)
(2 rows)

begin; update p set b = b + 1; select count(*) from p where b = 101; commit; select d from p where b = 101;
---
count
1
(1 row)
d
d100
(1 row)

begin; update p set b = 50 where a = 1; commit;
---
ERROR:  23505: duplicate key value violates unique constraint "p_b_c_d_key"
DETAIL:  Key (b)=(50) already exists.
SCHEMA NAME:  public
TABLE NAME:  p
CONSTRAINT NAME:  p_b_c_d_key

alter table p alter c type varchar(20); vacuum p; select a, c from p where a = 42;
---
a|c
42|c42
(1 row)

alter table p alter d type int using substr(d, 2)::int; vacuum p; select b, d from p where b = 43;
---
b|d
43|42
(1 row)

alter table p add e int default 7; create index p_e on p (b) include (e); vacuum p; select b, e from p where b = 43;
---
b|e
43|7
(1 row)

alter table p rename c to cc; select pg_get_indexdef('p_pkey'::regclass);
---
pg_get_indexdef
CREATE UNIQUE INDEX p_pkey ON public.p USING btree (a) INCLUDE (cc)
(1 row)

alter table p drop column d; \d p
---
Table "public.p"
Column|Type|Collation|Nullable|Default
a|integer||not null|
b|integer|||
cc|character varying(20)|||
e|integer|||7
Indexes:
    "p_pkey" PRIMARY KEY, btree (a) INCLUDE (cc)
    "p_e" btree (b) INCLUDE (e)

create index part on p (b) include (cc, a) where a > 50; vacuum analyze p; explain (costs off) select b, cc from p where a > 50 and b = 60;
---
QUERY PLAN
Index Only Scan using part on p
  Index Cond: (b = 60)
(2 rows)

create index expr on p ((a + b)) include (cc); drop index part; vacuum analyze p; select cc from p where a + b = 121;
---
cc
c60
(1 row)

create index concurrently conc on p (b, a) include (cc, e); reindex index concurrently conc; vacuum analyze p; select b, a, cc, e from p where b = 61 and a = 60;
---
b|a|cc|e
61|60|c60|7
(1 row)

copy p (a, b, cc) from stdin;
1000	1000	copied
1001	1001	\N
\.
vacuum p; select b, a, cc, e from p where b >= 1000 order by b;
---
b|a|cc|e
1000|1000|copied|7
1001|1001||7
(2 rows)

copy p (a, b, cc) from stdin;
1000	1002	copied
\.
---
ERROR:  23505: duplicate key value violates unique constraint "p_pkey"
DETAIL:  Key (a)=(1000) already exists.
SCHEMA NAME:  public
TABLE NAME:  p
CONSTRAINT NAME:  p_pkey

merge into p using (values (1000, 'merged'), (1002, 'new')) v (a, cc) on p.a = v.a when matched then update set cc = v.cc when not matched then insert (a, b, cc) values (v.a, v.a, v.cc);
---

vacuum p; select b, a, cc, e from p where b >= 1000 order by b;
---
b|a|cc|e
1000|1000|merged|7
1001|1001||7
1002|1002|new|7
(3 rows)

create table many (a int, b int); create index on many (a) include (a, b, b);
---

\d many
---
Table "public.many"
Column|Type|Collation|Nullable|Default
a|integer|||
b|integer|||
Indexes:
    "many_a_a1_b_b1_idx" btree (a) INCLUDE (a, b, b)

select pg_get_indexdef(indexrelid) from pg_index where indrelid = 'many'::regclass;
---
pg_get_indexdef
CREATE INDEX many_a_a1_b_b1_idx ON public.many USING btree (a) INCLUDE (a, b, b)
(1 row)

create index on inc (k) include (k, (id + 1));
---
ERROR:  0A000: expressions are not supported in included columns

create index on inc (k) include (nothing);
---
ERROR:  42703: column "nothing" does not exist

create index on inc (k) include (tableoid);
---
ERROR:  0A000: index creation on system columns is not supported

create table likes (like u including all); \d likes
---
Table "public.likes"
Column|Type|Collation|Nullable|Default
a|integer||not null|
b|text|||
