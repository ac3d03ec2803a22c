# Queries of all shapes.

create table e (id int primary key, name text, dept int, sal numeric, boss int); create table d (id int primary key, name text);
---

insert into d values (1, 'eng'), (2, 'ops'), (3, 'empty'); insert into e values (1, 'ann', 1, 100, null), (2, 'bob', 1, 80.5, 1), (3, 'cid', 2, 70, 1), (4, 'dee', null, 60, 2), (5, 'eve', 2, 70, 3);
---

select e.name, d.name as dept from e join d on e.dept = d.id order by e.id;
---
name|dept
ann|eng
bob|eng
cid|ops
eve|ops
(4 rows)

select e.name, d.name as dept from e left join d on e.dept = d.id order by e.id;
---
name|dept
ann|eng
bob|eng
cid|ops
dee|
eve|ops
(5 rows)

select e.name, d.name as dept from e right join d on e.dept = d.id order by d.id, e.id;
---
name|dept
ann|eng
bob|eng
cid|ops
eve|ops
|empty
(5 rows)

select e.name, d.name as dept from e full join d on e.dept = d.id order by d.id nulls first, e.id nulls last;
---
name|dept
dee|
ann|eng
bob|eng
cid|ops
eve|ops
|empty
(6 rows)

select a.name, b.name from e a, e b where a.boss = b.id order by 1;
---
name|name
bob|ann
cid|ann
dee|bob
eve|cid
(4 rows)

select count(*) from e cross join d;
---
count
15
(1 row)

select name from e natural join (select 1 as dept) x order by 1;
---
name
ann
bob
(2 rows)

select id, d.name from e join d using (id) order by id;
---
id|name
1|eng
2|ops
3|empty
(3 rows)

select dept, count(*), sum(sal), avg(sal), min(name), max(name) from e group by dept order by dept nulls last;
---
dept|count|sum|avg|min|max
1|2|180.5|90.2500000000000000|ann|bob
2|2|140|70.0000000000000000|cid|eve
|1|60|60.0000000000000000|dee|dee
(3 rows)

select dept, count(*) from e group by 1 having count(*) > 1 order by 2, 1;
---
dept|count
1|2
2|2
(2 rows)

select count(*), count(dept), count(distinct dept), sum(sal) filter (where dept = 1), string_agg(name, ',' order by name desc), array_agg(id order by id), bool_and(sal > 50), bool_or(sal > 90) from e;
---
count|count|count|sum|string_agg|array_agg|bool_and|bool_or
5|4|2|180.5|eve,dee,cid,bob,ann|{1,2,3,4,5}|t|t
(1 row)

select sum(sal), count(*), max(name) from e where false;
---
sum|count|max
|0|
(1 row)

select name from e order by dept desc nulls last, sal, name limit 3 offset 1;
---
name
eve
bob
ann
(3 rows)

select distinct dept from e order by dept;
---
dept
1
2
(3 rows)

select distinct on (dept) dept, name from e order by dept, sal desc;
---
dept|name
1|ann
2|cid
|dee
(3 rows)

select name, (select name from d where d.id = e.dept) as dept from e order by id;
---
name|dept
ann|eng
bob|eng
cid|ops
dee|
eve|ops
(5 rows)

select name from e where sal > (select avg(sal) from e) order by name;
---
name
ann
bob
(2 rows)

select name from e where dept in (select id from d where name <> 'ops') order by name;
---
name
ann
bob
(2 rows)

select name from d where not exists (select 1 from e where e.dept = d.id);
---
name
empty
(1 row)

select name from e where sal >= all (select sal from e where dept = 1) order by 1;
---
name
ann
(1 row)

select name from e where (dept, sal) in (select dept, max(sal) from e group by dept) order by name;
---
name
ann
cid
eve
(3 rows)

select * from (values (1, 'a'), (2, 'b')) as v (n, l) order by n desc;
---
n|l
2|b
1|a
(2 rows)

with x as (select id, sal from e where sal >= 70), y as (select sum(sal) as total from x) select x.id, round(x.sal / y.total, 3) as share from x, y order by 1;
---
id|share
1|0.312
2|0.251
3|0.218
5|0.218
(4 rows)

with recursive r (n, f) as (values (1, 1::numeric) union all select n + 1, f * (n + 1) from r where n < 10) select * from r where n > 7;
---
n|f
8|40320
9|362880
10|3628800
(3 rows)

with recursive up as (select id, name, boss, 0 as depth from e where id = 5 union all select e.id, e.name, e.boss, depth + 1 from e join up on e.id = up.boss) select name, depth from up order by depth;
---
name|depth
eve|0
cid|1
ann|2
(3 rows)

select 1 as x union select 2 union select 1 order by x;
---
x
1
2
(2 rows)

select 1 union all select 1 except select 2;
---
?column?
1
(1 row)

select id from e intersect select id from d order by 1;
---
id
1
2
3
(3 rows)

select name, sal, rank() over (order by sal desc), row_number() over (order by sal desc, name), sum(sal) over (partition by dept order by id), lag(name) over (order by id) from e order by id;
---
name|sal|rank|row_number|sum|lag
ann|100|1|1|100|
bob|80.5|2|2|180.5|ann
cid|70|3|3|70|bob
dee|60|5|5|60|cid
eve|70|3|4|140|dee
(5 rows)

select id, sum(id) over (order by id rows between 1 preceding and current row) as s, first_value(id) over w, ntile(2) over w from e window w as (order by id desc) order by id;
---
id|s|first_value|ntile
1|1|5|2
2|3|5|2
3|5|5|1
4|7|5|1
5|9|5|1
(5 rows)

select g, g * g from generate_series(1, 5, 2) g;
---
g|?column?
1|1
3|9
5|25
(3 rows)

select * from generate_series(timestamp '2024-01-01', timestamp '2024-01-03', interval '1 day') as t (d);
---
d
2024-01-01 00:00:00
2024-01-02 00:00:00
2024-01-03 00:00:00
(3 rows)

select generate_series(1, 3), 'x';
---
generate_series|?column?
1|x
2|x
3|x
(3 rows)

select e.name, s.n from e, lateral (select e.id * 10 + k as n from generate_series(1, 2) k) s where e.id < 3 order by 2;
---
name|n
ann|11
ann|12
bob|21
bob|22
(4 rows)

select dept, sal, count(*) from e group by grouping sets ((dept), (sal), ()) order by 1, 2, 3;
---
dept|sal|count
1||2
2||2
|60|1
|70|2
|80.5|1
|100|1
||1
||5
(8 rows)

select dept, count(*) from e group by rollup (dept) order by 1 nulls last, 2;
---
dept|count
1|2
2|2
|1
|5
(4 rows)

select 1 where exists (select 1 from e where dept is null) and not exists (select 1 from e where sal > 1000);
---
?column?
1
(1 row)

select name from e where name between 'b' and 'd' or name like '%e' order by name;
---
name
bob
cid
dee
eve
(4 rows)

select coalesce(d.name, '(none)') as dept, case when sum(sal) > 150 then 'big' else 'small' end as size from e left join d on d.id = e.dept group by d.name order by 1;
---
dept|size
(none)|small
eng|big
ops|small
(3 rows)

select id as a, id as b from e where id = 1 group by id;
---
a|b
1|1
(1 row)

select name, count(*) from e;
---
ERROR:  42803: column "e.name" must appear in the GROUP BY clause or be used in an aggregate function
LINE 1: select name, count(*) from e;
               ^

select id from e where count(*) > 1;
---
ERROR:  42803: aggregate functions are not allowed in WHERE
LINE 1: select id from e where count(*) > 1;
                               ^

select nope from e;
---
ERROR:  42703: column "nope" does not exist
LINE 1: select nope from e;
               ^
HINT:  Perhaps you meant to reference the column "e.name".

select id from e, d;
---
ERROR:  42702: column reference "id" is ambiguous
LINE 1: select id from e, d;
               ^

select * from nope;
---
ERROR:  42P01: relation "nope" does not exist
LINE 1: select * from nope;
                      ^

select nope(1);
---
ERROR:  42883: function nope(integer) does not exist
LINE 1: select nope(1);
               ^
HINT:  No function matches the given name and argument types. You might need to add explicit type casts.

select 1 + 'a'::text;
---
ERROR:  42883: operator does not exist: integer + text
LINE 1: select 1 + 'a'::text;
                 ^
HINT:  No operator matches the given name and argument types. You might need to add explicit type casts.

select e.* from e where id = 1;
---
id|name|dept|sal|boss
1|ann|1|100|
(1 row)

select e from e where id = 1;
---
e
(1,ann,1,100,)
(1 row)

select (e).name from e where id = 2;
---
name
bob
(1 row)

select id from e order by 2;
---
ERROR:  42P10: ORDER BY position 2 is not in select list
LINE 1: select id from e order by 2;
                                  ^

select sum(sum(sal)) from e group by dept;
---
ERROR:  42803: aggregate function calls cannot be nested
LINE 1: select sum(sum(sal)) from e group by dept;
                   ^

select max(id), min(id) from e; select * from e where id = 3; select name from e where id > 2 and id <= 4 order by id desc;
---
max|min
5|1
(1 row)
id|name|dept|sal|boss
3|cid|2|70|1
(1 row)
name
dee
cid
(2 rows)

prepare q (int, text) as select name from e where id = $1 or name = $2 order by 1; execute q (1, 'bob'); execute q (3, 'zzz'); deallocate q; execute q (1, 'x');
---
name
ann
bob
(2 rows)
name
cid
(1 row)
ERROR:  26000: prepared statement "q" does not exist

declare c cursor for select 1;
---
ERROR:  25P01: DECLARE CURSOR can only be used in transaction blocks

begin; declare c cursor for select id from e order by id; fetch 2 from c; fetch all from c; close c; commit;
---
id
1
2
(2 rows)
id
3
4
5
(3 rows)

table d order by id;
---
id|name
1|eng
2|ops
3|empty
(3 rows)

select current_database(), current_user, session_user, current_schema();
---
current_database|current_user|session_user|current_schema
postgres|postgres|postgres|public
(1 row)

select pg_is_in_recovery(), version() like 'PostgreSQL 15%' as v, current_setting('server_version_num')::int / 10000 as major;
---
pg_is_in_recovery|v|major
f|t|15
(1 row)
