# Foreign keys, identity and generated columns.

create table pk (id int primary key, u int unique, v text);
---

create table fk (a int references pk, b int);
---

\d fk
---
Table "public.fk"
Column|Type|Collation|Nullable|Default
a|integer|||
b|integer|||
Foreign-key constraints:
    "fk_a_fkey" FOREIGN KEY (a) REFERENCES pk(id)

\d pk
---
Table "public.pk"
Column|Type|Collation|Nullable|Default
id|integer||not null|
u|integer|||
v|text|||
Indexes:
    "pk_pkey" PRIMARY KEY, btree (id)
    "pk_u_key" UNIQUE CONSTRAINT, btree (u)
Referenced by:
    TABLE "fk" CONSTRAINT "fk_a_fkey" FOREIGN KEY (a) REFERENCES pk(id)

insert into pk values (1, 10, 'a'), (2, 20, 'b'), (3, 30, 'c');
---

insert into fk values (1, 1), (2, 2), (null, 3);
---

insert into fk values (5, 1);
---
ERROR:  23503: insert or update on table "fk" violates foreign key constraint "fk_a_fkey"
DETAIL:  Key (a)=(5) is not present in table "pk".
SCHEMA NAME:  public
TABLE NAME:  fk
CONSTRAINT NAME:  fk_a_fkey

insert into fk select 7, 7;
---
ERROR:  23503: insert or update on table "fk" violates foreign key constraint "fk_a_fkey"
DETAIL:  Key (a)=(7) is not present in table "pk".
SCHEMA NAME:  public
TABLE NAME:  fk
CONSTRAINT NAME:  fk_a_fkey

update fk set a = 9 where b = 1;
---
ERROR:  23503: insert or update on table "fk" violates foreign key constraint "fk_a_fkey"
DETAIL:  Key (a)=(9) is not present in table "pk".
SCHEMA NAME:  public
TABLE NAME:  fk
CONSTRAINT NAME:  fk_a_fkey

update fk set b = 9 where b = 1;
---

delete from pk where id = 1;
---
ERROR:  23503: update or delete on table "pk" violates foreign key constraint "fk_a_fkey" on table "fk"
DETAIL:  Key (id)=(1) is still referenced from table "fk".
SCHEMA NAME:  public
TABLE NAME:  fk
CONSTRAINT NAME:  fk_a_fkey

update pk set id = 100 where id = 1;
---
ERROR:  23503: update or delete on table "pk" violates foreign key constraint "fk_a_fkey" on table "fk"
DETAIL:  Key (id)=(1) is still referenced from table "fk".
SCHEMA NAME:  public
TABLE NAME:  fk
CONSTRAINT NAME:  fk_a_fkey

update pk set v = 'z' where id = 1;
---

delete from pk where id = 3;
---

drop table pk;
---
ERROR:  2BP01: cannot drop table pk because other objects depend on it
DETAIL:  constraint fk_a_fkey on table fk depends on table pk
HINT:  Use DROP ... CASCADE to drop the dependent objects too.

truncate pk;
---
ERROR:  0A000: cannot truncate a table referenced in a foreign key constraint
DETAIL:  Table "fk" references "pk".
HINT:  Truncate table "fk" at the same time, or use TRUNCATE ... CASCADE.

truncate pk, fk;
---

insert into pk values (1, 10, 'a'), (2, 20, 'b'), (3, 30, 'c');
---

alter table fk drop constraint fk_a_fkey;
---

insert into fk values (50, 1);
---

alter table fk add constraint c1 foreign key (a) references pk (id) on delete cascade on update cascade;
---
ERROR:  23503: insert or update on table "fk" violates foreign key constraint "c1"
DETAIL:  Key (a)=(50) is not present in table "pk".
SCHEMA NAME:  public
TABLE NAME:  fk
CONSTRAINT NAME:  c1

alter table fk add constraint c1 foreign key (a) references pk (id) on delete cascade on update cascade not valid;
---

\d fk
---
Table "public.fk"
Column|Type|Collation|Nullable|Default
a|integer|||
b|integer|||
Foreign-key constraints:
    "c1" FOREIGN KEY (a) REFERENCES pk(id) ON UPDATE CASCADE ON DELETE CASCADE NOT VALID

alter table fk validate constraint c1;
---
ERROR:  23503: insert or update on table "fk" violates foreign key constraint "c1"
DETAIL:  Key (a)=(50) is not present in table "pk".
SCHEMA NAME:  public
TABLE NAME:  fk
CONSTRAINT NAME:  c1

delete from fk where a = 50;
---

alter table fk validate constraint c1;
---

insert into fk values (1, 1), (2, 2), (3, 3), (3, 33);
---

update pk set id = 1000 where id = 1; select * from fk order by 1, 2;
---
a|b
2|2
3|3
3|33
1000|1
(4 rows)

delete from pk where id = 3; select * from fk order by 1, 2;
---
a|b
2|2
1000|1
(2 rows)

create table sn (a int default 2 references pk(id) on delete set null on update set default, b int);
---

insert into sn values (1000, 1), (2, 2);
---

delete from pk where id = 1000; select * from sn order by 2;
---
a|b
|1
2|2
(2 rows)

insert into pk values (77, 77, 'x'); insert into sn values (77, 3);
---

update pk set id = 78 where id = 77; select * from sn order by 2;
---
a|b
|1
2|2
2|3
(3 rows)

create table def (a int references pk deferrable initially deferred, b int references pk deferrable initially immediate);
---

begin; insert into def values (500, null); insert into pk values (500, 500, 'd'); commit;
---

begin; insert into def values (501, null); commit;
---
ERROR:  23503: insert or update on table "def" violates foreign key constraint "def_a_fkey"
DETAIL:  Key (a)=(501) is not present in table "pk".
SCHEMA NAME:  public
TABLE NAME:  def
CONSTRAINT NAME:  def_a_fkey

begin; insert into def values (null, 502); rollback;
---
ERROR:  23503: insert or update on table "def" violates foreign key constraint "def_b_fkey"
DETAIL:  Key (b)=(502) is not present in table "pk".
SCHEMA NAME:  public
TABLE NAME:  def
CONSTRAINT NAME:  def_b_fkey

begin; set constraints all deferred; insert into def values (null, 503); set constraints all immediate; rollback;
---
ERROR:  23503: insert or update on table "def" violates foreign key constraint "def_b_fkey"
DETAIL:  Key (b)=(503) is not present in table "pk".
SCHEMA NAME:  public
TABLE NAME:  def
CONSTRAINT NAME:  def_b_fkey

begin; set constraints def_b_fkey deferred; insert into def values (null, 504); savepoint s; delete from def; rollback to s; commit;
---
ERROR:  23503: insert or update on table "def" violates foreign key constraint "def_b_fkey"
DETAIL:  Key (b)=(504) is not present in table "pk".
SCHEMA NAME:  public
TABLE NAME:  def
CONSTRAINT NAME:  def_b_fkey

begin; set constraints nosuch deferred; rollback;
---
ERROR:  42704: constraint "nosuch" does not exist

begin; delete from pk where id = 500; insert into pk values (500, 501, 'again'); commit;
---

select * from def;
---
a|b
500|
(1 row)

create table self (id int primary key, parent int references self on delete cascade);
---

insert into self values (1, null), (2, 1), (3, 2), (5, 4), (4, 1);
---

delete from self where id = 1; select * from self;
---
id|parent
(0 rows)

insert into self values (10, 10); update self set id = 11, parent = 11; select * from self;
---
id|parent
11|11
(1 row)

create table m2 (a int, b int, primary key (a, b));
---

create table m2f (x int, y int, foreign key (x, y) references m2 match full);
---

insert into m2 values (1, 2); insert into m2f values (1, 2), (null, null);
---

insert into m2f values (1, null);
---
ERROR:  23503: insert or update on table "m2f" violates foreign key constraint "m2f_x_y_fkey"
DETAIL:  MATCH FULL does not allow mixing of null and nonnull key values.
SCHEMA NAME:  public
TABLE NAME:  m2f
CONSTRAINT NAME:  m2f_x_y_fkey

insert into m2f values (3, 4);
---
ERROR:  23503: insert or update on table "m2f" violates foreign key constraint "m2f_x_y_fkey"
DETAIL:  Key (x, y)=(3, 4) is not present in table "m2".
SCHEMA NAME:  public
TABLE NAME:  m2f
CONSTRAINT NAME:  m2f_x_y_fkey

create table bad (a int references nosuch (id));
---
ERROR:  42P01: relation "nosuch" does not exist

create table bad (a int references pk (v));
---
ERROR:  42830: there is no unique constraint matching given keys for referenced table "pk"

create table bad (a int references pk (nosuch));
---
ERROR:  42703: column "nosuch" referenced in foreign key constraint does not exist

create table bad (a int, foreign key (z) references pk);
---
ERROR:  42703: column "z" referenced in foreign key constraint does not exist

create table bad (a text references pk);
---
ERROR:  42804: foreign key constraint "bad_a_fkey" cannot be implemented
DETAIL:  Key columns "a" and "id" are of incompatible types: text and integer.

create table bad (a int, b int, foreign key (a, b) references pk);
---
ERROR:  42830: number of referencing and referenced columns for foreign key disagree

create table nopk (a int); create table bad (a int references nopk);
---
ERROR:  42704: there is no primary key for referenced table "nopk"

create temp table tt (a int primary key); create table bad (a int references tt);
---
ERROR:  42P16: constraints on permanent tables may reference only permanent tables

create table big (a bigint references pk);
---

insert into big values (2), (88);
---
ERROR:  23503: insert or update on table "big" violates foreign key constraint "big_a_fkey"
DETAIL:  Key (a)=(88) is not present in table "pk".
SCHEMA NAME:  public
TABLE NAME:  big
CONSTRAINT NAME:  big_a_fkey

select count(*) from fk where b in (5, 6);
---
count
0
(1 row)

select conname, contype, confupdtype, confdeltype, confmatchtype, conkey, confkey, pg_get_constraintdef(oid) from pg_constraint where contype = 'f' order by 1;
---
conname|contype|confupdtype|confdeltype|confmatchtype|conkey|confkey|pg_get_constraintdef
big_a_fkey|f|a|a|s|{1}|{1}|FOREIGN KEY (a) REFERENCES pk(id)
c1|f|c|c|s|{1}|{1}|FOREIGN KEY (a) REFERENCES pk(id) ON UPDATE CASCADE ON DELETE CASCADE
def_a_fkey|f|a|a|s|{1}|{1}|FOREIGN KEY (a) REFERENCES pk(id) DEFERRABLE INITIALLY DEFERRED
def_b_fkey|f|a|a|s|{2}|{1}|FOREIGN KEY (b) REFERENCES pk(id) DEFERRABLE
m2f_x_y_fkey|f|a|a|f|{1,2}|{1,2}|FOREIGN KEY (x, y) REFERENCES m2(a, b) MATCH FULL
self_parent_fkey|f|a|c|s|{2}|{1}|FOREIGN KEY (parent) REFERENCES self(id) ON DELETE CASCADE
sn_a_fkey|f|d|n|s|{1}|{1}|FOREIGN KEY (a) REFERENCES pk(id) ON UPDATE SET DEFAULT ON DELETE SET NULL
(7 rows)

drop table pk cascade;
---
NOTICE:  00000: drop cascades to 5 other objects
DETAIL:  drop cascades to constraint c1 on table fk
drop cascades to constraint sn_a_fkey on table sn
drop cascades to constraint def_a_fkey on table def
drop cascades to constraint def_b_fkey on table def
drop cascades to constraint big_a_fkey on table big

\d fk
---
Table "public.fk"
Column|Type|Collation|Nullable|Default
a|integer|||
b|integer|||

alter table self drop column parent; \d self
---
Table "public.self"
Column|Type|Collation|Nullable|Default
id|integer||not null|
Indexes:
    "self_pkey" PRIMARY KEY, btree (id)

create table gi (id int generated always as identity primary key, k int generated by default as identity (start 10), g int generated always as (k * 2) stored);
---

insert into gi default values; insert into gi (id) values (5);
---
ERROR:  428C9: cannot insert a non-DEFAULT value into column "id"
DETAIL:  Column "id" is an identity column defined as GENERATED ALWAYS.
HINT:  Use OVERRIDING SYSTEM VALUE to override.

insert into gi (id) overriding system value values (5); insert into gi (k) values (7) returning *; insert into gi (k) overriding user value values (7) returning *;
---
id|k|g
2|7|14
(1 row)
id|k|g
3|12|24
(1 row)

insert into gi (g) values (1);
---
ERROR:  428C9: cannot insert a non-DEFAULT value into column "g"
DETAIL:  Column "g" is a generated column.

update gi set id = 9 where id = 1; update gi set g = 1; update gi set k = 50 where k = 7 returning *;
---
ERROR:  428C9: column "id" can only be updated to DEFAULT
DETAIL:  Column "id" is an identity column defined as GENERATED ALWAYS.
ERROR:  428C9: column "g" can only be updated to DEFAULT
DETAIL:  Column "g" is a generated column.
id|k|g
2|50|100
(1 row)

\d gi
---
Table "public.gi"
Column|Type|Collation|Nullable|Default
id|integer||not null|generated always as identity
k|integer||not null|generated by default as identity
g|integer|||generated always as (k * 2) stored
Indexes:
    "gi_pkey" PRIMARY KEY, btree (id)

create table ic (a int primary key, b int references ic (a)); insert into ic values (1, 1) on conflict (a) do update set b = 5; insert into ic values (1, 1) on conflict (a) do update set b = 5; select * from ic;
---
ERROR:  23503: insert or update on table "ic" violates foreign key constraint "ic_b_fkey"
DETAIL:  Key (b)=(5) is not present in table "ic".
SCHEMA NAME:  public
TABLE NAME:  ic
CONSTRAINT NAME:  ic_b_fkey
a|b
1|1
(1 row)
