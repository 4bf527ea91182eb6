-- Removes what up.sql made. The numbers are lost.
DROP TABLE qudo_stat_report;
DROP TABLE qudo_stat;
ALTER TABLE qudo_ready DROP COLUMN ready_at;
