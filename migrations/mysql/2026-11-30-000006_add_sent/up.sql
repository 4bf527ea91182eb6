-- What jobs tell while they run: values that they send to those who wait, and how far they are. Programs that know only
-- the tables before it go on working: they write neither, and show neither. Costs nothing.

-- What the runs of a job sent, each as soon as it was sent; number counts over all runs of a job, and has gaps where a
-- call was not answered. The rows stay while the job lives, and
-- after it for readers that come late, until they are as old as replies are kept.
CREATE TABLE IF NOT EXISTS qudo_sent (
    job_id BINARY(16) NOT NULL,
    number INT NOT NULL,
    attempt INT NOT NULL,
    codec VARCHAR(255) NOT NULL,
    body LONGBLOB NOT NULL,
    sent_at BIGINT NOT NULL,
    PRIMARY KEY (job_id, number),
    KEY ix_qudo_sent_at (sent_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- How far the last run of a job said that it is; of runs that were shorter than a heartbeat there is nothing. total is NULL
-- where the job does not know it.
CREATE TABLE IF NOT EXISTS qudo_progress (
    job_id BINARY(16) NOT NULL PRIMARY KEY,
    attempt INT NOT NULL,
    done BIGINT NOT NULL,
    total BIGINT,
    note MEDIUMTEXT,
    noted_at BIGINT NOT NULL,
    KEY ix_qudo_progress_noted (noted_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
