# Cursors: forward and back, SCROLL and NO SCROLL, WITH HOLD.
create table c (id int primary key, v text); insert into c select i, 'v' || i from generate_series(1, 10) i;
---

begin; declare a scroll cursor for select * from c order by id;
---

fetch 2 from a; fetch next from a; fetch prior from a; fetch relative 0 from a; fetch first from a; fetch last from a; fetch next from a; fetch prior from a;
---
id|v
1|v1
2|v2
(2 rows)
id|v
3|v3
(1 row)
id|v
2|v2
(1 row)
id|v
2|v2
(1 row)
id|v
1|v1
(1 row)
id|v
10|v10
(1 row)
id|v
(0 rows)
id|v
10|v10
(1 row)

fetch absolute 4 from a; fetch absolute -3 from a; fetch absolute 0 from a; fetch absolute 99 from a; fetch backward 2 from a; fetch relative -3 from a; fetch relative 2 from a; fetch absolute -99 from a; fetch forward 1 from a;
---
id|v
4|v4
(1 row)
id|v
8|v8
(1 row)
id|v
(0 rows)
id|v
(0 rows)
id|v
10|v10
9|v9
(2 rows)
id|v
6|v6
(1 row)
id|v
8|v8
(1 row)
id|v
(0 rows)
id|v
1|v1
(1 row)

fetch backward all from a; fetch forward all from a; fetch backward 3 from a; fetch forward -2 from a; fetch backward -2 from a;
---
id|v
(0 rows)
id|v
1|v1
2|v2
3|v3
4|v4
5|v5
6|v6
7|v7
8|v8
9|v9
10|v10
(10 rows)
id|v
10|v10
9|v9
8|v8
(3 rows)
id|v
7|v7
6|v6
(2 rows)
id|v
7|v7
8|v8
(2 rows)

move absolute 5 from a; fetch 0 from a; move 2 from a; move backward all from a; move last from a; move relative 0 from a; move forward all from a; move first from a; move 0 from a; fetch from a;
---
id|v
5|v5
(1 row)
id|v
2|v2
(1 row)

# What is inserted later is not seen.
insert into c values (11, 'late'); fetch last from a; declare b cursor for select id from c order by id; fetch last from b; insert into c values (12, 'later'); fetch all from b; fetch last from b;
---
id|v
10|v10
(1 row)
id
11
(1 row)
id
(0 rows)
id
11
(1 row)

# Without SCROLL it depends on the plan.
declare plain cursor for select id from c; fetch 3 from plain; fetch backward 2 from plain; fetch forward 2 from plain; fetch absolute 2 from plain; close plain; close a; close b;
---
id
1
2
3
(3 rows)
id
2
1
(2 rows)
id
2
3
(2 rows)
id
2
(1 row)

declare agg cursor for select count(*) from c; fetch agg; savepoint s; fetch backward 1 from agg;
---
count
12
(1 row)
ERROR:  55000: cursor can only scan forward
HINT:  Declare it with SCROLL option to enable backward scan.

rollback; begin; declare agg scroll cursor for select v, count(*) from c group by v order by v; fetch all from agg; fetch backward 2 from agg; fetch absolute 1 from agg; rollback;
---
v|count
v1|1
v10|1
v2|1
v3|1
v4|1
v5|1
v6|1
v7|1
v8|1
v9|1
(10 rows)
v|count
v9|1
v8|1
(2 rows)
v|count
v1|1
(1 row)

begin; declare n no scroll cursor for select id from c order by id; fetch 3 from n; fetch absolute 5 from n; fetch relative 2 from n; move 1 from n; fetch next from n; fetch absolute 3 from n;
---
id
1
2
3
(3 rows)
id
5
(1 row)
id
7
(1 row)
id
9
(1 row)
ERROR:  55000: cursor can only scan forward
HINT:  Declare it with SCROLL option to enable backward scan.

rollback; begin; declare n no scroll cursor for select id from c order by id; fetch prior from n;
---
ERROR:  55000: cursor can only scan forward
HINT:  Declare it with SCROLL option to enable backward scan.

rollback; begin; declare n no scroll cursor for select id from c; fetch n; fetch 0 from n;
---
id
1
(1 row)
ERROR:  55000: cursor can only scan forward
HINT:  Declare it with SCROLL option to enable backward scan.

rollback; begin; declare u cursor for select * from c for update; fetch u; fetch prior from u;
---
id|v
1|v1
(1 row)
ERROR:  55000: cursor can only scan forward
HINT:  Declare it with SCROLL option to enable backward scan.

rollback;
---

declare x cursor for select 1;
---
ERROR:  25P01: DECLARE CURSOR can only be used in transaction blocks

begin; declare x scroll cursor for select * from c for update;
---
ERROR:  0A000: DECLARE SCROLL CURSOR ... FOR UPDATE is not supported
DETAIL:  Scrollable cursors must be READ ONLY.

rollback; declare x cursor with hold for select * from c for share;
---
ERROR:  0A000: DECLARE CURSOR WITH HOLD ... FOR SHARE is not supported
DETAIL:  Holdable cursors must be READ ONLY.

begin; declare x insensitive cursor for select * from c for no key update;
---
ERROR:  42P11: DECLARE INSENSITIVE CURSOR ... FOR NO KEY UPDATE is not valid
DETAIL:  Insensitive cursors must be READ ONLY.

rollback; begin; declare x cursor for with w as (insert into c values (50, 'w') returning id) select * from w;
---
ERROR:  0A000: DECLARE CURSOR must not contain data-modifying statements in WITH

rollback; begin; declare x scroll no scroll cursor for select 1;
---
ERROR:  42P11: cannot specify both SCROLL and NO SCROLL

rollback;
---

# WITH HOLD: outside a block, and at the end of one.
declare h cursor with hold for select * from c where id > 7 order by id; fetch 2 from h; fetch 1 from h; fetch prior from h; delete from c where id = 10; fetch all from h;
---
id|v
8|v8
9|v9
(2 rows)
id|v
10|v10
(1 row)
id|v
9|v9
(1 row)
id|v
10|v10
(1 row)

fetch last from h; fetch first from h; close h; fetch h;
---
id|v
10|v10
(1 row)
id|v
8|v8
(1 row)
ERROR:  34000: cursor "h" does not exist

begin; declare h cursor with hold for select id from c order by id; fetch 3 from h; declare gone cursor for select 1; commit; fetch 2 from h; fetch backward 3 from h; fetch gone;
---
id
1
2
3
(3 rows)
id
4
5
(2 rows)
id
4
3
2
(3 rows)
ERROR:  34000: cursor "gone" does not exist

begin; fetch h; update c set v = 'x'; rollback; fetch h; begin; declare never cursor with hold for select 1; rollback; fetch never;
---
id
3
(1 row)
id
4
(1 row)
ERROR:  34000: cursor "never" does not exist

begin; close h; rollback; fetch h;
---
ERROR:  34000: cursor "h" does not exist

begin; declare ns no scroll cursor with hold for select id from c order by id; fetch 3 from ns; commit; fetch 2 from ns; fetch absolute 7 from ns; fetch prior from ns;
---
id
1
2
3
(3 rows)
id
4
5
(2 rows)
id
7
(1 row)
ERROR:  55000: cursor can only scan forward
HINT:  Declare it with SCROLL option to enable backward scan.

begin; declare done cursor with hold for select id from c where id < 3 order by id; fetch all from done; commit; fetch done; fetch prior from done; fetch backward all from done;
---
id
1
2
(2 rows)
id
(0 rows)
id
2
(1 row)
id
1
(1 row)

begin; declare bad cursor with hold for select 1 / (id - 5) from c order by id; fetch 2 from bad;
---
?column?
0
0
(2 rows)

commit;
---
ERROR:  22012: division by zero

fetch bad; close all; fetch done;
---
ERROR:  34000: cursor "bad" does not exist
ERROR:  34000: cursor "done" does not exist

create temp table t (a int) on commit delete rows; begin; insert into t select generate_series(1, 3); declare ht cursor with hold for select a from t order by a; commit; select count(*) from t; fetch all from ht;
---
count
0
(1 row)
a
1
2
3
(3 rows)

begin; declare same cursor with hold for select 1; declare same cursor for select 2;
---
ERROR:  42P03: cursor "same" already exists

rollback; begin; declare p cursor with hold for select 1; prepare transaction 'held';
---
ERROR:  0A000: cannot PREPARE a transaction that has created a cursor WITH HOLD

fetch p; rollback;
---
ERROR:  34000: cursor "p" does not exist
WARNING:  25P01: there is no transaction in progress

# More than work_mem.
set work_mem = '64kB'; declare big scroll cursor with hold for select i, repeat('x', 50) || i as v from generate_series(1, 20000) i; fetch absolute 15000 from big; fetch backward 2 from big; fetch last from big; fetch absolute 3 from big; fetch forward 1 from big; move backward all from big; move forward all from big;
---
i|v
15000|xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx15000
(1 row)
i|v
14999|xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx14999
14998|xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx14998
(2 rows)
i|v
20000|xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx20000
(1 row)
i|v
3|xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx3
(1 row)
i|v
4|xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx4
(1 row)

discard all; fetch big;
---
ERROR:  34000: cursor "big" does not exist

declare e cursor with hold for select id from c where false; fetch e; fetch next from e; close e;
---
id
(0 rows)
id
(0 rows)
