-- A worker promises in its own row how long it may be silent before others may take its jobs, in
-- microseconds; 0: not told, by a program of before. Costs nothing: the table has a row per living
-- worker. Each DDL statement commits by itself, so a migration that was broken off may find its
-- column made.

SET @qudo_step = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'qudo_worker' AND column_name = 'dead_after') = 0,
    'ALTER TABLE qudo_worker ADD COLUMN dead_after BIGINT NOT NULL DEFAULT 0', 'DO 0');
PREPARE qudo_step FROM @qudo_step;
EXECUTE qudo_step;
DEALLOCATE PREPARE qudo_step;
