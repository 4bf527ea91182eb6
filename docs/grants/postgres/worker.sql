-- An account that runs jobs, and stores them too. It changes no table and gives no orders.
-- Run it in the database of the jobs, as the owner of its tables, with the account's name in place of
-- qudo_account.
-- A server whose functions may not be executed by everybody needs EXECUTE on those named qudo_*, too.
-- The names are those of the default: another table_prefix stands in the place of qudo_,
-- and another schema in that of public and before the names.

GRANT USAGE ON SCHEMA public TO qudo_account;
GRANT SELECT ON qudo_schema_migrations TO qudo_account;
GRANT SELECT ON qudo_control TO qudo_account;
GRANT SELECT, INSERT, DELETE ON qudo_job TO qudo_account;
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_ready TO qudo_account;
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_scheduled TO qudo_account;
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_lease TO qudo_account;
GRANT SELECT, INSERT, DELETE ON qudo_unique TO qudo_account;
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_worker TO qudo_account;
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_exception_log TO qudo_account;
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_reply TO qudo_account;
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_job_status TO qudo_account;
GRANT SELECT, UPDATE, DELETE ON qudo_moving TO qudo_account;
-- Jobs that are cancelled, and the clean-up of what operators did.
GRANT SELECT, INSERT, DELETE ON qudo_cancel TO qudo_account;
GRANT SELECT, UPDATE, DELETE ON qudo_operation TO qudo_account;
-- Numbers of its runs, and their clean-up.
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_stat TO qudo_account;
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_stat_report TO qudo_account;
-- What jobs tell while they run.
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_sent TO qudo_account;
GRANT SELECT, INSERT, UPDATE, DELETE ON qudo_progress TO qudo_account;
