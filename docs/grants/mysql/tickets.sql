-- Beside enqueue.sql: what a program needs to follow its jobs and to hear their replies.
-- Run it in the database of the jobs, as an administrator, with the account's name in place of
-- qudo_account. The same for MySQL and MariaDB.
-- The names are those of the default: another table_prefix stands in the place of qudo_.

GRANT SELECT ON qudo_job TO 'qudo_account'@'%';
GRANT SELECT ON qudo_ready TO 'qudo_account'@'%';
GRANT SELECT ON qudo_scheduled TO 'qudo_account'@'%';
GRANT SELECT ON qudo_lease TO 'qudo_account'@'%';
GRANT SELECT ON qudo_moving TO 'qudo_account'@'%';
GRANT SELECT ON qudo_reply TO 'qudo_account'@'%';
GRANT SELECT ON qudo_exception_log TO 'qudo_account'@'%';
GRANT SELECT ON qudo_job_status TO 'qudo_account'@'%';
GRANT SELECT ON qudo_sent TO 'qudo_account'@'%';
GRANT SELECT ON qudo_progress TO 'qudo_account'@'%';
