-- Numbers of the runs that ended, and since when jobs are ready. Programs that know only the tables before it go on
-- working: their runs are not counted, and of jobs that they put back it is not known since when they are ready. Adding the
-- column takes a lock of its table for a moment and writes no row;
-- MySQL before 8.0.12 makes the table of the ready jobs anew.

-- Since when a job is ready, for how long it waited is counted; NULL since it was enqueued.
-- Looked for first, because MySQL commits each statement by itself: a migration that broke off half way is simply run again.
SET @alter_of_qudo = IF(NOT EXISTS (SELECT 1 FROM information_schema.columns WHERE table_schema = DATABASE()
    AND table_name = 'qudo_ready' AND column_name = 'ready_at'), 'ALTER TABLE qudo_ready ADD COLUMN ready_at BIGINT', 'DO 0');
PREPARE alter_of_qudo FROM @alter_of_qudo;
EXECUTE alter_of_qudo;
DEALLOCATE PREPARE alter_of_qudo;

-- How the runs ended that worker processes made, by the minute in which they reported them; in the row of
-- minute 0 since the first, which is what counters are read from and never removed, so that they never fall. How long jobs
-- were ready before they were run, and how long they ran, in microseconds: the sums, and how many times took at most 100
-- microseconds (00), 200 (01), 500 (02), 1 millisecond (03), and so on with 1, 2 and 5 up to 50,000 seconds (26), and longer
-- (27). NULL for none, which takes no room.
CREATE TABLE IF NOT EXISTS qudo_stat (
    minute BIGINT NOT NULL,
    queue VARCHAR(100) NOT NULL,
    ability VARCHAR(100) NOT NULL,
    completed BIGINT NOT NULL,
    replaced BIGINT NOT NULL,
    retried BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    cancelled BIGINT NOT NULL,
    snoozed BIGINT NOT NULL,
    wait_sum BIGINT NOT NULL,
    wait_00 BIGINT,
    wait_01 BIGINT,
    wait_02 BIGINT,
    wait_03 BIGINT,
    wait_04 BIGINT,
    wait_05 BIGINT,
    wait_06 BIGINT,
    wait_07 BIGINT,
    wait_08 BIGINT,
    wait_09 BIGINT,
    wait_10 BIGINT,
    wait_11 BIGINT,
    wait_12 BIGINT,
    wait_13 BIGINT,
    wait_14 BIGINT,
    wait_15 BIGINT,
    wait_16 BIGINT,
    wait_17 BIGINT,
    wait_18 BIGINT,
    wait_19 BIGINT,
    wait_20 BIGINT,
    wait_21 BIGINT,
    wait_22 BIGINT,
    wait_23 BIGINT,
    wait_24 BIGINT,
    wait_25 BIGINT,
    wait_26 BIGINT,
    wait_27 BIGINT,
    run_sum BIGINT NOT NULL,
    run_00 BIGINT,
    run_01 BIGINT,
    run_02 BIGINT,
    run_03 BIGINT,
    run_04 BIGINT,
    run_05 BIGINT,
    run_06 BIGINT,
    run_07 BIGINT,
    run_08 BIGINT,
    run_09 BIGINT,
    run_10 BIGINT,
    run_11 BIGINT,
    run_12 BIGINT,
    run_13 BIGINT,
    run_14 BIGINT,
    run_15 BIGINT,
    run_16 BIGINT,
    run_17 BIGINT,
    run_18 BIGINT,
    run_19 BIGINT,
    run_20 BIGINT,
    run_21 BIGINT,
    run_22 BIGINT,
    run_23 BIGINT,
    run_24 BIGINT,
    run_25 BIGINT,
    run_26 BIGINT,
    run_27 BIGINT,
    PRIMARY KEY (minute, queue, ability)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The number of the last report of each reporter, so that a report whose answer was lost is not counted twice. A worker process is a reporter
-- of its own for each time that it works the database. No column of the process's row: that one goes when the process is taken for dead,
-- and is locked by its heartbeats.
CREATE TABLE IF NOT EXISTS qudo_stat_report (
    reporter BINARY(16) NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL,
    reported_at BIGINT NOT NULL,
    KEY ix_qudo_stat_report_at (reported_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
