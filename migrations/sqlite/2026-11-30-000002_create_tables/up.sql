-- The tables of qudo. Facts apart from state: qudo_job is written once and removed once; where a job
-- stands is which one of the narrow tables qudo_ready, qudo_scheduled, qudo_lease and qudo_moving holds
-- its id. Times are microseconds since 1970, UTC; ids are UUIDv7, 16 bytes; claim_rank is minus the priority, so
-- that one ascending key is the order of the claim; flags say what lies beside a job in other tables, so
-- that a job with nothing beside it takes the short way. For people there are the views qudo_jobs and
-- qudo_exceptions.
--
-- Names are those of the default: "qudo_" at the beginning of a word stands for the installation's own
-- prefix, and within a word for the prefix alone.
-- Costs nothing on a new database; needs SQLite 3.42.

CREATE TABLE qudo_job (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    queue TEXT NOT NULL,
    ability TEXT NOT NULL,
    codec TEXT NOT NULL,
    arg BLOB NOT NULL,
    uniqkey TEXT,
    priority INTEGER NOT NULL,
    enqueued_at INTEGER NOT NULL,
    meta TEXT
) WITHOUT ROWID;

CREATE TABLE qudo_ready (
    queue TEXT NOT NULL,
    claim_rank INTEGER NOT NULL,
    id BLOB NOT NULL,
    ability TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    PRIMARY KEY (queue, claim_rank, id)
) WITHOUT ROWID;

CREATE TABLE qudo_scheduled (
    run_after INTEGER NOT NULL,
    id BLOB NOT NULL,
    queue TEXT NOT NULL,
    claim_rank INTEGER NOT NULL,
    ability TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    PRIMARY KEY (run_after, id)
) WITHOUT ROWID;

CREATE UNIQUE INDEX ix_qudo_scheduled_id ON qudo_scheduled (id);

CREATE TABLE qudo_lease (
    id BLOB NOT NULL PRIMARY KEY,
    worker BLOB NOT NULL,
    claim INTEGER NOT NULL,
    leased_until INTEGER NOT NULL,
    queue TEXT NOT NULL,
    claim_rank INTEGER NOT NULL,
    ability TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    flags INTEGER NOT NULL
) WITHOUT ROWID;

-- Who holds a unique key. A key is free when its job is not live and the time until which it is held, if
-- there is one, is over; the row goes with the end of its job, or is swept later.
CREATE TABLE qudo_unique (
    ability TEXT NOT NULL,
    uniqkey TEXT NOT NULL,
    id BLOB NOT NULL,
    held_until INTEGER,
    PRIMARY KEY (ability, uniqkey)
) WITHOUT ROWID;

CREATE TABLE qudo_exception_log (
    id BLOB NOT NULL PRIMARY KEY,
    job_id BLOB NOT NULL,
    ability TEXT NOT NULL,
    queue TEXT NOT NULL,
    worker BLOB NOT NULL,
    worker_name TEXT,
    program_version TEXT,
    attempt INTEGER NOT NULL,
    kind TEXT NOT NULL,
    error_class TEXT,
    message TEXT NOT NULL,
    failed_at INTEGER NOT NULL,
    discarded INTEGER NOT NULL CHECK (discarded IN (0, 1)),
    redriven_as BLOB,
    uniqkey TEXT,
    priority INTEGER NOT NULL,
    codec TEXT,
    arg BLOB,
    meta TEXT
);

CREATE INDEX ix_qudo_exception_log_job ON qudo_exception_log (job_id, id);
CREATE INDEX ix_qudo_exception_log_discarded ON qudo_exception_log (discarded, id) WHERE discarded = 1;

CREATE TABLE qudo_job_status (
    id BLOB NOT NULL PRIMARY KEY,
    job_id BLOB NOT NULL,
    ability TEXT NOT NULL,
    status TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    uniqkey TEXT,
    enqueued_at INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    message TEXT
);

CREATE INDEX ix_qudo_job_status_job ON qudo_job_status (job_id, id);
CREATE INDEX ix_qudo_job_status_finished ON qudo_job_status (finished_at);

-- What a job left for those who wait for it: its replies from seq 0 on, or, of one that nobody ran to its end,
-- a tombstone: seq -1, and how it ended in the place of the codec.
CREATE TABLE qudo_reply (
    job_id BLOB NOT NULL,
    seq INTEGER NOT NULL,
    codec TEXT NOT NULL,
    body BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (job_id, seq)
);

CREATE INDEX ix_qudo_reply_created ON qudo_reply (created_at);

-- Who works, what it serves (JSON arrays of names), and how long it may be silent before others may take
-- its jobs, in microseconds. schema_level is the number of migrations that its program carries.
CREATE TABLE qudo_worker (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    program_version TEXT,
    abilities TEXT NOT NULL,
    queues TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    schema_level INTEGER NOT NULL,
    dead_after INTEGER NOT NULL
) WITHOUT ROWID;

-- What an operator ordered for this database (a row means yes), and the id of this installation.
CREATE TABLE qudo_control (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT,
    changed_at INTEGER NOT NULL
) WITHOUT ROWID;

-- Jobs on their way from one database to another; a job that is moving is in no other narrow table. leg is
-- leaving, left or gone in the database it goes from, arriving, arrived or cancelled in the one it goes to; departure
-- tells each time that a job leaves from the others.
CREATE TABLE qudo_moving (
    id BLOB NOT NULL,
    leg TEXT NOT NULL,
    other TEXT NOT NULL,
    departure BLOB NOT NULL,
    moved_at INTEGER NOT NULL,
    queue TEXT NOT NULL,
    claim_rank INTEGER NOT NULL,
    ability TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    run_after INTEGER,
    PRIMARY KEY (id, leg)
) WITHOUT ROWID;

CREATE INDEX ix_qudo_moving_leg ON qudo_moving (leg, other, id);
CREATE INDEX ix_qudo_moving_gone ON qudo_moving (moved_at);

CREATE VIEW qudo_jobs AS
SELECT
    lower(hex(j.id)) AS id,
    j.queue,
    j.ability,
    CASE WHEN l.id IS NOT NULL THEN 'running' WHEN s.id IS NOT NULL THEN 'scheduled'
        WHEN m.id IS NOT NULL THEN 'moving' ELSE 'ready' END AS state,
    j.priority,
    COALESCE(l.attempt, s.attempt, r.attempt, m.attempt) AS attempt,
    j.uniqkey,
    datetime(j.enqueued_at / 1000000, 'unixepoch') AS enqueued_at,
    datetime(s.run_after / 1000000, 'unixepoch') AS run_after,
    datetime(l.leased_until / 1000000, 'unixepoch') AS leased_until,
    w.name AS worker,
    j.codec,
    CASE WHEN j.codec = 'json' OR j.codec LIKE 'json@%' THEN CAST(j.arg AS TEXT) END AS arg,
    j.meta
FROM qudo_job j
LEFT JOIN qudo_ready r ON r.queue = j.queue AND r.claim_rank = -j.priority AND r.id = j.id
LEFT JOIN qudo_scheduled s ON s.id = j.id
LEFT JOIN qudo_lease l ON l.id = j.id
LEFT JOIN qudo_moving m ON m.id = j.id AND m.leg IN ('leaving', 'arriving')
LEFT JOIN qudo_worker w ON w.id = l.worker;

CREATE VIEW qudo_exceptions AS
SELECT
    lower(hex(id)) AS id,
    lower(hex(job_id)) AS job,
    ability,
    queue,
    attempt,
    kind,
    error_class,
    message,
    datetime(failed_at / 1000000, 'unixepoch') AS failed_at,
    worker_name AS worker,
    program_version,
    discarded,
    lower(hex(redriven_as)) AS redriven_as
FROM qudo_exception_log;
