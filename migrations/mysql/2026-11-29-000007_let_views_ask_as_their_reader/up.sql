-- A view asks with the rights of whoever made it, and no longer at all once that account is gone, as
-- after a restore elsewhere. Let it ask with those of its reader: an account that reads nothing but a view
-- needs SELECT on the tables behind it from now on, as in docs/grants/mysql/operator.sql.

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
    CASE WHEN j.codec = 'json' OR j.codec LIKE 'json@%' THEN CONVERT(j.arg USING utf8mb4) END AS arg
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
    message,
    FROM_UNIXTIME(failed_at / 1000000) AS failed_at,
    discarded,
    LOWER(HEX(redriven_as)) AS redriven_as
FROM qudo_exception_log;
