-- A unique index locks the gaps around an id that is inserted again while its old entry is not purged,
-- at READ COMMITTED too, so that jobs that are scheduled anew blocked their neighbours. That an id is
-- there once is kept by the primary key of qudo_job and by the steps that move rows, which are counted.
ALTER TABLE qudo_scheduled DROP INDEX qudo_scheduled_id, ADD INDEX qudo_scheduled_id (id);
