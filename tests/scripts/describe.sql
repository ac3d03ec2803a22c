# What psql's backslash commands print.

create table t (id int primary key, name varchar(20) not null default 'n', at timestamptz default now(), amount numeric(10,2) check (amount >= 0)); create index t_name on t (name, lower(name)); create view v as select id, name from t; create sequence s;
---

\d
---
List of relations
Schema|Name|Type|Owner
public|s|sequence|postgres
public|t|table|postgres
public|v|view|postgres
(3 rows)

\d t
---
Table "public.t"
Column|Type|Collation|Nullable|Default
id|integer||not null|
name|character varying(20)||not null|'n'::character varying
at|timestamp with time zone|||now()
amount|numeric(10,2)|||
Indexes:
    "t_pkey" PRIMARY KEY, btree (id)
    "t_name" btree (name, lower(name::text))
Check constraints:
    "t_amount_check" CHECK (amount >= 0::numeric)

\d+ v
---
View "public.v"
Column|Type|Collation|Nullable|Default|Storage|Description
id|integer||||plain|
name|character varying(20)||||extended|
View definition:
 SELECT t.id,
    t.name
   FROM t;

\dt
---
List of relations
Schema|Name|Type|Owner
public|t|table|postgres
(1 row)

\di
---
List of relations
Schema|Name|Type|Owner|Table
public|t_name|index|postgres|t
public|t_pkey|index|postgres|t
(2 rows)

\ds
---
List of relations
Schema|Name|Type|Owner
public|s|sequence|postgres
(1 row)

\dv
---
List of relations
Schema|Name|Type|Owner
public|v|view|postgres
(1 row)

\dn
---
List of schemas
Name|Owner
public|postgres
(1 row)

\d nosuch
---

\dt nosuch
---
List of relations
Schema|Name|Type|Owner
(0 rows)

\d t_name
---
Index "public.t_name"
Column|Type|Key?|Definition
name|character varying(20)|yes|name
lower|text|yes|lower(name::text)
btree, for table "public.t"

\d t_pkey
---
Index "public.t_pkey"
Column|Type|Key?|Definition
id|integer|yes|id
primary key, btree, for table "public.t"

\d s
---
Sequence "public.s"
Type|Start|Minimum|Maximum|Increment|Cycles?|Cache
bigint|1|1|9223372036854775807|1|no|1

\x
select 1 as a, 'b' as b;
\x
---
a|1
b|b

select 1 as one \gset
\echo :one
---
1

\echo :DBNAME :USER
---
postgres postgres

\conninfo_is_not_a_command
---
invalid command \conninfo_is_not_a_command

\sf nosuch
---
ERROR:  function "nosuch" does not exist

\z t
---
Access privileges
Schema|Name|Type|Access privileges|Column privileges|Policies
public|t|table|||
(1 row)

\dp v
---
Access privileges
Schema|Name|Type|Access privileges|Column privileges|Policies
public|v|view|||
(1 row)

select k, acldefault(k::"char", 10) from unnest(array['r','s','d','f','l','L','n','p','t','F','S','T','c']) k;
---
k|acldefault
r|{postgres=arwdDxt/postgres}
s|{postgres=rwU/postgres}
d|{=Tc/postgres,postgres=CTc/postgres}
f|{=X/postgres,postgres=X/postgres}
l|{=U/postgres,postgres=U/postgres}
L|{postgres=rw/postgres}
n|{postgres=UC/postgres}
p|{postgres=sA/postgres}
t|{postgres=C/postgres}
F|{postgres=U/postgres}
S|{postgres=U/postgres}
T|{=U/postgres,postgres=U/postgres}
c|{}
(13 rows)

select ('abc'::name)[0] as a, ('abc'::name)[2] as b;
---
a|b
a|c
(1 row)
