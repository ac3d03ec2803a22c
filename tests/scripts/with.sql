# WITH and WITH RECURSIVE: what may refer to what, and what a recursive term sees in each turn.

with recursive t(n) as (values (1) union all select n+1 from t where n < 5) select sum(n) from t;
---
sum
15
(1 row)

# the inner WITH reads the working table, so it is computed in every turn
with recursive t(n) as (values (1) union all (with s as (select n+1 as n from t where n < 5) select * from s)) select * from t;
---
n
1
2
3
4
5
(5 rows)

with recursive t(n) as (values (1) union all (with s as materialized (select n+1 as n from t where n < 5) select * from s union all select * from s)) select count(*) from t;
---
count
31
(1 row)

# a WITH above the UNION is visible in both terms, and nowhere else
with recursive t(n) as (with w as (select 3 as k) select k from w union all select n+1 from t, w where n < k+4), w as (select 1 as one) select * from t, w;
---
n|one
3|1
4|1
5|1
6|1
7|1
(5 rows)

with recursive a as (select * from b), b as (select 1 as x) select * from a;
---
x
1
(1 row)

with recursive t(n) as (values (1) union select (n+1) % 4 from t) select * from t;
---
n
1
2
3
0
(4 rows)

with recursive t(i, path) as (select 1, array[row(1)] union all select i+1, path || row(i+1) from t where i < 4) select *, row(2) = any(path) as seen from t;
---
i|path|seen
1|{(1)}|f
2|{(1),(2)}|t
3|{(1),(2),(3)}|t
4|{(1),(2),(3),(4)}|t
(4 rows)

with recursive t(n) as (select n from t) select * from t;
---
ERROR:  42P19: recursive query "t" does not have the form non-recursive-term UNION [ALL] recursive-term
LINE 1: with recursive t(n) as (select n from t) select * from t;
                       ^

with recursive t(n) as (select 1 intersect select n from t) select * from t;
---
ERROR:  42P19: recursive query "t" does not have the form non-recursive-term UNION [ALL] recursive-term
LINE 1: with recursive t(n) as (select 1 intersect select n from t) ...
                       ^

with recursive t(n) as (select n from t union all select 1) select * from t;
---
ERROR:  42P19: recursive reference to query "t" must not appear within its non-recursive term
LINE 1: with recursive t(n) as (select n from t union all select 1) ...
                                              ^

with recursive t(n) as (select 1 union all select count(*)::int from t) select * from t;
---
ERROR:  42P19: aggregate functions are not allowed in a recursive query's recursive term
LINE 1: with recursive t(n) as (select 1 union all select count(*)::...
                                                          ^

with recursive t(n) as (select 1 union all select n+1 from t order by 1) select * from t;
---
ERROR:  0A000: ORDER BY in a recursive query is not implemented
LINE 1: ...as (select 1 union all select n+1 from t order by 1) select ...
                                                             ^

with recursive t(n) as (select 1 union all select n+1 from t limit 4) select * from t;
---
ERROR:  0A000: LIMIT in a recursive query is not implemented
LINE 1: ...n) as (select 1 union all select n+1 from t limit 4) select ...
                                                             ^

with recursive t(n) as (select 1 union all select n+1 from t where n in (select n from t)) select * from t;
---
ERROR:  42P19: recursive reference to query "t" must not appear within a subquery
LINE 1: ...n all select n+1 from t where n in (select n from t)) select...
                                                             ^

with recursive t(n) as (select 1 union all select t.n+1 from t, t t2) select * from t;
---
ERROR:  42P19: recursive reference to query "t" must not appear more than once
LINE 1: ... t(n) as (select 1 union all select t.n+1 from t, t t2) sele...
                                                             ^

with recursive t(n) as (select 1 union all select t.n+1 from (select 1 as n) x left join t on x.n = t.n) select * from t;
---
ERROR:  42P19: recursive reference to query "t" must not appear within an outer join
LINE 1: ...all select t.n+1 from (select 1 as n) x left join t on x.n =...
                                                             ^

with recursive t(n) as (select 1 union all (select n+1 from t intersect all select 3)) select * from t;
---
ERROR:  42P19: recursive reference to query "t" must not appear within INTERSECT
LINE 1: ...sive t(n) as (select 1 union all (select n+1 from t intersec...
                                                             ^

with recursive t(n) as (select 1 union all (select 3 except select n+1 from t)) select * from t;
---
ERROR:  42P19: recursive reference to query "t" must not appear within EXCEPT
LINE 1: ...lect 1 union all (select 3 except select n+1 from t)) select...
                                                             ^

with recursive a as (select * from b), b as (select * from a) select * from a;
---
ERROR:  0A000: mutual recursion between WITH items is not implemented
LINE 1: with recursive a as (select * from b), b as (select * from a...
                       ^

with recursive t(n) as (select 1 union all select n+1.5 from t where n < 5) select * from t;
---
ERROR:  42804: recursive query "t" column 1 has type integer in non-recursive term but type numeric overall
LINE 1: with recursive t(n) as (select 1 union all select n+1.5 from...
                                       ^
HINT:  Cast the output of the non-recursive term to the correct type.

with a as (select * from b), b as (select 1 as x) select * from a;
---
ERROR:  42P01: relation "b" does not exist
LINE 1: with a as (select * from b), b as (select 1 as x) select * f...
                                 ^
DETAIL:  There is a WITH item named "b", but it cannot be referenced from this part of the query.
HINT:  Use WITH RECURSIVE, or re-order the WITH items to remove forward references.

with a as (select 1), a as (select 2) select * from a;
---
ERROR:  42712: WITH query name "a" specified more than once
LINE 1: with a as (select 1), a as (select 2) select * from a;
                              ^

select array[row(1,2),row(3,4)] < array[row(1,3)] as less, array[row(1,2)] = array[row(1,2)] as same;
---
less|same
t|t
(1 row)
