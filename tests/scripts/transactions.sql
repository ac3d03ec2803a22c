# Transaction blocks, savepoints, errors within, transactional DDL.

create table t (id int primary key, v int); insert into t values (1, 1);
---

begin; update t set v = 2 where id = 1; select v from t; rollback; select v from t;
---
v
2
(1 row)
v
1
(1 row)

begin; insert into t values (2, 2); insert into t values (2, 3);
---
ERROR:  23505: duplicate key value violates unique constraint "t_pkey"
DETAIL:  Key (id)=(2) already exists.
SCHEMA NAME:  public
TABLE NAME:  t
CONSTRAINT NAME:  t_pkey

select 1;
---
ERROR:  25P02: current transaction is aborted, commands ignored until end of transaction block

commit; select count(*) from t;
---
count
1
(1 row)

begin; insert into t values (3, 3); savepoint a; insert into t values (4, 4); savepoint b; insert into t values (5, 5); rollback to a; insert into t values (6, 6); release a; commit; select id from t order by id;
---
id
1
3
6
(3 rows)

begin; savepoint s; select 1/0;
---
ERROR:  22012: division by zero

rollback to s; select 'alive' as x; commit;
---
x
alive
(1 row)

begin; rollback to nope;
---
ERROR:  3B001: savepoint "nope" does not exist

rollback; release nope;
---
ERROR:  25P01: RELEASE SAVEPOINT can only be used in transaction blocks

savepoint outside;
---
ERROR:  25P01: SAVEPOINT can only be used in transaction blocks

commit;
---
WARNING:  25P01: there is no transaction in progress

rollback;
---
WARNING:  25P01: there is no transaction in progress

begin; begin; commit;
---
WARNING:  25001: there is already a transaction in progress

begin; create table made (a int); insert into made values (1); select * from made; rollback; select * from made;
---
a
1
(1 row)
ERROR:  42P01: relation "made" does not exist
LINE 1: select * from made;
                      ^

begin; drop table t; select * from t;
---
ERROR:  42P01: relation "t" does not exist
LINE 1: select * from t;
                      ^

rollback; select count(*) from t;
---
count
3
(1 row)

begin; alter table t add column w int default 9; select * from t where id = 1; rollback; select * from t where id = 1;
---
id|v|w
1|1|9
(1 row)
id|v
1|1
(1 row)

begin; truncate t; select count(*) from t; rollback; select count(*) from t;
---
count
0
(1 row)
count
3
(1 row)

begin; create index t_v on t (v); insert into t values (7, 7); savepoint x; drop index t_v; rollback to x; commit; select count(*) from pg_indexes where tablename = 't';
---
count
2
(1 row)

begin isolation level repeatable read; show transaction_isolation; select count(*) from t; commit; show transaction_isolation;
---
transaction_isolation
repeatable read
(1 row)
count
4
(1 row)
transaction_isolation
read committed
(1 row)

begin read only; insert into t values (100, 1);
---
ERROR:  25006: cannot execute INSERT in a read-only transaction

rollback; start transaction read only; select count(*) from t; commit;
---
count
4
(1 row)

begin; set local work_mem = '1MB'; show work_mem; commit; show work_mem;
---
work_mem
1MB
(1 row)
work_mem
4MB
(1 row)

begin; insert into t values (8, 8); commit and chain; insert into t values (9, 9); rollback; select id from t where id >= 8;
---
id
8
(1 row)

insert into t values (10, 10)\; insert into t values (10, 11);
---
ERROR:  23505: duplicate key value violates unique constraint "t_pkey"
DETAIL:  Key (id)=(10) already exists.
SCHEMA NAME:  public
TABLE NAME:  t
CONSTRAINT NAME:  t_pkey

select count(*) from t where id = 10;
---
count
0
(1 row)

begin; update t set v = v + 1; update t set v = v + 1; delete from t where id = 1; insert into t values (1, 77); select * from t order by id; commit;
---
id|v
1|77
3|5
6|8
7|9
8|10
(5 rows)

abort; end;
---
WARNING:  25P01: there is no transaction in progress
WARNING:  25P01: there is no transaction in progress

select txid_current() > 0 as x, pg_current_xact_id_if_assigned() is null as y;
---
x|y
t|f
(1 row)

# A transaction begun again is told by its own tag
\set QUIET off
start transaction; start transaction; begin; commit;
\set QUIET on
---
START TRANSACTION
WARNING:  25001: there is already a transaction in progress
START TRANSACTION
WARNING:  25001: there is already a transaction in progress
BEGIN
COMMIT

# Rows that may not be there are not locked
create table lr (id int primary key, v text); insert into lr values (1, 'a'), (2, 'b'); select * from lr left join lr u using (id) for update;
---
ERROR:  0A000: FOR UPDATE cannot be applied to the nullable side of an outer join

select * from lr right join lr u using (id) for no key update of lr; select * from lr full join lr u using (id) for share of u;
---
ERROR:  0A000: FOR NO KEY UPDATE cannot be applied to the nullable side of an outer join
ERROR:  0A000: FOR SHARE cannot be applied to the nullable side of an outer join

select id from lr left join lr u using (id) for update of lr; select id from lr left join lr u using (id) where u.v = 'b' for update;
---
id
1
2
(2 rows)
id
2
(1 row)

create sequence ls; select * from ls for update; create materialized view lm as select 1 as a; select * from lm for key share;
---
ERROR:  42809: cannot lock rows in sequence "ls"
ERROR:  42809: cannot lock rows in materialized view "lm"

begin; lock table lr_pkey;
---
ERROR:  42809: cannot lock relation "lr_pkey"
DETAIL:  This operation is not supported for indexes.

rollback; drop materialized view lm; drop table lr; drop sequence ls;
---

# What session and transaction hold is shown once
begin; select pg_advisory_xact_lock(1), pg_advisory_lock(1), pg_advisory_lock(1), pg_advisory_lock_shared(1); select mode, objid, granted from pg_locks where locktype = 'advisory' order by 1;
---
pg_advisory_xact_lock|pg_advisory_lock|pg_advisory_lock|pg_advisory_lock_shared
|||
(1 row)
mode|objid|granted
ExclusiveLock|1|t
ShareLock|1|t
(2 rows)

rollback; select mode, count(*) from pg_locks where locktype = 'advisory' group by 1 order by 1; select pg_advisory_unlock_all();
---
mode|count
ExclusiveLock|1
ShareLock|1
(2 rows)
pg_advisory_unlock_all
(1 row)
