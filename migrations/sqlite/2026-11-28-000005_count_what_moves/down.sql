ALTER TABLE qudo_worker DROP COLUMN dead_after;
