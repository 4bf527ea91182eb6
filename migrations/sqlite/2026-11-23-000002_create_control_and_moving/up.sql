-- What an operator ordered for this database (a row means yes), the database's own id, and jobs on their way from one
-- database to another. A job that is moving is in no other narrow table. leg is leaving, left or gone
-- in the database it goes from, arriving or arrived in the one it goes to. Costs nothing; only adds.

CREATE TABLE qudo_control (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT,
    changed_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE qudo_moving (
    id BLOB NOT NULL,
    leg TEXT NOT NULL,
    other TEXT NOT NULL,
    mover BLOB,
    moved_at INTEGER NOT NULL,
    queue TEXT NOT NULL,
    claim_rank INTEGER NOT NULL,
    ability TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    run_after INTEGER,
    PRIMARY KEY (id, leg)
) WITHOUT ROWID;

CREATE INDEX qudo_moving_leg ON qudo_moving (leg, other, id);
CREATE INDEX qudo_moving_gone ON qudo_moving (moved_at);

DROP VIEW qudo_jobs;
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
    CASE WHEN j.codec = 'json' OR j.codec LIKE 'json@%' THEN CAST(j.arg AS TEXT) END AS arg
FROM qudo_job j
LEFT JOIN qudo_ready r ON r.queue = j.queue AND r.claim_rank = -j.priority AND r.id = j.id
LEFT JOIN qudo_scheduled s ON s.id = j.id
LEFT JOIN qudo_lease l ON l.id = j.id
LEFT JOIN qudo_moving m ON m.id = j.id AND m.leg IN ('leaving', 'arriving')
LEFT JOIN qudo_worker w ON w.id = l.worker;
