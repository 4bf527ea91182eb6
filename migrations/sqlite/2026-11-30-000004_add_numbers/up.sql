-- Numbers of the runs that ended, and since when jobs are ready. Programs that know only the tables before it go on
-- working: their runs are not counted, and of jobs that they put back it is not known since when they are ready. Adding the
-- column takes a lock of its table for a moment and writes no row.

-- Since when a job is ready, for how long it waited is counted; NULL since it was enqueued.
ALTER TABLE qudo_ready ADD COLUMN ready_at INTEGER;

-- How the runs ended that worker processes made, by the minute in which they reported them; in the row of
-- minute 0 since the first, which is what counters are read from and never removed, so that they never fall. How long jobs
-- were ready before they were run, and how long they ran, in microseconds: the sums, and how many times took at most 100
-- microseconds (00), 200 (01), 500 (02), 1 millisecond (03), and so on with 1, 2 and 5 up to 50,000 seconds (26), and longer
-- (27). NULL for none, which takes no room.
CREATE TABLE qudo_stat (
    minute INTEGER NOT NULL,
    queue TEXT NOT NULL,
    ability TEXT NOT NULL,
    completed INTEGER NOT NULL,
    replaced INTEGER NOT NULL,
    retried INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    snoozed INTEGER NOT NULL,
    wait_sum INTEGER NOT NULL,
    wait_00 INTEGER,
    wait_01 INTEGER,
    wait_02 INTEGER,
    wait_03 INTEGER,
    wait_04 INTEGER,
    wait_05 INTEGER,
    wait_06 INTEGER,
    wait_07 INTEGER,
    wait_08 INTEGER,
    wait_09 INTEGER,
    wait_10 INTEGER,
    wait_11 INTEGER,
    wait_12 INTEGER,
    wait_13 INTEGER,
    wait_14 INTEGER,
    wait_15 INTEGER,
    wait_16 INTEGER,
    wait_17 INTEGER,
    wait_18 INTEGER,
    wait_19 INTEGER,
    wait_20 INTEGER,
    wait_21 INTEGER,
    wait_22 INTEGER,
    wait_23 INTEGER,
    wait_24 INTEGER,
    wait_25 INTEGER,
    wait_26 INTEGER,
    wait_27 INTEGER,
    run_sum INTEGER NOT NULL,
    run_00 INTEGER,
    run_01 INTEGER,
    run_02 INTEGER,
    run_03 INTEGER,
    run_04 INTEGER,
    run_05 INTEGER,
    run_06 INTEGER,
    run_07 INTEGER,
    run_08 INTEGER,
    run_09 INTEGER,
    run_10 INTEGER,
    run_11 INTEGER,
    run_12 INTEGER,
    run_13 INTEGER,
    run_14 INTEGER,
    run_15 INTEGER,
    run_16 INTEGER,
    run_17 INTEGER,
    run_18 INTEGER,
    run_19 INTEGER,
    run_20 INTEGER,
    run_21 INTEGER,
    run_22 INTEGER,
    run_23 INTEGER,
    run_24 INTEGER,
    run_25 INTEGER,
    run_26 INTEGER,
    run_27 INTEGER,
    PRIMARY KEY (minute, queue, ability)
) WITHOUT ROWID;

-- The number of the last report of each reporter, so that a report whose answer was lost is not counted twice. A worker process is a reporter
-- of its own for each time that it works the database. No column of the process's row: that one goes when the process is taken for dead,
-- and is locked by its heartbeats.
CREATE TABLE qudo_stat_report (
    reporter BLOB NOT NULL PRIMARY KEY,
    number INTEGER NOT NULL,
    reported_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX ix_qudo_stat_report_at ON qudo_stat_report (reported_at);
