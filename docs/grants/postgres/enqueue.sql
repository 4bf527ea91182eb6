-- An account that stores jobs and does nothing else: a web program, say. It reads neither arguments nor
-- replies.
-- Run it in the database of the jobs, as the owner of its tables, with the account's name in place of
-- qudo_account.
-- A server whose functions may not be executed by everybody needs EXECUTE on those named qudo_*, too.
-- The names are those of the default: another table_prefix stands in the place of qudo_,
-- and another schema in that of public and before the names.

GRANT USAGE ON SCHEMA public TO qudo_account;
GRANT SELECT ON qudo_schema_migrations TO qudo_account;
GRANT SELECT ON qudo_control TO qudo_account;
GRANT INSERT ON qudo_job TO qudo_account;
GRANT SELECT (id, queue, ability, priority, uniqkey) ON qudo_job TO qudo_account;
GRANT INSERT ON qudo_ready TO qudo_account;
GRANT SELECT (id) ON qudo_ready TO qudo_account;
GRANT INSERT ON qudo_scheduled TO qudo_account;
GRANT SELECT, INSERT ON qudo_unique TO qudo_account;
