-- The tables of qudo. Facts apart from state: qudo_job is written once and removed once; where a job
-- stands is which one of the narrow tables qudo_ready, qudo_scheduled, qudo_lease and qudo_moving holds
-- its id. Times are microseconds since 1970, UTC; ids are UUIDv7, 16 bytes; claim_rank is minus the priority, so
-- that one ascending key is the order of the claim; flags say what lies beside a job in other tables, so
-- that a job with nothing beside it takes the short way. For people there are the views qudo_jobs and
-- qudo_exceptions.
--
-- Names are those of the default: "qudo_" at the beginning of a word stands for the installation's own
-- prefix, and within a word for the prefix alone.
--
-- Names are compared byte by byte; unique keys are bytes, because MySQL's text ignores spaces at the end.
-- IF NOT EXISTS, because MySQL commits each statement by itself: a migration that broke off half way is
-- simply run again. Views ask with the rights of their reader, so that they work when their maker's account
-- is gone, as after a restore elsewhere. Costs nothing on a new database; needs MySQL 8.0.4 or MariaDB 10.6.

CREATE TABLE IF NOT EXISTS qudo_job (
    id BINARY(16) NOT NULL PRIMARY KEY,
    queue VARCHAR(100) NOT NULL,
    ability VARCHAR(100) NOT NULL,
    codec VARCHAR(100) NOT NULL,
    arg LONGBLOB NOT NULL,
    uniqkey VARBINARY(500),
    priority INT NOT NULL,
    enqueued_at BIGINT NOT NULL,
    meta MEDIUMTEXT
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS qudo_ready (
    queue VARCHAR(100) NOT NULL,
    claim_rank INT NOT NULL,
    id BINARY(16) NOT NULL,
    ability VARCHAR(100) NOT NULL,
    attempt INT NOT NULL,
    crashes INT NOT NULL,
    flags INT NOT NULL,
    PRIMARY KEY (queue, claim_rank, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin STATS_PERSISTENT = 0;

-- The index of the ids is not unique: a unique one locks the gaps around an id that is inserted again while
-- its old entry is not purged, at READ COMMITTED too, so that jobs that are scheduled anew blocked their
-- neighbours. That an id is there once is kept by the primary key of qudo_job and by the steps that move
-- rows, which are counted.
CREATE TABLE IF NOT EXISTS qudo_scheduled (
    run_after BIGINT NOT NULL,
    id BINARY(16) NOT NULL,
    queue VARCHAR(100) NOT NULL,
    claim_rank INT NOT NULL,
    ability VARCHAR(100) NOT NULL,
    attempt INT NOT NULL,
    crashes INT NOT NULL,
    flags INT NOT NULL,
    PRIMARY KEY (run_after, id),
    KEY ix_qudo_scheduled_id (id)
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
    crashes INT NOT NULL,
    flags INT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin STATS_PERSISTENT = 0;

-- Who holds a unique key. A key is free when its job is not live and the time until which it is held, if
-- there is one, is over; the row goes with the end of its job, or is swept later.
CREATE TABLE IF NOT EXISTS qudo_unique (
    ability VARCHAR(100) NOT NULL,
    uniqkey VARBINARY(500) NOT NULL,
    id BINARY(16) NOT NULL,
    held_until BIGINT,
    PRIMARY KEY (ability, uniqkey)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS qudo_exception_log (
    id BINARY(16) NOT NULL PRIMARY KEY,
    job_id BINARY(16) NOT NULL,
    ability VARCHAR(100) NOT NULL,
    queue VARCHAR(100) NOT NULL,
    worker BINARY(16) NOT NULL,
    worker_name VARCHAR(300),
    program_version VARCHAR(100),
    attempt INT NOT NULL,
    kind VARCHAR(30) NOT NULL,
    error_class VARCHAR(250),
    message MEDIUMTEXT NOT NULL,
    failed_at BIGINT NOT NULL,
    discarded INT NOT NULL CHECK (discarded IN (0, 1)),
    redriven_as BINARY(16),
    uniqkey VARBINARY(500),
    priority INT NOT NULL,
    codec VARCHAR(100),
    arg LONGBLOB,
    meta MEDIUMTEXT,
    KEY ix_qudo_exception_log_job (job_id, id),
    KEY ix_qudo_exception_log_discarded (discarded, id)
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
    KEY ix_qudo_job_status_job (job_id, id),
    KEY ix_qudo_job_status_finished (finished_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What a job left for those who wait for it: its replies from seq 0 on, or, of one that nobody ran to its end,
-- a tombstone: seq -1, and how it ended in the place of the codec.
CREATE TABLE IF NOT EXISTS qudo_reply (
    job_id BINARY(16) NOT NULL,
    seq INT NOT NULL,
    codec VARCHAR(100) NOT NULL,
    body LONGBLOB NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (job_id, seq),
    KEY ix_qudo_reply_created (created_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Who works, what it serves (JSON arrays of names), and how long it may be silent before others may take
-- its jobs, in microseconds. schema_level is the number of migrations that its program carries.
CREATE TABLE IF NOT EXISTS qudo_worker (
    id BINARY(16) NOT NULL PRIMARY KEY,
    name VARCHAR(300) NOT NULL,
    program_version VARCHAR(100),
    abilities MEDIUMTEXT NOT NULL,
    queues MEDIUMTEXT NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    schema_level INT NOT NULL,
    dead_after BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What an operator ordered for this database (a row means yes), and the id of this installation.
CREATE TABLE IF NOT EXISTS qudo_control (
    name VARCHAR(200) NOT NULL PRIMARY KEY,
    value VARCHAR(200),
    changed_at BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Jobs on their way from one database to another; a job that is moving is in no other narrow table. leg is
-- leaving, left or gone in the database it goes from, arriving, arrived or cancelled in the one it goes to; departure
-- tells each time that a job leaves from the others.
CREATE TABLE IF NOT EXISTS qudo_moving (
    id BINARY(16) NOT NULL,
    leg VARCHAR(100) NOT NULL,
    other VARCHAR(100) NOT NULL,
    departure BINARY(16) NOT NULL,
    moved_at BIGINT NOT NULL,
    queue VARCHAR(100) NOT NULL,
    claim_rank INT NOT NULL,
    ability VARCHAR(100) NOT NULL,
    attempt INT NOT NULL,
    crashes INT NOT NULL,
    flags INT NOT NULL,
    run_after BIGINT,
    PRIMARY KEY (id, leg),
    KEY ix_qudo_moving_leg (leg, other, id),
    KEY ix_qudo_moving_gone (moved_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE OR REPLACE SQL SECURITY INVOKER VIEW qudo_jobs AS
SELECT
    LOWER(HEX(j.id)) AS id,
    j.queue,
    j.ability,
    CASE WHEN l.id IS NOT NULL THEN 'running' WHEN s.id IS NOT NULL THEN 'scheduled'
        WHEN m.id IS NOT NULL THEN 'moving' ELSE 'ready' END AS state,
    j.priority,
    COALESCE(l.attempt, s.attempt, r.attempt, m.attempt) AS attempt,
    CONVERT(j.uniqkey USING utf8mb4) AS uniqkey,
    FROM_UNIXTIME(j.enqueued_at / 1000000) AS enqueued_at,
    FROM_UNIXTIME(s.run_after / 1000000) AS run_after,
    FROM_UNIXTIME(l.leased_until / 1000000) AS leased_until,
    w.name AS worker,
    j.codec,
    CASE WHEN j.codec = 'json' OR j.codec LIKE 'json@%' THEN CONVERT(j.arg USING utf8mb4) END AS arg,
    j.meta
FROM qudo_job j
LEFT JOIN qudo_ready r ON r.queue = j.queue AND r.claim_rank = -j.priority AND r.id = j.id
LEFT JOIN qudo_scheduled s ON s.id = j.id
LEFT JOIN qudo_lease l ON l.id = j.id
LEFT JOIN qudo_moving m ON m.id = j.id AND m.leg IN ('leaving', 'arriving')
LEFT JOIN qudo_worker w ON w.id = l.worker;

CREATE OR REPLACE SQL SECURITY INVOKER VIEW qudo_exceptions AS
SELECT
    LOWER(HEX(id)) AS id,
    LOWER(HEX(job_id)) AS job,
    ability,
    queue,
    attempt,
    kind,
    error_class,
    message,
    FROM_UNIXTIME(failed_at / 1000000) AS failed_at,
    worker_name AS worker,
    program_version,
    discarded,
    LOWER(HEX(redriven_as)) AS redriven_as
FROM qudo_exception_log;
