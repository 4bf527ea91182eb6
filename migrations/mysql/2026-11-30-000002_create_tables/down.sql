-- Removes everything that up.sql made. All jobs are lost. IF EXISTS: a reversal that broke off half way is
-- simply run again.
DROP VIEW IF EXISTS qudo_exceptions;
DROP VIEW IF EXISTS qudo_jobs;
DROP TABLE IF EXISTS qudo_moving;
DROP TABLE IF EXISTS qudo_control;
DROP TABLE IF EXISTS qudo_worker;
DROP TABLE IF EXISTS qudo_reply;
DROP TABLE IF EXISTS qudo_job_status;
DROP TABLE IF EXISTS qudo_exception_log;
DROP TABLE IF EXISTS qudo_unique;
DROP TABLE IF EXISTS qudo_lease;
DROP TABLE IF EXISTS qudo_scheduled;
DROP TABLE IF EXISTS qudo_ready;
DROP TABLE IF EXISTS qudo_job;
