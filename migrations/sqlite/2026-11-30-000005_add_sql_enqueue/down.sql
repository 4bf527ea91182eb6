-- Removes what up.sql made.
DROP VIEW qudo_enqueue;
DROP VIEW qudo_store_1;
DROP VIEW qudo_sign;
DROP TABLE qudo_enqueued;
