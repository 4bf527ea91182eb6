-- An account that empties its spool into this database, besides what enqueue.sql or worker.sql grants. A
-- program with a spool needs it, or its jobs stay in the spool's file.
-- Run it in the database of the jobs, as an administrator, with the account's name in place of
-- qudo_account. The same for MySQL and MariaDB.
-- The names are those of the default: another table_prefix stands in the place of qudo_.

GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_moving TO 'qudo_account'@'%';
-- A copy that came too late is taken back.
GRANT SELECT, DELETE ON qudo_job TO 'qudo_account'@'%';
GRANT SELECT, DELETE ON qudo_unique TO 'qudo_account'@'%';
GRANT SELECT ON qudo_ready TO 'qudo_account'@'%';
GRANT SELECT ON qudo_scheduled TO 'qudo_account'@'%';
-- Whether a job that waits in the spool lives here already.
GRANT SELECT (id, worker, leased_until, attempt) ON qudo_lease TO 'qudo_account'@'%';
