-- Removes what up.sql made. The numbers are lost. Looked for first: a reversal that broke off half way is simply run again.
DROP TABLE IF EXISTS qudo_stat_report;
DROP TABLE IF EXISTS qudo_stat;
SET @alter_of_qudo = IF(EXISTS (SELECT 1 FROM information_schema.columns WHERE table_schema = DATABASE()
    AND table_name = 'qudo_ready' AND column_name = 'ready_at'), 'ALTER TABLE qudo_ready DROP COLUMN ready_at', 'DO 0');
PREPARE alter_of_qudo FROM @alter_of_qudo;
EXECUTE alter_of_qudo;
DEALLOCATE PREPARE alter_of_qudo;
