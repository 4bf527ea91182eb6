-- Removes what up.sql added. Orders are lost, and jobs on their way in either database.
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

DROP TABLE IF EXISTS qudo_moving;
DROP TABLE IF EXISTS qudo_control;
