# Temporary tables, sequences, identity columns, CREATE SCHEMA with elements, INCLUDE.

# ALTER SEQUENCE rolls back, values taken under it too.
create sequence s; select nextval('s');
---
nextval
1
(1 row)

begin; savepoint a; alter sequence s increment 100; select nextval('s'); rollback to a; select nextval('s'); commit; select nextval('s');
---
nextval
101
(1 row)
nextval
2
(1 row)
nextval
3
(1 row)

create sequence bounded maxvalue 100; alter sequence bounded as smallint; select data_type, min_value, max_value from pg_sequences where sequencename = 'bounded';
---
data_type|min_value|max_value
smallint|1|100
(1 row)

create sequence small as smallint; alter sequence small as int; select data_type, min_value, max_value from pg_sequences where sequencename = 'small';
---
data_type|min_value|max_value
integer|1|2147483647
(1 row)

create table always (id int generated always as identity (start 10 increment 5), v text);
---

insert into always overriding user value values (1, 'x') returning *;
---
id|v
10|x
(1 row)

insert into always overriding user value select 1, 'y' returning *;
---
id|v
15|y
(1 row)

insert into always (id, v) overriding user value values (1, 'z'), (2, 'zz') returning *;
---
id|v
20|z
25|zz
(2 rows)

insert into always overriding system value values (1, 'x') returning *;
---
id|v
1|x
(1 row)

insert into always values (1, 'x');
---
ERROR:  428C9: cannot insert a non-DEFAULT value into column "id"
DETAIL:  Column "id" is an identity column defined as GENERATED ALWAYS.
HINT:  Use OVERRIDING SYSTEM VALUE to override.

alter sequence always_id_seq owned by none;
---
ERROR:  0A000: cannot change ownership of identity sequence
DETAIL:  Sequence "always_id_seq" is linked to table "always".

alter table always alter v add generated always as identity;
---
ERROR:  22023: identity column type must be smallint, integer, or bigint

create schema other; create table other.ot (a int); create sequence here; alter sequence here owned by other.ot.a;
---
ERROR:  55000: sequence must be in same schema as table it is linked to

create view numbers as select 1 as a; create index on always (v); alter sequence here owned by always_v_idx.a;
---
ERROR:  42809: sequence cannot be owned by relation "always_v_idx"
DETAIL:  This operation is not supported for indexes.

# Elements of CREATE SCHEMA see each other, in whatever order.
create schema made create view v as select * from mt create index on mt (x) create table mt (x int default nextval('q')) create sequence q;
---

insert into made.mt default values; select * from made.v; show search_path; select tablename, indexname from pg_indexes where schemaname = 'made';
---
x
1
(1 row)
search_path
"$user", public
(1 row)
tablename|indexname
mt|mt_x_idx
(1 row)

# Not with one of the elements only.
create schema half create table t (x int) create view v as select * from nosuch;
---
ERROR:  42P01: relation "nosuch" does not exist
LINE 1: ...reate table t (x int) create view v as select * from nosuch;
                                                                ^

show search_path; select count(*) from pg_namespace where nspname = 'half';
---
search_path
"$user", public
(1 row)
count
0
(1 row)

# What reads temporary tables is temporary.
create temp table tmp (a int primary key) on commit delete rows; create view over_tmp as select * from tmp;
---
NOTICE:  00000: view "over_tmp" will be a temporary view

select relnamespace = pg_my_temp_schema() as temporary from pg_class where relname = 'over_tmp';
---
temporary
t
(1 row)

create view public.over_tmp2 as select * from tmp;
---
NOTICE:  00000: view "over_tmp2" will be a temporary view
ERROR:  42P16: cannot create temporary relation in non-temporary schema

create materialized view mat as select * from tmp;
---
ERROR:  0A000: materialized views must not use temporary tables or views

alter table tmp set schema public;
---
ERROR:  0A000: cannot move objects into or out of temporary schemas

# Rows that others point to are not taken away from under them.
create temp table refers (a int references tmp);
---
ERROR:  0A000: unsupported ON COMMIT and foreign key combination
DETAIL:  Table "refers" references "tmp", but they do not have the same ON COMMIT setting.

create temp table refers (a int references tmp) on commit delete rows; begin; insert into tmp values (1); insert into refers values (1); select count(*) from refers; commit; select count(*) from tmp;
---
count
1
(1 row)
count
0
(1 row)

# What ON COMMIT does is not forgotten when a DROP is rolled back.
create temp table emptied (a int) on commit delete rows;
---

begin; drop table emptied; rollback;
---

begin; insert into emptied values (1); select count(*) from emptied; commit; select count(*) from emptied;
---
count
1
(1 row)
count
0
(1 row)

create table inc (a int, b int, c int, unique (a) include (b, c)); \d inc
---
Table "public.inc"
Column|Type|Collation|Nullable|Default
a|integer|||
b|integer|||
c|integer|||
Indexes:
    "inc_a_b_c_key" UNIQUE CONSTRAINT, btree (a) INCLUDE (b, c)

create index on inc (a) include (b desc);
---
ERROR:  42P17: including column does not support ASC/DESC options

create index on inc (a) include (b nulls first);
---
ERROR:  42P17: including column does not support NULLS FIRST/LAST options

create index on inc (a) include (b int4_ops);
---
ERROR:  42P17: including column does not support an operator class

# Made and filled in one go
begin; create temp table filled on commit delete rows as select 1 as a; select * from filled; commit; select * from filled; drop table filled;
---
a
1
(1 row)
a
(0 rows)

create unlogged table pg_temp.never (i int);
---
ERROR:  42P16: only temporary relations may be created in temporary schemas
LINE 1: create unlogged table pg_temp.never (i int);
                              ^

# A table is no sequence, nor a view
create table k (i int); create sequence ks; alter sequence k rename to x; alter view k rename to x; alter materialized view k rename to x; alter view ks rename to x;
---
ERROR:  42809: "k" is not a sequence
ERROR:  42809: "k" is not a view
ERROR:  42809: "k" is not a materialized view
ERROR:  42809: "ks" is not a view

alter table ks rename to ks2; select relname from pg_class where relname in ('k', 'ks', 'ks2', 'x') order by 1; drop table k; drop sequence ks2;
---
relname
k
ks2
(2 rows)

create sequence x increment 1 increment 2; create sequence x maxvalue 9223372036854775808;
---
ERROR:  42601: conflicting or redundant options
LINE 1: create sequence x increment 1 increment 2;
                                      ^
ERROR:  22003: value "9223372036854775808" is out of range for type bigint

create table x (a int default 1 generated always as identity); create table x (a int null generated always as identity); create table x (a int generated always as identity generated always as identity); create table x (a int generated always as (1) stored generated always as identity); create table x (a int generated always as identity default 3); create table x (a int not null null);
---
ERROR:  42601: both default and identity specified for column "a" of table "x"
LINE 1: create table x (a int default 1 generated always as identity...
                                        ^
ERROR:  42601: conflicting NULL/NOT NULL declarations for column "a" of table "x"
LINE 1: create table x (a int null generated always as identity);
                                   ^
ERROR:  42601: multiple identity specifications for column "a" of table "x"
LINE 1: ...reate table x (a int generated always as identity generated ...
                                                             ^
ERROR:  42601: both identity and generation expression specified for column "a" of table "x"
LINE 1: ...ate table x (a int generated always as (1) stored generated ...
                                                             ^
ERROR:  42601: both default and identity specified for column "a" of table "x"
LINE 1: ...reate table x (a int generated always as identity default 3)...
                                                             ^
ERROR:  42601: conflicting NULL/NOT NULL declarations for column "a" of table "x"
LINE 1: create table x (a int not null null);
                                       ^
