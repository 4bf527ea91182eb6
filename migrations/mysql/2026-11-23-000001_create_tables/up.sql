-- The tables of qudo. Facts apart from state: qudo_job is written once and removed once; where a
-- job stands is which one of the narrow tables qudo_ready, qudo_scheduled and qudo_lease holds its
-- id. Times are microseconds since 1970, UTC; ids are UUIDv7, 16 bytes; claim_rank is minus the
-- priority, so that one ascending key is the order of the claim. For people there are the views
-- qudo_jobs and qudo_exceptions. Names are compared byte by byte; unique keys are bytes, because
-- MySQL's text ignores spaces at the end. IF NOT EXISTS, because MySQL commits each statement by
-- itself: a migration that broke off half way is simply run again. Costs nothing on a new database;
-- needs MySQL 8.0.4 or MariaDB 10.6.

CREATE TABLE IF NOT EXISTS qudo_job (
    id BINARY(16) NOT NULL PRIMARY KEY,
    queue VARCHAR(100) NOT NULL,
    ability VARCHAR(100) NOT NULL,
    codec VARCHAR(100) NOT NULL,
    arg LONGBLOB NOT NULL,
    uniqkey VARBINARY(500),
    priority INT NOT NULL,
    enqueued_at BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS qudo_ready (
    queue VARCHAR(100) NOT NULL,
    claim_rank INT NOT NULL,
    id BINARY(16) NOT NULL,
    ability VARCHAR(100) NOT NULL,
    attempt INT NOT NULL,
    crashes INT NOT NULL,
    PRIMARY KEY (queue, claim_rank, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin STATS_PERSISTENT = 0;

CREATE TABLE IF NOT EXISTS qudo_scheduled (
    run_after BIGINT NOT NULL,
    id BINARY(16) NOT NULL,
    queue VARCHAR(100) NOT NULL,
    claim_rank INT NOT NULL,
    ability VARCHAR(100) NOT NULL,
    attempt INT NOT NULL,
    crashes INT NOT NULL,
    PRIMARY KEY (run_after, id),
    UNIQUE KEY qudo_scheduled_id (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS qudo_lease (
    id BINARY(16) NOT NULL PRIMARY KEY,
    worker BINARY(16) NOT NULL,
    claim BIGINT NOT NULL,
    leased_until BIGINT NOT NULL,
    queue VARCHAR(100) NOT NULL,
    claim_rank INT NOT NULL,
    ability VARCHAR(100) NOT NULL,
    attempt INT NOT NULL,
    crashes INT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin STATS_PERSISTENT = 0;

-- Who holds a unique key: one row per live job that has one.
CREATE TABLE IF NOT EXISTS qudo_unique (
    ability VARCHAR(100) NOT NULL,
    uniqkey VARBINARY(500) NOT NULL,
    id BINARY(16) NOT NULL,
    PRIMARY KEY (ability, uniqkey)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS qudo_exception_log (
    id BINARY(16) NOT NULL PRIMARY KEY,
    job_id BINARY(16) NOT NULL,
    ability VARCHAR(100) NOT NULL,
    queue VARCHAR(100) NOT NULL,
    worker BINARY(16) NOT NULL,
    attempt INT NOT NULL,
    kind VARCHAR(30) NOT NULL,
    message MEDIUMTEXT NOT NULL,
    failed_at BIGINT NOT NULL,
    discarded INT NOT NULL CHECK (discarded IN (0, 1)),
    redriven_as BINARY(16),
    uniqkey VARBINARY(500),
    priority INT NOT NULL,
    codec VARCHAR(100),
    arg LONGBLOB,
    KEY qudo_exception_log_job (job_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS qudo_job_status (
    id BINARY(16) NOT NULL PRIMARY KEY,
    job_id BINARY(16) NOT NULL,
    ability VARCHAR(100) NOT NULL,
    status VARCHAR(30) NOT NULL,
    attempt INT NOT NULL,
    uniqkey VARBINARY(500),
    enqueued_at BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    finished_at BIGINT NOT NULL,
    message MEDIUMTEXT,
    KEY qudo_job_status_job (job_id),
    KEY qudo_job_status_finished (finished_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS qudo_reply (
    job_id BINARY(16) NOT NULL,
    seq INT NOT NULL,
    codec VARCHAR(100) NOT NULL,
    body LONGBLOB NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (job_id, seq),
    KEY qudo_reply_created (created_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS qudo_worker (
    id BINARY(16) NOT NULL PRIMARY KEY,
    name VARCHAR(300) NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE OR REPLACE VIEW qudo_jobs AS
SELECT
    LOWER(HEX(j.id)) AS id,
    j.queue,
    j.ability,
    CASE WHEN l.id IS NOT NULL THEN 'running' WHEN s.id IS NOT NULL THEN 'scheduled' ELSE 'ready' END AS state,
    j.priority,
    COALESCE(l.attempt, s.attempt, r.attempt) AS attempt,
    CONVERT(j.uniqkey USING utf8mb4) AS uniqkey,
    FROM_UNIXTIME(j.enqueued_at / 1000000) AS enqueued_at,
    FROM_UNIXTIME(s.run_after / 1000000) AS run_after,
    FROM_UNIXTIME(l.leased_until / 1000000) AS leased_until,
    w.name AS worker,
    j.codec,
    CASE WHEN j.codec = 'json' THEN CONVERT(j.arg USING utf8mb4) END AS arg
FROM qudo_job j
LEFT JOIN qudo_ready r ON r.queue = j.queue AND r.claim_rank = -j.priority AND r.id = j.id
LEFT JOIN qudo_scheduled s ON s.id = j.id
LEFT JOIN qudo_lease l ON l.id = j.id
LEFT JOIN qudo_worker w ON w.id = l.worker;

CREATE OR REPLACE VIEW qudo_exceptions AS
SELECT
    LOWER(HEX(id)) AS id,
    LOWER(HEX(job_id)) AS job,
    ability,
    queue,
    attempt,
    kind,
    message,
    FROM_UNIXTIME(failed_at / 1000000) AS failed_at,
    discarded,
    LOWER(HEX(redriven_as)) AS redriven_as
FROM qudo_exception_log;
