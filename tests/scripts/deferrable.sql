# Deferrable unique and primary key constraints.

create table u (id int constraint u_id unique deferrable initially immediate, k int constraint u_k unique deferrable initially deferred, v text);
---

insert into u select g, g * 10, 'r' || g from generate_series(1, 5) g;
---

update u set id = id + 1;
---

update u set id = 7 - id;
---

select id, k, v from u order by id;
---
id|k|v
1|50|r5
2|40|r4
3|30|r3
4|20|r2
5|10|r1
(5 rows)

update u set id = 3 where id < 4;
---
ERROR:  23505: duplicate key value violates unique constraint "u_id"
DETAIL:  Key (id)=(3) already exists.
SCHEMA NAME:  public
TABLE NAME:  u
CONSTRAINT NAME:  u_id

insert into u values (3, 100, 'x');
---
ERROR:  23505: duplicate key value violates unique constraint "u_id"
DETAIL:  Key (id)=(3) already exists.
SCHEMA NAME:  public
TABLE NAME:  u
CONSTRAINT NAME:  u_id

begin; insert into u values (20, 10, 'twice'); select count(*) from u where k = 10; update u set k = 11 where v = 'r1'; commit;
---
count
2
(1 row)

select id, k, v from u order by k;
---
id|k|v
20|10|twice
5|11|r1
4|20|r2
3|30|r3
2|40|r4
1|50|r5
(6 rows)

begin; insert into u values (21, 11, 'three'); savepoint s; insert into u values (22, 20, 'four'); rollback to s; delete from u where v = 'three'; commit;
---

begin; insert into u values (23, 20, 'five'); insert into u values (24, 24, 'six');
---

commit;
---
ERROR:  23505: duplicate key value violates unique constraint "u_k"
DETAIL:  Key (k)=(20) already exists.
SCHEMA NAME:  public
TABLE NAME:  u
CONSTRAINT NAME:  u_k

begin; insert into u values (25, 20, 'seven'); set constraints u_k immediate;
---
ERROR:  23505: duplicate key value violates unique constraint "u_k"
DETAIL:  Key (k)=(20) already exists.
SCHEMA NAME:  public
TABLE NAME:  u
CONSTRAINT NAME:  u_k

rollback;
---

begin; set constraints u_id deferred; insert into u values (2, 500, 'late'); update u set id = 99 where id = 2 and v <> 'late'; set constraints all immediate; select count(*) from u where id = 2; rollback;
---
count
1
(1 row)

begin; set constraints u_k immediate; insert into u values (26, 20, 'eight');
---
ERROR:  23505: duplicate key value violates unique constraint "u_k"
DETAIL:  Key (k)=(20) already exists.
SCHEMA NAME:  public
TABLE NAME:  u
CONSTRAINT NAME:  u_k

rollback;
---

insert into u values (2, 900, 'c') on conflict (id) do nothing;
---
ERROR:  55000: ON CONFLICT does not support deferrable unique constraints/exclusion constraints as arbiters
SCHEMA NAME:  public
TABLE NAME:  u
CONSTRAINT NAME:  u_id

insert into u values (2, 900, 'c') on conflict on constraint u_id do nothing;
---
ERROR:  55000: ON CONFLICT does not support deferrable unique constraints/exclusion constraints as arbiters
SCHEMA NAME:  public
TABLE NAME:  u
CONSTRAINT NAME:  u_id

insert into u values (2, 900, 'c') on conflict do nothing;
---
ERROR:  55000: ON CONFLICT does not support deferrable unique constraints/exclusion constraints as arbiters
SCHEMA NAME:  public
TABLE NAME:  u
CONSTRAINT NAME:  u_id

create table p (a int, b int, primary key (a, b) deferrable initially deferred);
---

begin; insert into p values (1, 1), (1, 1); commit;
---
ERROR:  23505: duplicate key value violates unique constraint "p_pkey"
DETAIL:  Key (a, b)=(1, 1) already exists.
SCHEMA NAME:  public
TABLE NAME:  p
CONSTRAINT NAME:  p_pkey

begin; insert into p values (1, 1), (1, 1), (1, 2); delete from p where b = 1; insert into p values (1, 1); commit;
---

select * from p order by 1, 2;
---
a|b
1|1
1|2
(2 rows)

create table f (a int references u (id));
---
ERROR:  55000: cannot use a deferrable unique constraint for referenced table "u"

\d u
---
Table "public.u"
Column|Type|Collation|Nullable|Default
id|integer|||
k|integer|||
v|text|||
Indexes:
    "u_id" UNIQUE CONSTRAINT, btree (id) DEFERRABLE
    "u_k" UNIQUE CONSTRAINT, btree (k) DEFERRABLE INITIALLY DEFERRED

select conname, condeferrable, condeferred from pg_constraint where conrelid in ('u'::regclass, 'p'::regclass) order by 1;
---
conname|condeferrable|condeferred
p_pkey|t|t
u_id|t|f
u_k|t|t
(3 rows)

create table n (id int unique); begin; set constraints n_id_key deferred;
---
ERROR:  42809: constraint "n_id_key" is not deferrable

rollback;
---

select indexrelid::regclass, indimmediate from pg_index where indrelid in ('u'::regclass, 'p'::regclass) order by 1;
---
indexrelid|indimmediate
u_id|f
u_k|f
p_pkey|f
(3 rows)

drop table u, p, n;
---

# ALTER CONSTRAINT, of foreign keys only
create table p (id int primary key); create table c (id int, k int unique deferrable, constraint c_fk foreign key (id) references p); alter table c alter constraint c_fk deferrable initially deferred;
---

begin; insert into c values (5); insert into p values (5); commit; select * from c;
---
id|k
5|
(1 row)

insert into c values (6);
---
ERROR:  23503: insert or update on table "c" violates foreign key constraint "c_fk"
DETAIL:  Key (id)=(6) is not present in table "p".
SCHEMA NAME:  public
TABLE NAME:  c
CONSTRAINT NAME:  c_fk

alter table c alter constraint c_fk deferrable;
---

begin; insert into c values (6);
---
ERROR:  23503: insert or update on table "c" violates foreign key constraint "c_fk"
DETAIL:  Key (id)=(6) is not present in table "p".
SCHEMA NAME:  public
TABLE NAME:  c
CONSTRAINT NAME:  c_fk

rollback; begin; set constraints c_fk deferred; insert into c values (6); insert into p values (6); commit;
---

alter table c alter constraint c_fk not deferrable; begin; set constraints c_fk deferred;
---
ERROR:  42809: constraint "c_fk" is not deferrable

rollback; alter table c alter constraint c_k_key deferrable; alter table c alter constraint nope deferrable;
---
ERROR:  42809: constraint "c_k_key" of relation "c" is not a foreign key constraint
ERROR:  42704: constraint "nope" of relation "c" does not exist

drop table c, p;
---

# What a clause may stand behind
create table n (id int not null deferrable); create table n (id int unique not deferrable initially deferred); create table n (id int unique deferrable deferrable); create table n (id int check (id > 0) deferrable); create table n (id int deferrable); create table n (id int, check (id > 0) deferrable);
---
ERROR:  42601: misplaced DEFERRABLE clause
LINE 1: create table n (id int not null deferrable);
                                        ^
ERROR:  42601: constraint declared INITIALLY DEFERRED must be DEFERRABLE
LINE 1: create table n (id int unique not deferrable initially defer...
                                                     ^
ERROR:  42601: multiple DEFERRABLE/NOT DEFERRABLE clauses not allowed
LINE 1: create table n (id int unique deferrable deferrable);
                                                 ^
ERROR:  42601: misplaced DEFERRABLE clause
LINE 1: create table n (id int check (id > 0) deferrable);
                                              ^
ERROR:  42601: misplaced DEFERRABLE clause
LINE 1: create table n (id int deferrable);
                               ^
ERROR:  0A000: CHECK constraints cannot be marked DEFERRABLE

create table n (id int unique deferrable not null initially deferred);
---
ERROR:  42601: misplaced INITIALLY DEFERRED clause
LINE 1: create table n (id int unique deferrable not null initially ...
                                                          ^

create table n (id int unique initially deferred); select conname, condeferrable, condeferred from pg_constraint where conrelid = 'n'::regclass; drop table n;
---
conname|condeferrable|condeferred
n_id_key|t|t
(1 row)
