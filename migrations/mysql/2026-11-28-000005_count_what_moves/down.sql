SET @qudo_step = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'qudo_worker' AND column_name = 'dead_after') = 0,
    'DO 0', 'ALTER TABLE qudo_worker DROP COLUMN dead_after');
PREPARE qudo_step FROM @qudo_step;
EXECUTE qudo_step;
DEALLOCATE PREPARE qudo_step;
