-- An account that makes and changes the tables, and nothing else needs to. Programs that call migrate()
-- when they start need none of this as long as there is nothing to do.
-- Run it in the database of the jobs, as the owner of its tables, with the account's name in place of
-- qudo_account.
-- The names are those of the default: another table_prefix stands in the place of qudo_,
-- and another schema in that of public and before the names. To make that schema, too, it takes CREATE on the
-- database: GRANT CREATE ON DATABASE jobs TO qudo_account.

-- What it makes is its own, so it may grant the others their rights.
GRANT USAGE, CREATE ON SCHEMA public TO qudo_account;
