-- Removes everything that up.sql made. All jobs are lost.
DROP VIEW qudo_exceptions;
DROP VIEW qudo_jobs;
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
