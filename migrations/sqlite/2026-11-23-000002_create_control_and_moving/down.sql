-- Removes what up.sql added. Orders are lost, and jobs on their way in either database.
DROP VIEW qudo_jobs;
CREATE VIEW qudo_jobs AS
SELECT
    lower(hex(j.id)) AS id,
    j.queue,
    j.ability,
    CASE WHEN l.id IS NOT NULL THEN 'running' WHEN s.id IS NOT NULL THEN 'scheduled' ELSE 'ready' END AS state,
    j.priority,
    COALESCE(l.attempt, s.attempt, r.attempt) AS attempt,
    j.uniqkey,
    datetime(j.enqueued_at / 1000000, 'unixepoch') AS enqueued_at,
    datetime(s.run_after / 1000000, 'unixepoch') AS run_after,
    datetime(l.leased_until / 1000000, 'unixepoch') AS leased_until,
    w.name AS worker,
    j.codec,
    CASE WHEN j.codec = 'json' THEN CAST(j.arg AS TEXT) END AS arg
FROM qudo_job j
LEFT JOIN qudo_ready r ON r.queue = j.queue AND r.claim_rank = -j.priority AND r.id = j.id
LEFT JOIN qudo_scheduled s ON s.id = j.id
LEFT JOIN qudo_lease l ON l.id = j.id
LEFT JOIN qudo_worker w ON w.id = l.worker;

DROP TABLE qudo_moving;
DROP TABLE qudo_control;
