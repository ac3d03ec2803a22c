# SHOW, SET, RESET, what refuses.

show work_mem; set work_mem = '64MB'; show work_mem; set work_mem to default; show work_mem;
---
work_mem
4MB
(1 row)
work_mem
64MB
(1 row)
work_mem
4MB
(1 row)

set work_mem = 'lots';
---
ERROR:  22023: invalid value for parameter "work_mem": "lots"

set work_mem = '1 parsec';
---
ERROR:  22023: invalid value for parameter "work_mem": "1 parsec"
HINT:  Valid units for this parameter are "B", "kB", "MB", "GB", and "TB".

set nosuch = 1;
---
ERROR:  42704: unrecognized configuration parameter "nosuch"

show nosuch;
---
ERROR:  42704: unrecognized configuration parameter "nosuch"

set my.custom = 'x'; show my.custom;
---
my.custom
x
(1 row)

set statement_timeout = '1min'; show statement_timeout; set statement_timeout = 1500; show statement_timeout; reset statement_timeout;
---
statement_timeout
1min
(1 row)
statement_timeout
1500ms
(1 row)

set max_connections = 5;
---
ERROR:  55P02: parameter "max_connections" cannot be changed without restarting the server

set datestyle = 'German'; select date '2024-05-06'; reset datestyle; select date '2024-05-06';
---
date
06.05.2024
(1 row)
date
2024-05-06
(1 row)

set time zone 'Europe/Berlin'; select timestamptz '2024-07-01 12:00:00+00'; reset time zone;
---
timestamptz
2024-07-01 14:00:00+02
(1 row)

set extra_float_digits = 0; select 0.1::float8 + 0.2; reset extra_float_digits;
---
?column?
0.3
(1 row)

set bytea_output = 'escape'; select '\x6162ff'::bytea; reset bytea_output;
---
bytea
ab\377
(1 row)

select current_setting('work_mem'), set_config('work_mem', '2MB', false), current_setting('work_mem'); reset work_mem;
---
current_setting|set_config|current_setting
4MB|2MB|2MB
(1 row)

set enable_seqscan = maybe;
---
ERROR:  22023: parameter "enable_seqscan" requires a Boolean value

select name, setting, unit from pg_settings where name in ('block_size', 'wal_block_size', 'port') and name <> 'port' order by name;
---
name|setting|unit
block_size|8192|
wal_block_size|8192|
(2 rows)

discard all;
---

set transaction isolation level serializable;
---
WARNING:  25P01: SET TRANSACTION can only be used in transaction blocks

show server_encoding; show client_encoding; show standard_conforming_strings; show integer_datetimes;
---
server_encoding
UTF8
(1 row)
client_encoding
UTF8
(1 row)
standard_conforming_strings
on
(1 row)
integer_datetimes
on
(1 row)

set client_min_messages = error; show client_min_messages; reset client_min_messages;
---
client_min_messages
error
(1 row)

set application_name = 'golden'; show application_name;
---
application_name
golden
(1 row)
