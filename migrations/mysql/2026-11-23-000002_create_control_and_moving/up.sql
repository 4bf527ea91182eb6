-- What an operator ordered for this database (a row means yes), the database's own id, and jobs on their way from one
-- database to another. A job that is moving is in no other narrow table. leg is leaving, left or gone
-- in the database it goes from, arriving or arrived in the one it goes to. Costs nothing; only adds.

CREATE TABLE IF NOT EXISTS qudo_control (
    name VARCHAR(100) NOT NULL PRIMARY KEY,
    value VARCHAR(100),
    changed_at BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS qudo_moving (
    id BINARY(16) NOT NULL,
    leg VARCHAR(100) NOT NULL,
    other VARCHAR(100) NOT NULL,
    mover BINARY(16),
    moved_at BIGINT NOT NULL,
    queue VARCHAR(100) NOT NULL,
    claim_rank INT NOT NULL,
    ability VARCHAR(100) NOT NULL,
    attempt INT NOT NULL,
    crashes INT NOT NULL,
    run_after BIGINT,
    PRIMARY KEY (id, leg),
    KEY qudo_moving_leg (leg, other, id),
    KEY qudo_moving_gone (moved_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE OR REPLACE VIEW qudo_jobs AS
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
    CASE WHEN j.codec = 'json' OR j.codec LIKE 'json@%' THEN CONVERT(j.arg USING utf8mb4) END AS arg
FROM qudo_job j
LEFT JOIN qudo_ready r ON r.queue = j.queue AND r.claim_rank = -j.priority AND r.id = j.id
LEFT JOIN qudo_scheduled s ON s.id = j.id
LEFT JOIN qudo_lease l ON l.id = j.id
LEFT JOIN qudo_moving m ON m.id = j.id AND m.leg IN ('leaving', 'arriving')
LEFT JOIN qudo_worker w ON w.id = l.worker;
