-- What jobs tell while they run: values that they send to those who wait, and how far they are. Programs that know only
-- the tables before it go on working: they write neither, and show neither. Costs nothing.

-- What the runs of a job sent, each as soon as it was sent; number counts over all runs of a job, and has gaps where a
-- call was not answered. The rows stay while the job lives, and
-- after it for readers that come late, until they are as old as replies are kept.
CREATE TABLE qudo_sent (
    job_id BLOB NOT NULL,
    number INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    codec TEXT NOT NULL,
    body BLOB NOT NULL,
    sent_at INTEGER NOT NULL,
    PRIMARY KEY (job_id, number)
) WITHOUT ROWID;

CREATE INDEX ix_qudo_sent_at ON qudo_sent (sent_at);

-- How far the last run of a job said that it is; of runs that were shorter than a heartbeat there is nothing. total is NULL
-- where the job does not know it.
CREATE TABLE qudo_progress (
    job_id BLOB NOT NULL PRIMARY KEY,
    attempt INTEGER NOT NULL,
    done INTEGER NOT NULL,
    total INTEGER,
    note TEXT,
    noted_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX ix_qudo_progress_noted ON qudo_progress (noted_at);
