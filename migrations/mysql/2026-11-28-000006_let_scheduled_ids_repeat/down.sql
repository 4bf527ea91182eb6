ALTER TABLE qudo_scheduled DROP INDEX qudo_scheduled_id, ADD UNIQUE INDEX qudo_scheduled_id (id);
