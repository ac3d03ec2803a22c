# Errors: SQLSTATE, text, position, detail, hint.

selec 1;
---
ERROR:  42601: syntax error at or near "selec"
LINE 1: selec 1;
        ^

select * form t;
---
ERROR:  42601: syntax error at or near "form"
LINE 1: select * form t;
                 ^

select 1 +;
---
ERROR:  42601: syntax error at or near ";"
LINE 1: select 1 +;
                  ^

create table t (id int primary key, v text);
---

select id, v from t where vv = 1;
---
ERROR:  42703: column "vv" does not exist
LINE 1: select id, v from t where vv = 1;
                                  ^
HINT:  Perhaps you meant to reference the column "t.v".

select t2.id from t;
---
ERROR:  42P01: missing FROM-clause entry for table "t2"
LINE 1: select t2.id from t;
               ^

select id from t group by v;
---
ERROR:  42803: column "t.id" must appear in the GROUP BY clause or be used in an aggregate function
LINE 1: select id from t group by v;
               ^

select lower(1);
---
ERROR:  42883: function lower(integer) does not exist
LINE 1: select lower(1);
               ^
HINT:  No function matches the given name and argument types. You might need to add explicit type casts.

select length();
---
ERROR:  42883: function length() does not exist
LINE 1: select length();
               ^
HINT:  No function matches the given name and argument types. You might need to add explicit type casts.

select no_such_function(1, 'a');
---
ERROR:  42883: function no_such_function(integer, unknown) does not exist
LINE 1: select no_such_function(1, 'a');
               ^
HINT:  No function matches the given name and argument types. You might need to add explicit type casts.

select 'a' + 1;
---
ERROR:  22P02: invalid input syntax for type integer: "a"
LINE 1: select 'a' + 1;
               ^

select 1 = 'a';
---
ERROR:  22P02: invalid input syntax for type integer: "a"
LINE 1: select 1 = 'a';
                   ^

select 1 = true;
---
ERROR:  42883: operator does not exist: integer = boolean
LINE 1: select 1 = true;
                 ^
HINT:  No operator matches the given name and argument types. You might need to add explicit type casts.

insert into t values (1, 'a', 'b');
---
ERROR:  42601: INSERT has more expressions than target columns
LINE 1: insert into t values (1, 'a', 'b');
                                      ^

insert into t (id, id) values (1, 2);
---
ERROR:  42701: column "id" specified more than once
LINE 1: insert into t (id, id) values (1, 2);
                           ^

select count(*) from t where sum(id) > 1;
---
ERROR:  42803: aggregate functions are not allowed in WHERE
LINE 1: select count(*) from t where sum(id) > 1;
                                     ^

select (select 1, 2);
---
ERROR:  42601: subquery must return only one column
LINE 1: select (select 1, 2);
               ^

select (select generate_series(1, 2));
---
ERROR:  21000: more than one row returned by a subquery used as an expression

select * from t where id = (select id, v from t);
---
ERROR:  42601: subquery must return only one column
LINE 1: select * from t where id = (select id, v from t);
                                   ^

select case when true then 1 else 'x' end;
---
ERROR:  22P02: invalid input syntax for type integer: "x"
LINE 1: select case when true then 1 else 'x' end;
                                          ^

select 1 union select 'a';
---
ERROR:  22P02: invalid input syntax for type integer: "a"
LINE 1: select 1 union select 'a';
                              ^

select 1, 2 union select 1;
---
ERROR:  42601: each UNION query must have the same number of columns
LINE 1: select 1, 2 union select 1;
                                 ^

select array[1, 'a'];
---
ERROR:  22P02: invalid input syntax for type integer: "a"
LINE 1: select array[1, 'a'];
                        ^

select substring('a', 1, -1);
---
ERROR:  22011: negative substring length not allowed

select cast('2024-02-30' as date);
---
ERROR:  22008: date/time field value out of range: "2024-02-30"
LINE 1: select cast('2024-02-30' as date);
                    ^

select * from t limit -1;
---
ERROR:  2201W: LIMIT must not be negative

select * from t order by 5;
---
ERROR:  42P10: ORDER BY position 5 is not in select list
LINE 1: select * from t order by 5;
                                 ^

select distinct on (v) id from t order by id;
---
ERROR:  42P10: SELECT DISTINCT ON expressions must match initial ORDER BY expressions
LINE 1: select distinct on (v) id from t order by id;
                            ^

update t set id = 'x';
---
ERROR:  22P02: invalid input syntax for type integer: "x"
LINE 1: update t set id = 'x';
                          ^

drop table nosuch;
---
ERROR:  42P01: table "nosuch" does not exist

drop view t;
---
ERROR:  42809: "t" is not a view
HINT:  Use DROP TABLE to remove a table.

alter table t drop column nope;
---
ERROR:  42703: column "nope" of relation "t" does not exist

alter table t add column id int;
---
ERROR:  42701: column "id" of relation "t" already exists

create index i on t (nope);
---
ERROR:  42703: column "nope" does not exist

create table "select" (a int); select * from "select"; drop table "select";
---
a
(0 rows)

select $1;
---
ERROR:  42P02: there is no parameter $1
LINE 1: select $1;
               ^

execute nosuch;
---
ERROR:  26000: prepared statement "nosuch" does not exist

set role nosuch;
---
ERROR:  22023: role "nosuch" does not exist

select "No Such Column" from t;
---
ERROR:  42703: column "No Such Column" does not exist
LINE 1: select "No Such Column" from t;
               ^

select 1 as "A", 2 as a;
---
A|a
1|2
(1 row)

grant nosuch to postgres;
---
ERROR:  42704: role "nosuch" does not exist

-- The transaction that a statement is begins with it.
select xact_start = query_start as same from pg_stat_activity where pid = pg_backend_pid();
---
same
t
(1 row)
