# Literals, arithmetic, casts, input and output of the types.

select 1 as one, -5 as neg, 2147483647 as int4, 9223372036854775807 as int8, 12345678901234567890 as num;
---
one|neg|int4|int8|num
1|-5|2147483647|9223372036854775807|12345678901234567890
(1 row)

select 7 / 2 as q, -7 / 2 as nq, 7 % 3 as r, -7 % 3 as nr, 2 ^ 10 as p, 7.0 / 2 as d, 10 - 3 * 2 as pr;
---
q|nq|r|nr|p|d|pr
3|-3|1|-1|1024|3.5000000000000000|4
(1 row)

select 2147483647 + 1;
---
ERROR:  22003: integer out of range

select 9223372036854775807 + 1;
---
ERROR:  22003: bigint out of range

select 1 / 0;
---
ERROR:  22012: division by zero

select 1.0 / 3 as a, 1.10 + 2.205 as b, 1.5 * 1.50 as c, round(2.5) as d, round(-2.345, 2) as e, trunc(2.789, 1) as f, 10 % 3.3 as g;
---
a|b|c|d|e|f|g
0.33333333333333333333|3.305|2.250|3|-2.35|2.7|0.1
(1 row)

select numeric '1e10', numeric '0.000001', numeric 'NaN', numeric 'Infinity', numeric '-Infinity' + 1, '1234.5'::numeric(6,2), 1234.567::numeric(6,2);
---
numeric|numeric|numeric|numeric|?column?|numeric|numeric
10000000000|0.000001|NaN|Infinity|-Infinity|1234.50|1234.57
(1 row)

select 12345.6::numeric(5,2);
---
ERROR:  22003: numeric field overflow
DETAIL:  A field with precision 5, scale 2 must round to an absolute value less than 10^3.

select 1e10::float8, 0.1::float8 + 0.2::float8, 'NaN'::float8, '-Infinity'::float8, 1e300::float8 * 10, 123456789012345678::float8, 1.5::float4, 1e-7::float8;
---
float8|?column?|float8|float8|?column?|float8|float4|float8
10000000000|0.30000000000000004|NaN|-Infinity|1e+301|1.2345678901234568e+17|1.5|1e-07
(1 row)

select 1e308::float8 * 10;
---
ERROR:  22003: value out of range: overflow

select 1.5::int, 2.5::int, -1.5::int, 1.5::float8::int, 2.5::float8::int, '42'::int, ' 42 '::int, true::int, 5::bool;
---
int4|int4|?column?|int4|int4|int4|int4|int4|bool
2|3|-2|2|2|42|42|1|t
(1 row)

select 'abc'::int;
---
ERROR:  22P02: invalid input syntax for type integer: "abc"
LINE 1: select 'abc'::int;
               ^

select '99999999999'::int;
---
ERROR:  22003: value "99999999999" is out of range for type integer
LINE 1: select '99999999999'::int;
               ^

select 100000::int2;
---
ERROR:  22003: smallint out of range

select true and null as a, false and null as b, true or null as c, not null::bool as d, null is null as e, 1 is distinct from null as f, null = null as g;
---
a|b|c|d|e|f|g
|f|t||t|t|
(1 row)

select 't'::bool, 'yes'::bool, 'off'::bool, '0'::bool;
---
bool|bool|bool|bool
t|t|f|f
(1 row)

select 'maybe'::bool;
---
ERROR:  22P02: invalid input syntax for type boolean: "maybe"
LINE 1: select 'maybe'::bool;
               ^

select 'a' || 'b' || 1 as cat, 'a' || null as n, length('héllo') as l, octet_length('héllo') as o, upper('abc') as u, lower('ABC') as lo, initcap('hello world') as i;
---
cat|n|l|o|u|lo|i
ab1||5|6|ABC|abc|Hello World
(1 row)

select substring('hello' from 2 for 3) as a, substr('hello', 2) as b, position('l' in 'hello') as c, trim('  x  ') as d, ltrim('xxa', 'x') as e, rpad('ab', 5, '*') as f, lpad('abc', 2) as g, repeat('ab', 3) as h, reverse('abc') as i, replace('aXbX', 'X', '--') as j, split_part('a,b,c', ',', 2) as k, strpos('abc', 'c') as l, left('abc', -1) as m, right('abc', 2) as n;
---
a|b|c|d|e|f|g|h|i|j|k|l|m|n
ell|ello|3|x|a|ab***|ab|ababab|cba|a--b--|b|3|ab|bc
(1 row)

select 'abc' like 'a%' as a, 'abc' like '_b_' as b, 'ABC' ilike 'abc' as c, 'abc' not like 'b%' as d, 'abc' ~ '^a.c$' as e, 'abc' ~* 'B' as f, 'a%c' like 'a\%c' as g, regexp_replace('hello world', 'o', '0', 'g') as h, 'abc' similar to '(a|b)%' as i;
---
a|b|c|d|e|f|g|h|i
t|t|t|t|t|t|t|hell0 w0rld|t
(1 row)

select 'abc'::varchar(2), 'abc'::char(5) || '|' as c, length('ab  '::char(5)), 'ab'::char(3) = 'ab' as eq, 'x'::"char";
---
varchar|c|length|eq|char
ab|abc||2|t|x
(1 row)

select concat('a', null, 1, true) as a, concat_ws('-', 'a', null, 'b') as b, format('%s is %I and %L', 'x', 'Some Name', 'it''s') as c, quote_literal('it''s') as d, quote_ident('Foo') as e, chr(65) as f, ascii('A') as g, md5('abc') as h, to_hex(255) as i;
---
a|b|c|d|e|f|g|h|i
a1t|a-b|x is "Some Name" and 'it''s'|'it''s'|"Foo"|A|65|900150983cd24fb0d6963f7d28e17f72|ff
(1 row)

select '\xdeadbeef'::bytea, 'abc'::bytea, '\x00ff'::bytea || '\x01'::bytea as c, length('\x0011'::bytea), encode('\x0102', 'hex'), decode('AQI=', 'base64'), 'a\\b'::bytea;
---
bytea|bytea|c|length|encode|decode|bytea
\xdeadbeef|\x616263|\x00ff01|2|0102|\x0102|\x615c62
(1 row)

select date '2024-02-29', date '2024-03-01' - date '2024-02-28' as d, date '2024-01-31' + 1 as n, timestamp '2024-01-01 12:34:56.789', timestamptz '2024-06-01 12:00:00+02', time '23:59:59', interval '1 day 02:03:04', date '0001-01-01 BC', date 'infinity';
---
date|d|n|timestamp|timestamptz|time|interval|date|date
2024-02-29|2|2024-02-01|2024-01-01 12:34:56.789|2024-06-01 10:00:00+00|23:59:59|1 day 02:03:04|0001-01-01 BC|infinity
(1 row)

select timestamp '2024-01-31 00:00:00' + interval '1 month' as a, timestamp '2024-03-01' - timestamp '2024-02-01' as b, extract(year from date '2024-05-06') as c, date_trunc('month', timestamp '2024-05-06 07:08:09') as d, age(timestamp '2024-05-06', timestamp '2023-01-01') as e, extract(epoch from interval '1 hour') as f, to_char(timestamp '2024-05-06 07:08:09', 'YYYY-MM-DD HH24:MI:SS') as g, make_date(2024, 2, 3) as h;
---
a|b|c|d|e|f|g|h
2024-02-29 00:00:00|29 days|2024|2024-05-01 00:00:00|1 year 4 mons 5 days|3600.000000|2024-05-06 07:08:09|2024-02-03
(1 row)

select date '2024-13-01';
---
ERROR:  22008: date/time field value out of range: "2024-13-01"
LINE 1: select date '2024-13-01';
                    ^
HINT:  Perhaps you need a different "datestyle" setting.

select timestamp 'yesterday-ish';
---
ERROR:  22007: invalid input syntax for type timestamp: "yesterday-ish"
LINE 1: select timestamp 'yesterday-ish';
                         ^

select interval '1 year 2 months 3 days 04:05:06' as a, interval '-1 day' as b, interval '90 minutes' as c, interval '1 month' * 2 as d, justify_days(interval '40 days') as e;
---
a|b|c|d|e
1 year 2 mons 3 days 04:05:06|-1 days|01:30:00|2 mons|1 mon 10 days
(1 row)

select 'a'::text < 'b' as a, 10 < 9 as b, '10' < '9' as c, 1 between 0 and 2 as d, 3 in (1, 2, 3) as e, 4 not in (1, null) as f, greatest(1, 3, 2) as g, least('b', 'a') as h, nullif(1, 1) as i, coalesce(null, 2) as j;
---
a|b|c|d|e|f|g|h|i|j
t|f|t|t|t||3|a||2
(1 row)

select case when 1 > 2 then 'a' when null then 'b' else 'c' end as x, case 3 when 1 then 'one' when 3 then 'three' end as y;
---
x|y
c|three
(1 row)

select abs(-5), sign(-2.5), ceil(1.2), floor(-1.2), sqrt(16::float8), power(2, 0.5), mod(10, 3), exp(0::float8), ln(1::float8), gcd(12, 18), 5 & 3, 5 | 3, 5 # 3, ~5, 1 << 4, -16 >> 2;
---
abs|sign|ceil|floor|sqrt|power|mod|exp|ln|gcd|?column?|?column?|?column?|?column?|?column?|?column?
5|-1|2|-2|4|1.4142135623730950|1|1|0|6|1|7|6|-6|16|-4
(1 row)

select array[1,2,3] as a, array['a','b'] || 'c'::text as b, (array[1,2,3])[2] as c, array_length(array[1,2], 1) as d, 2 = any(array[1,2]) as e, '{1,2,null}'::int[] as f, array_to_string(array[1,null,3], ',', '*') as g, cardinality(array[[1,2],[3,4]]) as h, unnest(array[1,2]) as i;
---
a|b|c|d|e|f|g|h|i
{1,2,3}|{a,b,c}|2|2|t|{1,2,NULL}|1,*,3|4|1
{1,2,3}|{a,b,c}|2|2|t|{1,2,NULL}|1,*,3|4|2
(2 rows)

select row(1, 'a', null) as r, (1, 2) = (1, 2) as e, (1, 2) < (1, 3) as l, row(1, null) is null as n;
---
r|e|l|n
(1,a,)|t|t|f
(1 row)

select '{"a": [1, 2, {"b": null}]}'::jsonb as a, '{"a":1}'::jsonb -> 'a' as b, '{"a":"x"}'::jsonb ->> 'a' as c, '[1,2]'::json -> 1 as d;
---
a|b|c|d
{"a": [1, 2, {"b": null}]}|1|x|2
(1 row)

select '16/B374D848'::pg_lsn as a, '0/10'::pg_lsn - '0/8'::pg_lsn as b, '0/8'::pg_lsn < '0/10'::pg_lsn as c, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid as d, 'pg_class'::regclass as e, 26::regtype as f, 1::oid as g;
---
a|b|c|d|e|f|g
16/B374D848|8|t|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|pg_class|oid|1
(1 row)

select pg_typeof(1), pg_typeof(1.0), pg_typeof('a'), pg_typeof(1::int8 + 1), pg_typeof(now()), pg_typeof(1 = 1), pg_typeof(array[1]), pg_typeof(null), pg_typeof(1::int2 + 1::int2), pg_typeof(1 / 2.0), pg_typeof(sum(1)), pg_typeof(avg(1)), pg_typeof(count(*));
---
pg_typeof|pg_typeof|pg_typeof|pg_typeof|pg_typeof|pg_typeof|pg_typeof|pg_typeof|pg_typeof|pg_typeof|pg_typeof|pg_typeof|pg_typeof
integer|numeric|unknown|bigint|timestamp with time zone|boolean|integer[]|unknown|smallint|numeric|bigint|numeric|bigint
(1 row)
