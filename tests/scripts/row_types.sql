# Row types of tables: as types of columns, arguments, results and variables; what depends on them.
create table t (id int, v text); insert into t values (1, 'abc'), (2, null), (3, 'x, "y"');
---

select typname, typtype, typcategory, typrelid = 't'::regclass as own, typnamespace::regnamespace from pg_type where oid = (select reltype from pg_class where oid = 't'::regclass);
---
typname|typtype|typcategory|own|typnamespace
t|c|C|t|public
(1 row)

select pg_typeof(t), t from t order by id;
---
pg_typeof|t
t|(1,abc)
t|(2,)
t|(3,"x, ""y""")
(3 rows)

select (t).id, (t).v, (t).* from t order by id;
---
id|v|id|v
1|abc|1|abc
2||2|
3|x, "y"|3|x, "y"
(3 rows)

select row(5, 'five')::t, (row(5, 'five')::t).v, '(6,six)'::t, ('(7,"a ""b""")'::t).v, (null::t).id, pg_typeof('(1,)'::t);
---
row|v|t|v|id|pg_typeof
(5,five)|five|(6,six)|a "b"||t
(1 row)

select row(1)::t;
---
ERROR:  42846: cannot cast type record to t
LINE 1: select row(1)::t;
                     ^
DETAIL:  Input has too few columns.

select row(1, 2, 3)::t;
---
ERROR:  42846: cannot cast type record to t
LINE 1: select row(1, 2, 3)::t;
                           ^
DETAIL:  Input has too many columns.

select row('no', 2)::t;
---
ERROR:  22P02: invalid input syntax for type integer: "no"
LINE 1: select row('no', 2)::t;
                   ^

select '(1)'::t;
---
ERROR:  22P02: malformed record literal: "(1)"
LINE 1: select '(1)'::t;
               ^
DETAIL:  Too few columns.

select (row(1, 'a')::t).nothing;
---
ERROR:  42703: column "nothing" not found in data type t
LINE 1: select (row(1, 'a')::t).nothing;
                           ^

select t = row(1, 'abc')::t as eq, t < '(2,)'::t as lt, t is null as n, t is not null as nn from t order by t desc;
---
eq|lt|n|nn
f|f|f|t
f|f|f|f
t|t|f|t
(3 rows)

select distinct (t).id % 2 as odd, row(1, 'a')::t = row(1, 'a')::t as same from t order by 1;
---
odd|same
0|t
1|t
(2 rows)

create function name_of(r t) returns text language sql as $$ select coalesce(r.v, '#' || $1.id) $$;
---

select name_of(t) from t order by id;
---
name_of
abc
#2
x, "y"
(3 rows)

select name_of(row(9, null)), name_of('(8,eight)'), name_of(null);
---
name_of|name_of|name_of
#9|eight|
(1 row)

create function made(n int) returns t language sql as $$ select n, 'made ' || n $$;
---

select made(4), (made(5)).v; select * from made(6);
---
made|v
(4,"made 4")|made 5
(1 row)
id|v
6|made 6
(1 row)

create function several() returns setof t language sql as $$ select * from t order by id $$;
---

select * from several(); select name_of(s) from several() s;
---
id|v
1|abc
2|
3|x, "y"
(3 rows)
name_of
abc
#2
x, "y"
(3 rows)

create function twice(r t) returns t language plpgsql as $$ declare s t; u t%rowtype; begin s := r; s.id := s.id * 2; u := s; u.v := u.v || '!'; return u; end $$;
---

select twice(t) from t order by id; select twice(row(10, 'ten')), (twice(made(3))).id;
---
twice
(2,abc!)
(4,)
(6,"x, ""y""!")
(3 rows)
twice|id
(20,ten!)|6
(1 row)

create function rows_of(n int) returns setof t language plpgsql as $$ declare r t; begin for r in select * from t order by id limit n loop return next r; end loop; return query select n, 'end'; r := row(7, 'seven'); return next r; end $$;
---

select * from rows_of(2);
---
id|v
1|abc
2|
2|end
7|seven
(4 rows)

do $$ declare r t; begin select * into r from t where id = 3; raise notice '% %', r, name_of(r); r := '(5,text)'; raise notice '%', r.v; end $$;
---
NOTICE:  00000: (3,"x, ""y""") x, "y"
NOTICE:  00000: text

# A column of a row type.
create table holds (n int primary key, r t, w t); insert into holds values (1, row(1, 'one'), row(0, 'none')); insert into holds values (2, null, '(2,two)'); insert into holds values (3, (select t from t where id = 3), row(null, null));
---

select n, r, w, (r).v, (w).id, r is null as rn, w is null as wn from holds order by n;
---
n|r|w|v|id|rn|wn
1|(1,one)|(0,none)|one|0|f|f
2||(2,two)||2|t|f
3|(3,"x, ""y""")|(,)|x, "y"||f|t
(3 rows)

update holds set r = row(4, 'four') where (r).id = 1 returning n, (r).*;
---
n|id|v
1|4|four
(1 row)

insert into holds values (4, row('x', 1));
---
ERROR:  22P02: invalid input syntax for type integer: "x"
LINE 1: insert into holds values (4, row('x', 1));
                                         ^

insert into holds values (4, 5);
---
ERROR:  42804: column "r" is of type t but expression is of type integer
LINE 1: insert into holds values (4, 5);
                                     ^
HINT:  You will need to rewrite or cast the expression.

select n, (r).v from holds where r = row(4, 'four')::t; select r, count(*) from holds group by r order by r;
---
n|v
1|four
(1 row)
r|count
(3,"x, ""y""")|1
(4,four)|1
|1
(3 rows)

select n from holds where r = '(4,four)';
---
ERROR:  0A000: input of anonymous composite types is not implemented
LINE 1: select n from holds where r = '(4,four)';
                                      ^

\d holds
---
Table "public.holds"
Column|Type|Collation|Nullable|Default
n|integer||not null|
r|t|||
w|t|||
Indexes:
    "holds_pkey" PRIMARY KEY, btree (n)

# Columns come and go.
alter table t add column extra int default 7;
---
ERROR:  0A000: cannot alter table "t" because column "holds.r" uses its row type

alter table t add column extra int; select n, r, (r).extra, w from holds order by n;
---
n|r|extra|w
1|(4,four,)||(0,none,)
2|||(2,two,)
3|(3,"x, ""y""",)||(,,)
(3 rows)

insert into holds values (5, row(5, 'five', 55)); insert into holds values (6, row(6, 'six', null)); select n, r, (r).extra from holds where n >= 5 order by n;
---
n|r|extra
5|(5,five,55)|55
6|(6,six,)|
(2 rows)

insert into holds values (7, row(7, 'seven'));
---
ERROR:  42846: cannot cast type record to t
LINE 1: insert into holds values (7, row(7, 'seven'));
                                     ^
DETAIL:  Input has too few columns.

select twice(t), name_of(t) from t order by id;
---
twice|name_of
(2,abc!,)|abc
(4,,)|#2
(6,"x, ""y""!",)|x, "y"
(3 rows)

alter table t drop column v; select n, r, (r).*, r is null as isnull from holds order by n;
---
n|r|id|extra|isnull
1|(4,)|4||f
2||||t
3|(3,)|3||f
5|(5,55)|5|55|f
6|(6,)|6||f
(5 rows)

select t, t = row(1, 7)::t as same, t is not null as whole from t order by id;
---
t|same|whole
(1,)|f|f
(2,)|f|f
(3,)|f|f
(3 rows)

select row(8, 80)::t, '(9,90)'::t;
---
row|t
(8,80)|(9,90)
(1 row)

drop function made, name_of, several; alter table t add column v2 text; select r from holds order by n;
---
r
(4,,)
(3,,)
(5,55,)
(6,,)
(5 rows)

alter table t alter column id type bigint;
---
ERROR:  0A000: cannot alter table "t" because column "holds.r" uses its row type

alter table t add column own t;
---
ERROR:  42P16: composite type t cannot be made a member of itself

alter table t add column h holds;
---
ERROR:  42P16: composite type t cannot be made a member of itself

# What needs the type.
drop table t;
---
ERROR:  2BP01: cannot drop table t because other objects depend on it
DETAIL:  function twice(t) depends on type t
function rows_of(integer) depends on type t
column w of table holds depends on type t
column r of table holds depends on type t
HINT:  Use DROP ... CASCADE to drop the dependent objects too.

drop table t cascade;
---
NOTICE:  00000: drop cascades to 4 other objects
DETAIL:  drop cascades to function twice(t)
drop cascades to function rows_of(integer)
drop cascades to column w of table holds
drop cascades to column r of table holds

\d holds
---
Table "public.holds"
Column|Type|Collation|Nullable|Default
n|integer||not null|
Indexes:
    "holds_pkey" PRIMARY KEY, btree (n)

\df twice
---
List of functions
Schema|Name|Result data type|Argument data types|Type
(0 rows)

create table a (x int); create function uses_a(a) returns int language sql as 'select 1'; create function gives_a() returns a language sql as 'select 1';
---

drop table a;
---
ERROR:  2BP01: cannot drop table a because other objects depend on it
DETAIL:  function uses_a(a) depends on type a
function gives_a() depends on type a
HINT:  Use DROP ... CASCADE to drop the dependent objects too.

begin; drop table a cascade; rollback; select uses_a(row(1)), gives_a();
---
NOTICE:  00000: drop cascades to 2 other objects
DETAIL:  drop cascades to function uses_a(a)
drop cascades to function gives_a()
uses_a|gives_a
1|(1)
(1 row)

alter table a rename to b; select pg_get_function_identity_arguments('uses_a'::regproc), pg_typeof(gives_a()), 'b'::regtype;
---
pg_get_function_identity_arguments|pg_typeof|regtype
b|b|b
(1 row)

create schema elsewhere; create table elsewhere.a (y text); alter table b set schema elsewhere; select uses_a(row(1)), 'elsewhere.b'::regtype, row('y')::elsewhere.a;
---
uses_a|regtype|row
1|elsewhere.b|(y)
(1 row)

drop function uses_a, gives_a; drop table elsewhere.b; drop schema elsewhere cascade;
---
NOTICE:  00000: drop cascades to table elsewhere.a

create temp table tt (id int); create function over_temp(tt) returns int language sql as 'select 1'; select over_temp(row(1)); discard temp; select count(*) from pg_proc where proname = 'over_temp';
---
over_temp
1
(1 row)
count
0
(1 row)

create view seen as select 1 as a, 'x'::text as b; select row(2, 'y')::seen, seen from seen;
---
row|seen
(2,y)|(1,x)
(1 row)

select 'nothing_like_it'::regtype;
---
ERROR:  42704: type "nothing_like_it" does not exist
LINE 1: select 'nothing_like_it'::regtype;
               ^

create table wrong (a nothing_like_it);
---
ERROR:  42704: type "nothing_like_it" does not exist
LINE 1: create table wrong (a nothing_like_it);
                              ^

# What is unknown on one side of a comparison is what the other side is
create table keyset (id int, d date); insert into keyset values (1, '2020-01-01'), (1, '2020-01-02'), (2, '2020-01-01'); select * from keyset where (id, d) > (1, '2020-01-01') order by id, d;
---
id|d
1|2020-01-02
2|2020-01-01
(2 rows)

prepare after as select * from keyset where (id, d) > ($1, $2) order by id, d limit 1; execute after (1, '2020-01-02');
---
id|d
2|2020-01-01
(1 row)

select (1, '2020-01-01') < (1, current_date), (1, date '2020-01-01') in ((1, '2020-01-01'), (2, '2020-01-01')), (1, date '2020-01-01') between (1, '2019-12-31') and (1, '2020-01-01'), (1, date '2020-01-01') is distinct from (1, '2020-01-01'), (1, '2020-01-01') in (select * from keyset), (1, '2020-01-01') = (select id, d from keyset limit 1);
---
?column?|?column?|?column?|?column?|?column?|?column?
t|t|t|f|t|t
(1 row)

select ('a', 1) = ('a', 1), ('a', null) = ('b', null), (1, 'x') = (1, date '2020-01-01');
---
ERROR:  22007: invalid input syntax for type date: "x"
LINE 1: ...a', 1) = ('a', 1), ('a', null) = ('b', null), (1, 'x') = (1,...
                                                             ^

deallocate after; drop table keyset;
---
