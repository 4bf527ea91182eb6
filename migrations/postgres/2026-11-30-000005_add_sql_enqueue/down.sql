-- Removes what up.sql made. Functions of others that call it, as those of triggers do, fail from then on.
DROP FUNCTION qudo_enqueue(TEXT, JSONB, TEXT, INTEGER, TIMESTAMPTZ, TEXT, JSONB, UUID);
DROP FUNCTION qudo_store_1(UUID, TEXT, TEXT, TEXT, BYTEA, INTEGER, BIGINT, BIGINT, TEXT, TEXT, BOOLEAN);
DROP FUNCTION qudo_new_id(BIGINT);
DROP FUNCTION qudo_check_job(TEXT, BYTEA, TEXT, TIMESTAMPTZ, TEXT, JSONB);
DROP FUNCTION qudo_check_meta(JSONB);
DROP FUNCTION qudo_check(TEXT, TEXT);
