# COPY in and out, text and csv.

create table t (id int, v text, n numeric);
---

copy t from stdin;
1	one	1.5
2	\N	\N
3	tab\there	3
\.
---

select id, v, n from t order by id;
---
id|v|n
1|one|1.5
2||
3|tab	here|3
(3 rows)

copy t to stdout;
---
1	one	1.5
2	\N	\N
3	tab\there	3

copy t (v, id) to stdout with (format csv, header, quote '"');
---
v,id
one,1
,2
tab	here,3

copy t from stdin with (format csv, header);
id,v,n
4,"quoted, with comma",4
5,,5
6,"",6
7,"line
break",7
\.
---

select id, v is null as isnull, length(v) from t where id > 3 order by id;
---
id|isnull|length
4|f|18
5|t|
6|f|0
7|f|10
(4 rows)

copy t from stdin;
8	x
\.
---
ERROR:  22P04: missing data for column "n"

copy t from stdin;
x	y	1
\.
---
ERROR:  22P02: invalid input syntax for type integer: "x"

copy (select id, v from t where id < 3 order by id desc) to stdout with (delimiter '|', null 'NIL');
---
2|NIL
1|one

copy t from stdin with (delimiter ',', null 'nil');
9,nil,nil
\.
---

select * from t where id = 9;
---
id|v|n
9||
(1 row)

copy nope to stdout;
---
ERROR:  42P01: relation "nope" does not exist

copy t (nope) from stdin;
---
ERROR:  42703: column "nope" of relation "t" does not exist

select count(*) from t;
---
count
8
(1 row)

begin; copy t from stdin;
10	ten	10
\.
---

rollback; select count(*) from t;
---
count
8
(1 row)
