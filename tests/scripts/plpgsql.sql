# DO, functions in PL/pgSQL and SQL, procedures.

create table t (id int primary key, v text);
---

do $$ declare x int := 0; begin for i in 1..5 loop x := x + i; insert into t values (i, 'v' || i); end loop; raise notice 'sum %', x; end $$;
---
NOTICE:  00000: sum 15

select * from t order by 1;
---
id|v
1|v1
2|v2
3|v3
4|v4
5|v5
(5 rows)

do $$ declare r record; n int := 0; begin for r in select * from t order by id desc loop n := n + r.id; continue when r.id = 3; raise notice '% %', r.id, r.v; exit when r.id = 2; end loop; raise notice 'n=% found=%', n, found; end $$;
---
NOTICE:  00000: 5 v5
NOTICE:  00000: 4 v4
NOTICE:  00000: 2 v2
NOTICE:  00000: n=14 found=t

do $$ begin insert into t values (1, 'dup'); exception when unique_violation then raise notice 'caught % %', sqlstate, sqlerrm; end $$;
---
NOTICE:  00000: caught 23505 duplicate key value violates unique constraint "t_pkey"

do $$ begin begin insert into t values (100, 'x'); perform 1/0; exception when division_by_zero then raise notice 'dz'; end; raise notice '%', (select count(*) from t where id=100); end $$;
---
NOTICE:  00000: dz
NOTICE:  00000: 0

do $$ begin perform nosuch(1); end $$;
---
ERROR:  42883: function nosuch(integer) does not exist
LINE 1: SELECT nosuch(1)
               ^
HINT:  No function matches the given name and argument types. You might need to add explicit type casts.
QUERY:  SELECT nosuch(1)

do $$ begin select * from nosuch; end $$;
---
ERROR:  42P01: relation "nosuch" does not exist
LINE 1: select * from nosuch
                      ^
QUERY:  select * from nosuch

do $$ begin select 1; end $$;
---
ERROR:  42601: query has no destination for result data
HINT:  If you want to discard the results of a SELECT, use PERFORM instead.

do $$ declare y text; begin select v into y from t where id = 2; raise notice 'y=%', y; select v into strict y from t where id = 999; end $$;
---
NOTICE:  00000: y=v2
ERROR:  P0002: query returned no rows

do $$ declare y text; begin execute 'select v from t where id = $1' into y using 3; raise notice '%', y; execute 'create table dyn (a int)'; execute 'insert into dyn values (7)'; insert into dyn values (8); raise notice 'dyn %', (select sum(a) from dyn); drop table dyn; end $$;
---
NOTICE:  00000: v3
NOTICE:  00000: dyn 15

do $$ begin raise exception 'boom %', 42 using errcode = 'U0001', hint = 'do not', detail = 'det'; end $$;
---
ERROR:  U0001: boom 42
DETAIL:  det
HINT:  do not

do $$ begin raise division_by_zero; end $$;
---
ERROR:  22012: division_by_zero

do $$ begin raise sqlstate '22012' using message = 'mine'; end $$;
---
ERROR:  22012: mine

do $$ begin if x then end if; end $$;
---
ERROR:  42703: column "x" does not exist
LINE 1: x
        ^
QUERY:  x

do $$ begin y := 1; end $$;
---
ERROR:  42601: "y" is not a known variable
LINE 1: do $$ begin y := 1; end $$;
                    ^

do $$ declare a int[] := '{1,2,3}'; s int := 0; e int; begin a[2] := 20; foreach e in array a loop s := s + e; end loop; raise notice '% %', a, s; end $$;
---
NOTICE:  00000: {1,20,3} 24

do $$ declare i int := 0; begin while i < 3 loop i := i + 1; end loop; loop i := i + 1; exit when i > 10; end loop; raise notice '%', i; case i when 1 then raise notice 'one'; when 11, 12 then raise notice 'eleven'; else raise notice 'other'; end case; end $$;
---
NOTICE:  00000: 11
NOTICE:  00000: eleven

do $$ <<b>> declare id int := 3; n int; begin select count(*) into n from t where t.id = b.id; raise notice '%', n; select count(*) into n from t where id = id; end $$;
---
NOTICE:  00000: 1
ERROR:  42702: column reference "id" is ambiguous
LINE 1: select count(*)        from t where id = id
                                            ^
DETAIL:  It could refer to either a PL/pgSQL variable or a table column.
QUERY:  select count(*)        from t where id = id

do $$ declare c cursor (k int) for select * from t where id > k order by id; r record; begin open c(2); fetch c into r; raise notice '%', r; close c; for r in c(3) loop raise notice '%', r.v; end loop; end $$;
---
NOTICE:  00000: (3,v3)
NOTICE:  00000: v4
NOTICE:  00000: v5

do $$ declare n bigint; begin update t set v = 'z' where id > 3; get diagnostics n = row_count; raise notice '% %', n, found; update t set v = 'z' where id > 300; raise notice '%', found; end $$;
---
NOTICE:  00000: 2 t
NOTICE:  00000: f

do $$ declare v varchar(3) := 'abcdef'; begin end $$;
---
ERROR:  22001: value too long for type character varying(3)

do $$ declare v int not null := 1; begin v := null; end $$;
---
ERROR:  22004: null value cannot be assigned to variable "v" declared NOT NULL

do $$ declare v constant int := 1; begin v := 2; end $$;
---
ERROR:  22005: variable "v" is declared CONSTANT
LINE 1: do $$ declare v constant int := 1; begin v := 2; end $$;
                                                 ^

do $$ declare r t%rowtype; x t.id%type := 5; begin select * into r from t where id = x; raise notice '% %', r, r.v; r.v := 'new'; insert into t values (50, r.v); insert into t values (r.id + 60, r.v); end $$;
---
NOTICE:  00000: (5,z) z

select * from t order by id;
---
id|v
1|v1
2|v2
3|v3
4|z
5|z
50|new
65|new
(7 rows)

do $$ begin begin raise exception 'a'; exception when others then raise; end; end $$;
---
ERROR:  P0001: a

do $$ declare s text; c text; begin perform 1/0; exception when others then get stacked diagnostics s = returned_sqlstate, c = message_text; raise notice '% %', s, c; end $$;
---
NOTICE:  00000: 22012 division by zero

create function f(n int) returns int language plpgsql as $$ begin if n <= 1 then return 1; end if; return n * f(n - 1); end $$;
---

select f(5), f(10);
---
f|f
120|3628800
(1 row)

create function f(n int) returns int language plpgsql as $$ begin return 1; end $$;
---
ERROR:  42723: function "f" already exists with same argument types

create or replace function f(n int, m int default 3) returns text language sql as 'select n::text || m';
---

drop function f(int, int);
---

select f(n => 4);
---
f
24
(1 row)

create function g(a int, out b int, out c text) language plpgsql as $$ begin b := a + 1; c := 'x' || a; end $$;
---

select g(1); select * from g(2);
---
g
(2,x1)
(1 row)
b|c
3|x2
(1 row)

create function h(n int) returns setof int language plpgsql as $$ begin for i in 1..n loop return next i; end loop; return query select n * 10; return; end $$;
---

select * from h(3); select h(2);
---
h
1
2
3
30
(4 rows)
h
1
2
20
(3 rows)

create function tb(n int) returns table (x int, y text) language plpgsql as $$ begin return query select id, v from t where id <= n order by id; end $$;
---

select * from tb(2); select y from tb(3) where x > 1;
---
x|y
1|v1
2|v2
(2 rows)
y
v2
v3
(2 rows)

create function s1(a int) returns int language sql immutable as $$ select a * 2 $$;
---

select s1(21), s1(id) from t where id < 3 order by 1,2;
---
s1|s1
42|2
42|4
(2 rows)

create function vd() returns void language plpgsql as $$ begin perform 1; end $$;
---

select vd();
---
vd
(1 row)

create function nr() returns int language plpgsql as $$ begin end $$;
---

select nr();
---
ERROR:  2F005: control reached end of function without RETURN

create procedure p(a int) language plpgsql as $$ begin insert into t values (a, 'p'); end $$;
---

call p(1000); select * from t where id = 1000;
---
id|v
1000|p
(1 row)

call f(1);
---
ERROR:  42809: f(integer) is not a procedure
LINE 1: call f(1);
             ^
HINT:  To call a function, use SELECT.

select p(1);
---
ERROR:  42809: p(integer) is a procedure
LINE 1: select p(1);
               ^
HINT:  To call a procedure, use CALL.

create procedure p2(inout a int) language plpgsql as $$ begin a := a * 2; end $$;
---

call p2(21);
---
a
42
(1 row)

select pg_get_functiondef('f(int)'::regprocedure);
---
pg_get_functiondef
CREATE OR REPLACE FUNCTION public.f(n integer)
 RETURNS integer
 LANGUAGE plpgsql
AS $function$ begin if n <= 1 then return 1; end if; return n * f(n - 1); end $function$
(1 row)

create function bad() returns int language plpgsql as $$ begin return 1 end $$;
---
ERROR:  42601: syntax error at end of input
LINE 1: ...() returns int language plpgsql as $$ begin return 1 end $$;
                                                                    ^

create function bad() returns nosuch language plpgsql as $$ begin return 1; end $$;
---
ERROR:  42704: type "nosuch" does not exist

create function bad() returns int language nosuch as $$ begin return 1; end $$;
---
ERROR:  42704: language "nosuch" does not exist

drop function nosuch(int);
---
ERROR:  42883: function nosuch(integer) does not exist

drop function f, g, h;
---

do $$ begin for i in 1..3 loop begin insert into t values (2000 + i, 'k'); if i = 2 then raise exception 'undo'; end if; exception when raise_exception then null; end; end loop; end $$;
---

select id from t where id > 2000 order by 1;
---
id
2001
2003
(2 rows)

begin; do $$ begin insert into t values (3000, ''); end $$; rollback; select count(*) from t where id = 3000;
---
count
0
(1 row)

do language plpgsql 'begin null; end';
---

do $$ begin raise notice 'a % b %% c %', 1, 'x'; raise info 'i'; raise warning 'w'; raise log 'l'; raise debug 'd'; end $$;
---
NOTICE:  00000: a 1 b % c x
INFO:  00000: i
WARNING:  01000: w

do $$ begin assert 1 = 2, 'no'; end $$;
---
ERROR:  P0004: no

CREATE OR REPLACE FUNCTION hs_subxids (n integer) RETURNS void LANGUAGE plpgsql AS $$ BEGIN IF n <= 0 THEN RETURN; END IF; INSERT INTO t VALUES (n+5000); PERFORM hs_subxids(n - 1); RETURN; EXCEPTION WHEN raise_exception THEN NULL; END; $$;
---

BEGIN; SELECT hs_subxids(127); COMMIT; select count(*) from t where id > 5000;
---
hs_subxids
(1 row)
count
127
(1 row)

delete from t where id > 5000;
---

BEGIN; SELECT hs_subxids(201); COMMIT; select count(*) from t where id > 5000;
---
hs_subxids
(1 row)
count
201
(1 row)

create function af(int) returns int language sql as 'select $1'; create schema afs; alter function af(int) rename to ag; select ag(3); alter function ag(int) set schema afs; select afs.ag(4); alter function afs.ag owner to current_user;
---
ag
3
(1 row)
ag
4
(1 row)

create function ag(int) returns int language sql as 'select 0'; alter function afs.ag(int) set schema public; alter function ag(int) rename to ag; alter function nosuch() rename to x; alter procedure ag(int) owner to current_user;
---
ERROR:  42723: function ag(integer) already exists in schema "public"
ERROR:  42723: function ag(integer) already exists in schema "public"
ERROR:  42883: function nosuch() does not exist
ERROR:  42809: ag(integer) is not a procedure

drop function ag, afs.ag; drop schema afs;
---

# Who catches a cancel goes on
do $$ begin perform pg_cancel_backend(pg_backend_pid()); perform pg_sleep(60); exception when query_canceled then raise notice 'caught: %', sqlerrm; perform 1; end $$;
---
NOTICE:  00000: caught: canceling statement due to user request

do $$ begin perform pg_cancel_backend(pg_backend_pid()); perform pg_sleep(60); exception when others then raise notice 'caught: %', sqlerrm; end $$;
---
ERROR:  57014: canceling statement due to user request

# Expressions, simple ones and others
create function twice(n int) returns int volatile language plpgsql as 'begin return n * 2; end'; create table log_of (n int); create function logs(n int) returns int volatile language plpgsql as 'begin insert into log_of values (n); return (select count(*) from log_of); end'; create table pair (a int, b text);
---

create function expressions(x int, a int[], p pair, t text default null) returns setof text language plpgsql as $$ declare y numeric := x; r record; s pair := p; d date := '2020-02-29'; c char(3) := 'ab'; m int; begin return next x + 1; return next x / 2.0; return next a[2]; return next a[5] is null; return next a[1:2]::text; return next p.a + 1; return next p.b || '!'; return next t is null; return next coalesce(t, p.b, 'none'); return next case x when 3 then 'three' when 4 then 'four' end; return next case when x > 3 then 'more' else 'less' end; return next y * 1.50; return next greatest(x, a[1], null); return next nullif(x, 3) is null; return next d + 1; return next c || '|'; return next twice(x) + 1; return next logs(x); return next logs(x) + logs(x); select 7 as i, 'seven' as v into r; return next r.i * x; return next r.v; s.a := s.a + x; return next s.a; select 'eight' as i, 8 as v into r; return next r.i; return next r.v * x; m := x; m := m + a[m]; return next m; a[2] := a[2] * 10; return next a; return next x in (1, 2, 3); return next x = any (a); return next array[x, m]; return next x between 1 and 5 and not x = 4; return next row(x, t) is null; return next (p is null)::text; return next x is distinct from null; end $$;
---

select * from expressions(3, array[1, 2, 30], row(5, 'five'));
---
expressions
4
1.5000000000000000
2
true
{1,2}
6
five!
true
five
three
less
4.50
3
true
2020-03-01
ab|
7
1
5
21
seven
8
eight
24
33
{1,20,30}
true
false
{3,33}
true
false
false
true
(33 rows)

do $$ declare i int := 2147483647; begin i := i + 1; end $$;
---
ERROR:  22003: integer out of range

do $$ declare n int := 0; begin while n < 3 loop n := n + 1; begin n := n + 0 / (2 - n); exception when division_by_zero then n := n + 10; end; end loop; raise notice '%', n; end $$;
---
NOTICE:  00000: 12

do $$ declare r record; begin for r in select 1 as v, 'a' as w loop raise notice '% %', r.v, r.w || r.v; end loop; for r in select 'x' as w loop raise notice '%', r.w; end loop; end $$;
---
NOTICE:  00000: 1 a1
NOTICE:  00000: x

drop function expressions, twice, logs; drop table pair, log_of;
---
