-- What an operator ordered for this database (a row means yes), the database's own id, and jobs on their way from one
-- database to another. A job that is moving is in no other narrow table. leg is leaving, left or gone
-- in the database it goes from, arriving or arrived in the one it goes to. Costs nothing; only adds.

CREATE TABLE qudo_control (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT,
    changed_at BIGINT NOT NULL
);

CREATE TABLE qudo_moving (
    id UUID NOT NULL,
    leg TEXT COLLATE "C" NOT NULL,
    other TEXT COLLATE "C" NOT NULL,
    mover UUID,
    moved_at BIGINT NOT NULL,
    queue TEXT COLLATE "C" NOT NULL,
    claim_rank INTEGER NOT NULL,
    ability TEXT COLLATE "C" NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    run_after BIGINT,
    PRIMARY KEY (id, leg)
);

CREATE INDEX qudo_moving_leg ON qudo_moving (leg, other, id);
CREATE INDEX qudo_moving_gone ON qudo_moving (moved_at);

CREATE OR REPLACE VIEW qudo_jobs AS
SELECT
    j.id,
    j.queue,
    j.ability,
    CASE WHEN l.id IS NOT NULL THEN 'running' WHEN s.id IS NOT NULL THEN 'scheduled'
        WHEN m.id IS NOT NULL THEN 'moving' ELSE 'ready' END AS state,
    j.priority,
    COALESCE(l.attempt, s.attempt, r.attempt, m.attempt) AS attempt,
    j.uniqkey,
    to_timestamp(j.enqueued_at / 1000000.0) AS enqueued_at,
    to_timestamp(s.run_after / 1000000.0) AS run_after,
    to_timestamp(l.leased_until / 1000000.0) AS leased_until,
    w.name AS worker,
    j.codec,
    CASE WHEN j.codec = 'json' OR j.codec LIKE 'json@%' THEN qudo_text(j.arg) END AS arg
FROM qudo_job j
LEFT JOIN qudo_ready r ON r.queue = j.queue AND r.claim_rank = -j.priority AND r.id = j.id
LEFT JOIN qudo_scheduled s ON s.id = j.id
LEFT JOIN qudo_lease l ON l.id = j.id
LEFT JOIN qudo_moving m ON m.id = j.id AND m.leg IN ('leaving', 'arriving')
LEFT JOIN qudo_worker w ON w.id = l.worker;
