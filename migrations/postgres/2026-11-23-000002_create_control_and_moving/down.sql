-- Removes what up.sql added. Orders are lost, and jobs on their way in either database.
CREATE OR REPLACE VIEW qudo_jobs AS
SELECT
    j.id,
    j.queue,
    j.ability,
    CASE WHEN l.id IS NOT NULL THEN 'running' WHEN s.id IS NOT NULL THEN 'scheduled' ELSE 'ready' END AS state,
    j.priority,
    COALESCE(l.attempt, s.attempt, r.attempt) AS attempt,
    j.uniqkey,
    to_timestamp(j.enqueued_at / 1000000.0) AS enqueued_at,
    to_timestamp(s.run_after / 1000000.0) AS run_after,
    to_timestamp(l.leased_until / 1000000.0) AS leased_until,
    w.name AS worker,
    j.codec,
    CASE WHEN j.codec = 'json' THEN qudo_text(j.arg) END AS arg
FROM qudo_job j
LEFT JOIN qudo_ready r ON r.queue = j.queue AND r.claim_rank = -j.priority AND r.id = j.id
LEFT JOIN qudo_scheduled s ON s.id = j.id
LEFT JOIN qudo_lease l ON l.id = j.id
LEFT JOIN qudo_worker w ON w.id = l.worker;

DROP TABLE qudo_moving;
DROP TABLE qudo_control;
