-- An account that stores jobs and does nothing else: a web program, say. It reads neither arguments nor
-- replies.
-- Run it in the database of the jobs, as an administrator, with the account's name in place of
-- qudo_account. The same for MySQL and MariaDB.
-- The names are those of the default: another table_prefix stands in the place of qudo_.

GRANT SELECT ON qudo_schema_migrations TO 'qudo_account'@'%';
GRANT SELECT ON qudo_control TO 'qudo_account'@'%';
GRANT INSERT ON qudo_job TO 'qudo_account'@'%';
GRANT SELECT (id, queue, ability, priority) ON qudo_job TO 'qudo_account'@'%';
GRANT INSERT ON qudo_ready TO 'qudo_account'@'%';
GRANT SELECT (id, queue, claim_rank) ON qudo_ready TO 'qudo_account'@'%';
GRANT INSERT ON qudo_scheduled TO 'qudo_account'@'%';
GRANT SELECT (id) ON qudo_scheduled TO 'qudo_account'@'%';
GRANT SELECT, INSERT ON qudo_unique TO 'qudo_account'@'%';

-- A lone job in one round trip instead of four.
GRANT EXECUTE ON PROCEDURE qudo_enqueue_1 TO 'qudo_account'@'%';
-- Enqueues from SQL.
GRANT EXECUTE ON PROCEDURE qudo_enqueue TO 'qudo_account'@'%';
GRANT EXECUTE ON PROCEDURE qudo_store_1 TO 'qudo_account'@'%';
