# What is changed in PostgreSQL's isolation specs before they are run, on both servers alike: statements of their setup that a
# replicated database refuses, so that what they set up for is compared all the same.

# CREATE TABLE AS
s/create table bigt as select x from generate_series(1, 10000) x;/create table bigt (x int); insert into bigt select x from generate_series(1, 10000) x;/
s/CREATE TABLE jointest AS SELECT generate_series(1,10) AS id, 0 AS data;/CREATE TABLE jointest (id int, data int); INSERT INTO jointest SELECT generate_series(1,10), 0;/
s/CREATE TABLE triglog as select \* from footrg;/CREATE TABLE triglog (LIKE footrg);/
s/CREATE TABLE foo AS SELECT generate_series(1, \([0-9]*\))::int a;/CREATE TABLE foo (a int); INSERT INTO foo SELECT generate_series(1, \1);/
s/CREATE TABLE smalltbl AS SELECT i AS id, 't'::name AS t FROM generate_series(1,20) i;/CREATE TABLE smalltbl (id int, t name); INSERT INTO smalltbl SELECT i, 't' FROM generate_series(1,20) i;/

# An index whose function wants a setting of the session: it is called on every node, where that is not set.
s/current_setting('spec\.session')/current_setting('spec.session', true)/
