-- What PostgreSQL's COPY writes, in its variants:  psql -v folder=/somewhere/writable -f make_files.sql
SET TimeZone = 'Europe/Berlin';
CREATE TEMP TABLE t (
  integer int, integer_missing int, number double precision, text text, text_missing text, code text, code_as_number int,
  boolean boolean, boolean_missing boolean, date date, naive timestamp, zoned timestamptz, decimal numeric(10, 2),
  category text, large bigint, large_missing bigint, time time, all_missing int, key bigint, nested int[]
);
INSERT INTO t VALUES
  (1, 1, 0.1, 'plain', 'x', '00123', 49, true, true, '2024-02-29', '2024-04-01 08:00', '2024-04-01 08:00+02', 12.30,
   'red', 9007199254740993, 9007199254740993, '08:30', NULL, 7, '{1,2}'),
  (-2, NULL, NULL, 'a, "b"', '', '49', NULL, false, NULL, NULL, NULL, NULL, NULL,
   NULL, 1, NULL, NULL, NULL, 8, NULL),
  (3, 3, -2.5e-7, E'two\nlines, ü', NULL, '7', 7, true, false, '1969-07-20', '2024-04-01 08:00:00.123456',
   '2024-10-27 02:30+01', -0.07, 'red', -9007199254740993, -9007199254740993, '23:59:59', NULL, 9, '{3}');
\set file :folder '/postgres.csv'
COPY t TO :'file' (FORMAT csv, HEADER);
\set file :folder '/postgres_quoted.csv'
COPY t TO :'file' (FORMAT csv, HEADER, FORCE_QUOTE *);
\set file :folder '/postgres_semicolon.csv'
COPY t TO :'file' (FORMAT csv, HEADER, DELIMITER ';', NULL 'NULL');
\set file :folder '/postgres_text.csv'
COPY t TO :'file';
\set file :folder '/postgres_text_header.csv'
COPY t TO :'file' (HEADER);
