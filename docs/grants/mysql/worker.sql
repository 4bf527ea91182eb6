-- An account that runs jobs, and stores them too. It changes no table and gives no orders.
-- Run it in the database of the jobs, as an administrator, with the account's name in place of
-- qudo_account. The same for MySQL and MariaDB.
-- The names are those of the default: another table_prefix stands in the place of qudo_.

GRANT SELECT ON qudo_schema_migrations TO 'qudo_account'@'%';
GRANT SELECT ON qudo_control TO 'qudo_account'@'%';
GRANT SELECT, INSERT, DELETE ON qudo_job TO 'qudo_account'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_ready TO 'qudo_account'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_scheduled TO 'qudo_account'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_lease TO 'qudo_account'@'%';
GRANT SELECT, INSERT, DELETE ON qudo_unique TO 'qudo_account'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_worker TO 'qudo_account'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_exception_log TO 'qudo_account'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_reply TO 'qudo_account'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_job_status TO 'qudo_account'@'%';
GRANT SELECT, UPDATE, DELETE ON qudo_moving TO 'qudo_account'@'%';
-- Jobs that are cancelled, and the clean-up of what operators did.
GRANT SELECT, INSERT, DELETE ON qudo_cancel TO 'qudo_account'@'%';
GRANT SELECT, UPDATE, DELETE ON qudo_operation TO 'qudo_account'@'%';
-- Numbers of its runs, and their clean-up.
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_stat TO 'qudo_account'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_stat_report TO 'qudo_account'@'%';
-- What jobs tell while they run.
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_sent TO 'qudo_account'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_progress TO 'qudo_account'@'%';

-- A lone job in one round trip instead of four.
GRANT EXECUTE ON PROCEDURE qudo_enqueue_1 TO 'qudo_account'@'%';
-- Enqueues from SQL.
GRANT EXECUTE ON PROCEDURE qudo_enqueue TO 'qudo_account'@'%';
GRANT EXECUTE ON PROCEDURE qudo_store_1 TO 'qudo_account'@'%';
