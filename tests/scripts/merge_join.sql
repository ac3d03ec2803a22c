# Merge joins: nothing else is allowed, so that they are what runs.

create table l (id int, k int, v text);
create table r (id int, k int, v text);
insert into l select n, case when n % 11 = 0 then null else n % 20 end, 'l' || n from generate_series(1, 60) n;
insert into r select n, case when n % 7 = 0 then null else n % 13 + 5 end, 'r' || n from generate_series(1, 50) n;
analyze l, r;
set enable_hashjoin = off;
set enable_nestloop = off;
---

explain (costs off) select * from l join r on l.k = r.k;
select count(*), sum(l.id * 100 + r.id) from l join r on l.k = r.k;
---
QUERY PLAN
Merge Join
  Merge Cond: (r.k = l.k)
  ->  Sort
        Sort Key: r.k
        ->  Seq Scan on r
  ->  Sort
        Sort Key: l.k
        ->  Seq Scan on l
(8 rows)
count|sum
119|372677
(1 row)

# Every kind, duplicates and NULLs on both sides.
explain (costs off) select l.id, r.id from l full join r on l.k = r.k;
select count(*), count(l.id), count(r.id), sum(l.id), sum(r.id), sum(l.id * r.id) from l left join r on l.k = r.k;
select count(*), count(l.id), count(r.id), sum(l.id), sum(r.id), sum(l.id * r.id) from l right join r on l.k = r.k;
select count(*), count(l.id), count(r.id), sum(l.id), sum(r.id), sum(l.id * r.id) from l full join r on l.k = r.k;
select l.id, r.id, l.k, r.k from l full join r on l.k = r.k where l.id is null or r.id is null order by 1, 2;
---
QUERY PLAN
Merge Full Join
  Merge Cond: (r.k = l.k)
  ->  Sort
        Sort Key: r.k
        ->  Seq Scan on r
  ->  Sort
        Sort Key: l.k
        ->  Seq Scan on l
(8 rows)
count|count|count|sum|sum|sum
143|143|119|4417|2977|93633
(1 row)
count|count|count|sum|sum|sum
126|119|126|3697|3173|93633
(1 row)
count|count|count|sum|sum|sum
150|143|126|4417|3173|93633
(1 row)
id|id|k|k
1||1|
2||2|
3||3|
4||4|
11|||
18||18|
19||19|
20||0|
21||1|
22|||
23||3|
24||4|
33|||
38||18|
39||19|
40||0|
41||1|
42||2|
43||3|
44|||
55|||
58||18|
59||19|
60||0|
|7||
|14||
|21||
|28||
|35||
|42||
|49||
(31 rows)

# Several keys, and a condition beside them.
select count(*), sum(l.id), sum(r.id) from l join r on l.k = r.k and l.id = r.id;
select count(*), sum(l.id), sum(r.id) from l left join r on l.k = r.k and l.id = r.id;
select count(*), sum(l.id), sum(r.id) from l full join r on l.k = r.k and l.id = r.id;
select count(*), sum(l.id), sum(r.id) from l join r on l.k = r.k and l.id < r.id;
select count(*), count(r.id), sum(l.id), sum(r.id) from l left join r on l.k = r.k and l.id < r.id;
select count(*), count(l.id), sum(l.id), sum(r.id) from l right join r on l.k = r.k and l.id % 3 = 0 and r.id % 2 = 1;
select count(*), sum(a.id), sum(b.id) from l a join l b on a.k = b.k and a.id = b.k;
---
count|sum|sum
0||
(1 row)
count|sum|sum
60|1830|
(1 row)
count|sum|sum
110|1830|1275
(1 row)
count|sum|sum
48|895|1627
(1 row)
count|count|sum|sum
84|48|2223|1627
(1 row)
count|count|sum|sum
50|20|642|1275
(1 row)
count|sum|sum
50|503|1463
(1 row)

# A full join needs equalities and nothing else of both sides.
select * from l full join r on l.k < r.k;
---
ERROR:  0A000: FULL JOIN is only supported with merge-joinable or hash-joinable join conditions

# Other conditions on a full join than a merge can keep are a hash join's.
select count(*), count(l.id), count(r.id) from l full join r on l.k = r.k and l.id < r.id;
select count(*), count(l.id), count(r.id) from l full join r on false;
---
count|count|count
103|84|67
(1 row)
count|count|count
110|60|50
(1 row)

# Types: of different widths, text, expressions.
create table w (i2 int2, i8 int8, f4 float4, f8 float8, n numeric, t varchar(10), d date, b bool, u uuid);
insert into w select n, n * 2, n, n + 0.5, n / 2.0, 'l' || n, date '2020-01-01' + n, n % 2 = 0, ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid
    from generate_series(-5, 30) n;
insert into w default values;
select count(*), sum(l.id) from l join w on l.id = w.i2;
select count(*), sum(l.id) from l join w on l.id = w.i8;
select count(*), sum(a.i2) from w a join w b on a.f4 = b.f8;
select count(*), sum(a.i2) from w a join w b on a.f8 = b.f8;
select count(*), sum(a.i2) from w a join w b on a.n = b.n and a.d = b.d;
select count(*), sum(l.id) from l join w on l.v = w.t;
select count(*), sum(a.i2) from w a join w b on a.d = b.d + 3;
select count(*), sum(a.i2) from w a full join w b on a.b = b.b;
select count(*), sum(a.i2) from w a left join w b on a.u = b.u;
select count(*), sum(a.i2) from w a join w b on lower(a.t) = upper(b.t);
select count(*), sum(a.i2) from w a join w b on a.i2 + 1 = b.i8 / 2;
---
ERROR:  22P02: invalid input syntax for type uuid: "00000000-0000-0000-0000-0000000000-5"
count|sum
0|
(1 row)
count|sum
0|
(1 row)
count|sum
0|
(1 row)
count|sum
0|
(1 row)
count|sum
0|
(1 row)
count|sum
0|
(1 row)
count|sum
0|
(1 row)
count|sum
2|
(1 row)
count|sum
1|
(1 row)
count|sum
0|
(1 row)
count|sum
0|
(1 row)

# By index, forward and backward.
create table x (a int primary key, b int);
create table y (a int, b int, c int, primary key (a, b));
insert into x select n, n % 5 from generate_series(1, 2000) n;
insert into y select n % 1000, n / 1000, n from generate_series(0, 2999) n;
create index x_b on x (b desc, a);
vacuum analyze x, y;
explain (costs off) select * from x join y on x.a = y.a;
explain (costs off) select * from x join y on x.a = y.a order by x.a;
explain (costs off) select * from x join y on x.a = y.a order by y.a desc;
select count(*), sum(x.a), sum(y.c) from x join y on x.a = y.a;
select x.a, y.b from x join y on x.a = y.a order by x.a, y.b limit 4;
select x.a, y.b from x join y on x.a = y.a order by y.a desc, y.b limit 4;
select x.a, y.b from x left join y on x.a = y.a where x.a % 400 = 0 order by x.a desc, y.b;
select count(*), sum(x.a), sum(y.c) from x left join y on x.a = y.b and x.b = y.a;
select count(*), count(x.a), count(y.a) from x full join y on x.a = y.a;
select count(*), count(x.a), sum(y.c) from x right join y on x.a = y.a and x.b = y.b;
---
QUERY PLAN
Merge Join
  Merge Cond: (x.a = y.a)
  ->  Index Scan using x_pkey on x
  ->  Index Scan using y_pkey on y
(4 rows)
QUERY PLAN
Merge Join
  Merge Cond: (x.a = y.a)
  ->  Index Scan using x_pkey on x
  ->  Index Scan using y_pkey on y
(4 rows)
QUERY PLAN
Merge Join
  Merge Cond: (x.a = y.a)
  ->  Index Scan Backward using x_pkey on x
  ->  Index Scan Backward using y_pkey on y
(4 rows)
count|sum|sum
2997|1498500|4495500
(1 row)
a|b
1|0
1|1
1|2
2|0
(4 rows)
a|b
999|0
999|1
999|2
998|0
(4 rows)
a|b
2000|
1600|
1200|
800|0
800|1
800|2
400|0
400|1
400|2
(9 rows)
count|sum|sum
2000|2001000|3003
(1 row)
count|count|count
4001|3998|3000
(1 row)
count|count|sum
3000|599|4498500
(1 row)

# Of three.
select count(*), sum(x.a), sum(y.c), sum(z.b) from x join y on x.a = y.a join x z on z.a = y.a;
select count(*), sum(x.a), sum(y.c), sum(z.b) from x left join y on x.a = y.a left join x z on z.a = y.c;
select count(*) from x join (select a, count(*) as n from y group by a) y on x.a = y.a where n = 3;
select count(*), sum(n) from x left join (select k, count(*) as n from l group by k) g on g.k = x.a where x.a < 30;
with m as materialized (select * from y where b = 1) select count(*), sum(m.c) from x join m using (a);
select count(*) from x, lateral (select * from y where y.a = x.a) z;
---
count|sum|sum|sum
2997|1498500|4495500|6000
(1 row)
count|sum|sum|sum
3998|3000000|4495500|4000
(1 row)
count
999
(1 row)
count|sum
29|52
(1 row)
count|sum
999|1498500
(1 row)
count
2997
(1 row)

# Run again and again, with other values.
set enable_nestloop = on;
select n, (select count(*) from x join y on x.a = y.a and x.a > n * 900) from generate_series(0, 2) n;
prepare p (int) as select count(*), sum(c) from x join y on x.a = y.a where x.a <= $1;
execute p (10);
execute p (500);
set enable_nestloop = off;
---
n|count
0|2997
1|297
2|0
(3 rows)
count|sum
30|30165
(1 row)
count|sum
1500|1875750
(1 row)

# Rows of one key in files.
set work_mem = 64;
select count(*), sum(a.a + b.a) from x a join x b on a.b = b.b where a.a < 200;
select count(*), sum(a.c), sum(b.c), count(b.a) from y a left join y b on a.b = b.b + 1 where a.c < 1050;
create table wide as select n % 3 as k, n as id, repeat(md5(n::text), 20) as pad from generate_series(1, 1500) n;
select count(*), sum(length(a.pad)), sum(length(b.pad)), count(distinct a.id * 10000 + b.id) from wide a join wide b on a.k = b.k where a.id <= 30;
select count(*), min(length(a.pad || b.pad)) from wide a full join wide b on a.k = b.k + 1;
reset work_mem;
---
count|sum
79600|87599000
(1 row)
count|sum|sum|count
51000|51724500|24975000|50000
(1 row)
count|sum|sum|count
15000|9600000|9600000|15000
(1 row)
count|min
501000|1280
(1 row)

# Changes.
update x set b = -y.c from y where x.a = y.a and y.b = 2;
select count(*), sum(b) from x where b < 0;
delete from y using x where x.a = y.a and x.b < -2500;
select count(*), sum(c) from y;
merge into x using y on x.a = y.a and y.b = 0 when matched then update set b = y.c when not matched then insert values (y.a + 10000 * (y.b + 1), y.c);
select count(*), sum(b) from x;
explain (verbose, costs off) merge into x using y on x.a = y.c when matched then update set b = y.c when not matched then insert values (y.c, y.b);
select x.a from x join y on x.a = y.a where y.b = 0 order by x.a for update of x limit 2;
drop table l, r, w, x, y, wide;
---
count|sum
999|-2497500
(1 row)
count|sum
1503|1878750
(1 row)
count|sum
3003|508500
(1 row)
QUERY PLAN
Merge on public.x
  ->  Merge Right Join
        Output: x.ctid, y.c, y.b, y.ctid
        Merge Cond: (x.a = y.c)
        ->  Index Scan using x_pkey on public.x
              Output: x.ctid, x.a
        ->  Sort
              Output: y.c, y.b, y.ctid
              Sort Key: y.c
              ->  Seq Scan on public.y
                    Output: y.c, y.b, y.ctid
(11 rows)
a
1
2
(2 rows)
