-- Enqueues from SQL: a function on PostgreSQL, a view on SQLite. Here they are a procedure, which is no part of a migration, because an
-- account may lack the privilege to make one.
DO 0;
