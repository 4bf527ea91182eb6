-- An account that makes and changes the tables, and nothing else needs to. Programs that call migrate()
-- when they start need none of this as long as there is nothing to do.
-- Run it in the database of the jobs, as an administrator, with the account's name in place of
-- qudo_account and the database's in place of qudo_database; in the latter write \_ for _, which stands for
-- any character there. The same for MySQL and MariaDB.
-- The names are those of the default: another table_prefix stands in the place of qudo_.

GRANT CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE,
    SELECT, INSERT, UPDATE, DELETE ON qudo_database.* TO 'qudo_account'@'%';
