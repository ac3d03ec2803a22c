# Tables, constraints, indexes, sequences, schemas, views: made, changed, dropped, and what refuses.

create table t (id int primary key, v text not null default 'x', n numeric(8,2) check (n > 0), unique (v, n));
---

\d t
---
Table "public.t"
Column|Type|Collation|Nullable|Default
id|integer||not null|
v|text||not null|'x'::text
n|numeric(8,2)|||
Indexes:
    "t_pkey" PRIMARY KEY, btree (id)
    "t_v_n_key" UNIQUE CONSTRAINT, btree (v, n)
Check constraints:
    "t_n_check" CHECK (n > 0::numeric)

create table t (a int);
---
ERROR:  42P07: relation "t" already exists

create table if not exists t (a int);
---
NOTICE:  42P07: relation "t" already exists, skipping

insert into t (id, n) values (1, 1.5);
---

insert into t (id, v) values (1, 'dup');
---
ERROR:  23505: duplicate key value violates unique constraint "t_pkey"
DETAIL:  Key (id)=(1) already exists.
SCHEMA NAME:  public
TABLE NAME:  t
CONSTRAINT NAME:  t_pkey

insert into t (id, v) values (2, null);
---
ERROR:  23502: null value in column "v" of relation "t" violates not-null constraint
DETAIL:  Failing row contains (2, null, null).
SCHEMA NAME:  public
TABLE NAME:  t
COLUMN NAME:  v

insert into t values (3, 'y', -1);
---
ERROR:  23514: new row for relation "t" violates check constraint "t_n_check"
DETAIL:  Failing row contains (3, y, -1.00).
SCHEMA NAME:  public
TABLE NAME:  t
CONSTRAINT NAME:  t_n_check

insert into t values (4, 'x', 1.5);
---
ERROR:  23505: duplicate key value violates unique constraint "t_v_n_key"
DETAIL:  Key (v, n)=(x, 1.50) already exists.
SCHEMA NAME:  public
TABLE NAME:  t
CONSTRAINT NAME:  t_v_n_key

insert into t (nope) values (1);
---
ERROR:  42703: column "nope" of relation "t" does not exist
LINE 1: insert into t (nope) values (1);
                       ^

alter table t add column extra int default 7;
---

select * from t;
---
id|v|n|extra
1|x|1.50|7
(1 row)

alter table t add column late timestamp, alter column v set default 'z', alter column v drop not null;
---

insert into t (id) values (5) returning *;
---
id|v|n|extra|late
5|z||7|
(1 row)

alter table t rename column extra to more;
---

alter table t rename to t2;
---

alter table t2 drop column n;
---

\d t2
---
Table "public.t2"
Column|Type|Collation|Nullable|Default
id|integer||not null|
v|text|||'z'::text
more|integer|||7
late|timestamp without time zone|||
Indexes:
    "t_pkey" PRIMARY KEY, btree (id)

alter table t2 alter column v set not null;
---

alter table t2 add constraint positive check (id > 0);
---

alter table t2 add constraint small check (id < 3);
---
ERROR:  23514: check constraint "small" of relation "t2" is violated by some row
SCHEMA NAME:  public
TABLE NAME:  t2
CONSTRAINT NAME:  small

alter table t2 drop constraint positive;
---

alter table t2 alter column more type int8;
---

select id, more from t2 order by id;
---
id|more
1|7
5|7
(2 rows)

create index on t2 (more);
---

create unique index t2_late on t2 (late desc nulls last) where id > 100;
---

create index concurrently t2_v on t2 (v, more);
---

\d t2
---
Table "public.t2"
Column|Type|Collation|Nullable|Default
id|integer||not null|
v|text||not null|'z'::text
more|bigint|||7
late|timestamp without time zone|||
Indexes:
    "t_pkey" PRIMARY KEY, btree (id)
    "t2_late" UNIQUE, btree (late DESC NULLS LAST) WHERE id > 100
    "t2_more_idx" btree (more)
    "t2_v" btree (v, more)

drop index t2_v;
---

drop index t2_v;
---
ERROR:  42704: index "t2_v" does not exist

drop index if exists t2_v;
---
NOTICE:  00000: index "t2_v" does not exist, skipping

create table nopk (a int, b int);
---

insert into nopk select g, case when g = 9 then 1 else g end from generate_series(1, 9) g;
---

alter table nopk add primary key (a);
---

alter table nopk add constraint b_unique unique (b);
---
ERROR:  23505: could not create unique index "b_unique"
DETAIL:  Key (b)=(1) is duplicated.
SCHEMA NAME:  public
TABLE NAME:  nopk
CONSTRAINT NAME:  b_unique

create unique index nopk_b on nopk (b);
---
ERROR:  23505: could not create unique index "nopk_b"
DETAIL:  Key (b)=(1) is duplicated.
SCHEMA NAME:  public
TABLE NAME:  nopk
CONSTRAINT NAME:  nopk_b

create table like_t (like t2 including all);
---

create table as_t as select a, b * 2 as twice from nopk where a < 4;
---

select * from as_t order by a;
---
a|twice
1|2
2|4
3|6
(3 rows)

create sequence s start 10 increment 5;
---

select nextval('s'), nextval('s'), currval('s'), lastval();
---
nextval|nextval|currval|lastval
10|15|15|15
(1 row)

select setval('s', 100), nextval('s'), setval('s', 7, false), nextval('s');
---
setval|nextval|setval|nextval
100|105|7|7
(1 row)

create table serials (id serial, big bigserial primary key, ident int generated always as identity, x int);
---

insert into serials (x) values (1), (2) returning *;
---
id|big|ident|x
1|1|1|1
2|2|2|2
(2 rows)

insert into serials (ident) values (9);
---
ERROR:  428C9: cannot insert a non-DEFAULT value into column "ident"
DETAIL:  Column "ident" is an identity column defined as GENERATED ALWAYS.
HINT:  Use OVERRIDING SYSTEM VALUE to override.

create view v as select a, b from nopk where b < 3;
---

select * from v order by a;
---
a|b
1|1
2|2
9|1
(3 rows)

\d v
---
View "public.v"
Column|Type|Collation|Nullable|Default
a|integer|||
b|integer|||

create or replace view v as select a, b, a + b as c from nopk where b in (2, 5);
---

select * from v order by a;
---
a|b|c
2|2|4
5|5|10
(2 rows)

drop table nopk;
---
ERROR:  2BP01: cannot drop table nopk because other objects depend on it
DETAIL:  view v depends on table nopk
HINT:  Use DROP ... CASCADE to drop the dependent objects too.

drop table nopk cascade;
---
NOTICE:  00000: drop cascades to view v

create schema sch;
---

create table sch.t (a int);
---

select table_schema, table_name from information_schema.tables where table_name in ('t', 't2') order by 1;
---
table_schema|table_name
public|t2
sch|t
(2 rows)

set search_path = sch, public;
---

insert into t values (42);
---

select * from t;
---
a
42
(1 row)

reset search_path;
---

select * from t;
---
ERROR:  42P01: relation "t" does not exist
LINE 1: select * from t;
                      ^

drop schema sch;
---
ERROR:  2BP01: cannot drop schema sch because other objects depend on it
DETAIL:  table sch.t depends on schema sch
HINT:  Use DROP ... CASCADE to drop the dependent objects too.

drop schema sch cascade;
---
NOTICE:  00000: drop cascades to table sch.t

create temp table tmp (a int) on commit delete rows;
---

begin; insert into tmp values (1); select count(*) from tmp; commit; select count(*) from tmp;
---
count
1
(1 row)
count
0
(1 row)

comment on table t2 is 'a comment'; select obj_description('t2'::regclass);
---
obj_description
a comment
(1 row)

truncate t2; select count(*) from t2;
---
count
0
(1 row)

drop table t2, like_t, as_t, serials, missing;
---
ERROR:  42P01: table "missing" does not exist

drop table t2, like_t, as_t, serials; drop sequence s;
---

create table bad (a nosuchtype);
---
ERROR:  42704: type "nosuchtype" does not exist
LINE 1: create table bad (a nosuchtype);
                            ^

create table bad (a int, a text);
---
ERROR:  42701: column "a" specified more than once

create table bad (a int primary key, b int primary key);
---
ERROR:  42P16: multiple primary keys for table "bad" are not allowed
LINE 1: create table bad (a int primary key, b int primary key);
                                                   ^

drop table tmp;
---

\dt
---
List of relations
Schema|Name|Type|Owner
(0 rows)

# A rolled back replacement of a view leaves the old one, in the indexes of the catalogs as well.
create view rolled_back as select 1 as a; begin; create or replace view rolled_back as select 2 as a; select * from rolled_back; rollback; select * from rolled_back;
---
a
2
(1 row)
a
1
(1 row)

set enable_seqscan = off; select count(*) from pg_rewrite where ev_class = 'rolled_back'::regclass; reset enable_seqscan;
---
count
1
(1 row)

# An operator class is for some types
create table oc (a int, n varchar(5), f int[]); create index on oc (a text_ops); create index on oc (a int8_ops); create index on oc (n text_ops, f array_ops, (a + 1) int4_ops);
---
ERROR:  42804: operator class "text_ops" does not accept data type integer
ERROR:  42804: operator class "int8_ops" does not accept data type integer

insert into oc values (1), (1); create unique index concurrently oc_a on oc (a);
---
ERROR:  23505: could not create unique index "oc_a"
DETAIL:  Key (a)=(1) is duplicated.
SCHEMA NAME:  public
TABLE NAME:  oc
CONSTRAINT NAME:  oc_a

# What cannot be undone is refused in a block and in a function, each in its words
begin; reindex schema public;
---
ERROR:  25001: REINDEX SCHEMA cannot run inside a transaction block

rollback; begin; reindex database postgres;
---
ERROR:  25001: REINDEX DATABASE cannot run inside a transaction block

rollback; do $$ begin reindex schema public; end $$; do $$ begin vacuum oc; end $$; begin; do $$ begin execute 'create database x'; end $$;
---
ERROR:  25001: REINDEX SCHEMA cannot be executed from a function
ERROR:  25001: VACUUM cannot be executed from a function
ERROR:  25001: CREATE DATABASE cannot run inside a transaction block

rollback; reindex index oc; reindex table oc_a; reindex (foo) table oc; drop table oc;
---
ERROR:  42809: "oc" is not an index
ERROR:  42809: "oc_a" is not a table or materialized view
ERROR:  42601: unrecognized REINDEX option "foo"
LINE 1: reindex (foo) table oc;
                 ^

create database x strategy = foo; create database x oid = 10;
---
ERROR:  22023: invalid create database strategy "foo"
HINT:  Valid strategies are "wal_log" and "file_copy".
ERROR:  22023: OIDs less than 16384 are reserved for system objects

create table counted (i int); insert into counted values (1); select pg_stat_reset_single_table_counters('counted'::regclass), pg_stat_reset(); drop table counted;
---
pg_stat_reset_single_table_counters|pg_stat_reset
|
(1 row)

# Whose statistics a role may see
create role looks; set role looks; select count(*) > 0, count(backend_type), count(state) from pg_stat_activity where usename = 'postgres'; select pg_stat_reset();
---
?column?|count|count
t|0|0
(1 row)
ERROR:  42501: permission denied for function pg_stat_reset

reset role; grant pg_read_all_stats to looks; set role looks; select count(backend_type) > 0, count(state) > 0 from pg_stat_activity where usename = 'postgres';
---
?column?|?column?
t|t
(1 row)

reset role; drop role looks;
---
