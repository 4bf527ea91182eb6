-- Removes everything that up.sql made. All jobs are lost. A schema stays: it may hold more than this.
DROP VIEW qudo_exceptions;
DROP VIEW qudo_jobs;
DROP FUNCTION qudo_text(BYTEA);
DROP FUNCTION qudo_settle(UUID, UUID[], BIGINT[], UUID[], INTEGER[], BIGINT[], UUID[], UUID[], INTEGER[], UUID[], TEXT[], INTEGER[], TEXT[], INTEGER[], INTEGER[], INTEGER[], BIGINT[],
    UUID[], UUID[], INTEGER[], TEXT[], TEXT[], TEXT[], TEXT[], TEXT[], INTEGER[], UUID[], INTEGER[], TEXT[],
    BYTEA[], UUID[], UUID[], TEXT[], TEXT[], INTEGER[], TEXT[], BIGINT[], BIGINT[], TEXT[], TEXT[], TEXT[],
    UUID[]);
DROP FUNCTION qudo_complete(UUID, UUID[], BIGINT[], UUID[], INTEGER[], BIGINT[]);
DROP FUNCTION qudo_remove(UUID[], UUID[], INTEGER[]);
DROP FUNCTION qudo_take(UUID, UUID[], BIGINT[], UUID[], INTEGER[], BIGINT[]);
DROP FUNCTION qudo_insert(UUID[], BYTEA[], TEXT, TEXT, TEXT, INTEGER, BIGINT, BIGINT);
DROP FUNCTION qudo_claim(TEXT, INTEGER, UUID, TEXT[], BIGINT[], BIGINT, UUID, BIGINT, BIGINT, BIGINT, UUID[],
    INTEGER, UUID);
DROP FUNCTION qudo_refuse(TEXT);
DROP FUNCTION qudo_now();
DROP TABLE qudo_moving;
DROP TABLE qudo_control;
DROP TABLE qudo_worker;
DROP TABLE qudo_reply;
DROP TABLE qudo_job_status;
DROP TABLE qudo_exception_log;
DROP TABLE qudo_unique;
DROP TABLE qudo_lease;
DROP TABLE qudo_scheduled;
DROP TABLE qudo_ready;
DROP TABLE qudo_job;
