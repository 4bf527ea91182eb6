-- Numbers of the runs that ended, and since when jobs are ready. Programs that know only the tables before it go on
-- working: their runs are not counted, and of jobs that they put back it is not known since when they are ready. Adding the
-- column takes a lock of its table for a moment and writes no row.

-- Since when a job is ready, for how long it waited is counted; NULL since it was enqueued.
ALTER TABLE qudo_ready ADD COLUMN ready_at BIGINT;

-- How the runs ended that worker processes made, by the minute in which they reported them; in the row of
-- minute 0 since the first, which is what counters are read from and never removed, so that they never fall. How long jobs
-- were ready before they were run, and how long they ran, in microseconds: the sums, and how many times took at most 100
-- microseconds (00), 200 (01), 500 (02), 1 millisecond (03), and so on with 1, 2 and 5 up to 50,000 seconds (26), and longer
-- (27). NULL for none, which takes no room.
CREATE TABLE qudo_stat (
    minute BIGINT NOT NULL,
    queue TEXT COLLATE "C" NOT NULL,
    ability TEXT COLLATE "C" NOT NULL,
    completed BIGINT NOT NULL,
    replaced BIGINT NOT NULL,
    retried BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    cancelled BIGINT NOT NULL,
    snoozed BIGINT NOT NULL,
    wait_sum BIGINT NOT NULL,
    wait_00 BIGINT,
    wait_01 BIGINT,
    wait_02 BIGINT,
    wait_03 BIGINT,
    wait_04 BIGINT,
    wait_05 BIGINT,
    wait_06 BIGINT,
    wait_07 BIGINT,
    wait_08 BIGINT,
    wait_09 BIGINT,
    wait_10 BIGINT,
    wait_11 BIGINT,
    wait_12 BIGINT,
    wait_13 BIGINT,
    wait_14 BIGINT,
    wait_15 BIGINT,
    wait_16 BIGINT,
    wait_17 BIGINT,
    wait_18 BIGINT,
    wait_19 BIGINT,
    wait_20 BIGINT,
    wait_21 BIGINT,
    wait_22 BIGINT,
    wait_23 BIGINT,
    wait_24 BIGINT,
    wait_25 BIGINT,
    wait_26 BIGINT,
    wait_27 BIGINT,
    run_sum BIGINT NOT NULL,
    run_00 BIGINT,
    run_01 BIGINT,
    run_02 BIGINT,
    run_03 BIGINT,
    run_04 BIGINT,
    run_05 BIGINT,
    run_06 BIGINT,
    run_07 BIGINT,
    run_08 BIGINT,
    run_09 BIGINT,
    run_10 BIGINT,
    run_11 BIGINT,
    run_12 BIGINT,
    run_13 BIGINT,
    run_14 BIGINT,
    run_15 BIGINT,
    run_16 BIGINT,
    run_17 BIGINT,
    run_18 BIGINT,
    run_19 BIGINT,
    run_20 BIGINT,
    run_21 BIGINT,
    run_22 BIGINT,
    run_23 BIGINT,
    run_24 BIGINT,
    run_25 BIGINT,
    run_26 BIGINT,
    run_27 BIGINT,
    PRIMARY KEY (minute, queue, ability)
) WITH (fillfactor = 50);

-- The number of the last report of each reporter, so that a report whose answer was lost is not counted twice. A worker process is a reporter
-- of its own for each time that it works the database. No column of the process's row: that one goes when the process is taken for dead,
-- and is locked by its heartbeats.
CREATE TABLE qudo_stat_report (
    reporter UUID NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL,
    reported_at BIGINT NOT NULL
) WITH (fillfactor = 50);

CREATE INDEX ix_qudo_stat_report_at ON qudo_stat_report (reported_at);

-- The claim, which also returns since when each job was ready. Its name ends in a number, because programs that call the
-- first one may work on these tables; what is said of that one holds for this.
CREATE FUNCTION qudo_claim_2(
    in_queue TEXT, from_rank INTEGER, from_id UUID, abilities TEXT[], leases BIGINT[],
    at_most BIGINT, in_worker UUID, in_claim BIGINT, not_before BIGINT, not_after BIGINT,
    without UUID[], until_rank INTEGER, until_id UUID
) RETURNS TABLE (
    id UUID, claim_rank INTEGER, ability TEXT, attempt INTEGER, crashes INTEGER, flags INTEGER,
    ready_at BIGINT, codec TEXT, arg BYTEA, uniqkey TEXT, meta TEXT, enqueued_at BIGINT
) LANGUAGE plpgsql VOLATILE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off SET jit = off AS
$$
#variable_conflict use_column
DECLARE
    asked_at BIGINT := qudo_now();
    -- Without a CASE where all abilities agree, which is cheaper a row.
    lease BIGINT := CASE WHEN cardinality(leases) = 1 THEN leases[1] END;
    may_lose_rows BOOLEAN := COALESCE((SELECT c.relhastriggers OR c.relhasrules FROM pg_catalog.pg_class c
        WHERE c.oid = to_regclass('qudo_lease')), true);
BEGIN
    IF asked_at NOT BETWEEN not_before AND not_after THEN
        RAISE EXCEPTION 'qudo: too late';
    END IF;
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN QUERY
    WITH picked AS (
        DELETE FROM qudo_ready WHERE ctid = ANY (ARRAY(
            SELECT r.ctid FROM qudo_ready r
            WHERE r.queue = in_queue AND (r.claim_rank, r.id) > (from_rank, from_id)
              AND (r.claim_rank, r.id) <= (until_rank, until_id)
              AND r.ability = ANY (abilities) AND r.id <> ALL (without)
            ORDER BY r.queue, r.claim_rank, r.id
            LIMIT at_most
            FOR UPDATE SKIP LOCKED))
        RETURNING *
    ), leased AS (
        INSERT INTO qudo_lease (id, worker, claim, leased_until, queue, claim_rank, ability, attempt,
            crashes, flags)
        SELECT p.id, in_worker, in_claim,
               asked_at + COALESCE(lease, leases[array_position(abilities, p.ability)]),
               p.queue, p.claim_rank, p.ability, p.attempt + 1, p.crashes, p.flags
        FROM picked p
        RETURNING 1
    )
    SELECT p.id, p.claim_rank, p.ability, p.attempt, p.crashes, p.flags, p.ready_at,
           COALESCE(j.codec, qudo_refuse('no facts: ' || p.id)), j.arg, j.uniqkey, j.meta, j.enqueued_at
    FROM picked p LEFT JOIN LATERAL (
        -- OFFSET 0: evaluated once for each row of picked, by the primary key.
        SELECT f.codec, f.arg, f.uniqkey, f.meta, f.enqueued_at FROM qudo_job f WHERE f.id = p.id OFFSET 0
    ) j ON true
    -- Evaluated once.
    WHERE NOT may_lose_rows OR (SELECT CASE WHEN (SELECT count(*) FROM picked) = (SELECT count(*) FROM leased) THEN 'equal'
        ELSE qudo_refuse('rows do not add up: ' || (SELECT count(*) FROM picked) || ' taken, '
            || (SELECT count(*) FROM leased) || ' put by the step "claim"') END) = 'equal';
END
$$;

-- The end of runs, as before; jobs that are ready at once are ready since now.
CREATE OR REPLACE FUNCTION qudo_settle(
    in_worker UUID, ids UUID[], claims BIGINT[], run_ids UUID[], run_lengths INTEGER[], run_claims BIGINT[],
    gone UUID[], gone_run_ids UUID[], gone_run_lengths INTEGER[],
    again_ids UUID[], again_queues TEXT[], again_ranks INTEGER[], again_abilities TEXT[],
    again_attempts INTEGER[], again_crashes INTEGER[], again_flags INTEGER[], again_after BIGINT[],
    log_ids UUID[], log_jobs UUID[], log_attempts INTEGER[], log_kinds TEXT[], log_classes TEXT[],
    log_messages TEXT[], log_names TEXT[], log_versions TEXT[], log_discarded INTEGER[],
    reply_jobs UUID[], reply_seqs INTEGER[], reply_codecs TEXT[], reply_bodies BYTEA[],
    status_ids UUID[], status_jobs UUID[], status_abilities TEXT[], status_texts TEXT[],
    status_attempts INTEGER[], status_keys TEXT[], status_enqueued BIGINT[], status_took BIGINT[],
    status_messages TEXT[],
    key_abilities TEXT[], key_texts TEXT[], key_ids UUID[]
) RETURNS BIGINT LANGUAGE plpgsql VOLATILE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off
SET enable_nestloop = off SET enable_mergejoin = off SET enable_material = off SET jit = off AS
$$
DECLARE
    now_at BIGINT := qudo_now();
    missing BIGINT;
    counted INTEGER;
    placed INTEGER := 0;
BEGIN
    PERFORM qudo_take(in_worker, ids, claims, run_ids, run_lengths, run_claims);
    IF 0 = ANY (again_after) THEN
        INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags, ready_at)
        SELECT x.queue, x.claim_rank, x.id, x.ability, x.attempt, x.crashes, x.flags, now_at
        FROM unnest(again_ids, again_queues, again_ranks, again_abilities, again_attempts, again_crashes,
            again_flags, again_after)
            AS x (id, queue, claim_rank, ability, attempt, crashes, flags, after)
        WHERE x.after = 0;
        GET DIAGNOSTICS placed = ROW_COUNT;
    END IF;
    IF placed < cardinality(again_ids) THEN
        INSERT INTO qudo_scheduled (run_after, id, queue, claim_rank, ability, attempt, crashes, flags)
        SELECT now_at + x.after, x.id, x.queue, x.claim_rank, x.ability, x.attempt, x.crashes, x.flags
        FROM unnest(again_ids, again_queues, again_ranks, again_abilities, again_attempts, again_crashes,
            again_flags, again_after)
            AS x (id, queue, claim_rank, ability, attempt, crashes, flags, after)
        WHERE x.after > 0;
        GET DIAGNOSTICS counted = ROW_COUNT;
        IF placed + counted <> cardinality(again_ids) THEN
            PERFORM qudo_refuse('rows do not add up: ' || cardinality(again_ids) || ' taken, '
                || placed + counted || ' put by the step "settle"');
        END IF;
    END IF;
    IF cardinality(log_ids) > 0 THEN
        INSERT INTO qudo_exception_log (id, job_id, ability, queue, worker, worker_name, program_version,
            attempt, kind, error_class, message, failed_at, discarded, uniqkey, priority, codec, arg, meta)
        SELECT x.id, x.job, j.ability, j.queue, in_worker, x.name, x.version, x.attempt, x.kind, x.class,
            x.message, now_at, x.discarded, j.uniqkey, j.priority,
            CASE WHEN x.discarded = 1 THEN j.codec END, CASE WHEN x.discarded = 1 THEN j.arg END, j.meta
        FROM unnest(log_ids, log_jobs, log_attempts, log_kinds, log_classes, log_messages, log_names,
            log_versions, log_discarded)
            AS x (id, job, attempt, kind, class, message, name, version, discarded)
        JOIN qudo_job j ON j.id = x.job
        WHERE j.id = ANY (log_jobs);
        GET DIAGNOSTICS counted = ROW_COUNT;
        IF counted <> cardinality(log_ids) THEN
            RAISE EXCEPTION 'qudo: not all leases are held: % of % have facts', counted, cardinality(log_ids);
        END IF;
    END IF;
    IF cardinality(reply_jobs) > 0 THEN
        -- The id of a job that is gone may have been given to a new one; the first reply then stays.
        INSERT INTO qudo_reply (job_id, seq, codec, body, created_at)
        SELECT x.job, x.seq, x.codec, x.body, now_at
        FROM unnest(reply_jobs, reply_seqs, reply_codecs, reply_bodies) AS x (job, seq, codec, body)
        ON CONFLICT DO NOTHING;
    END IF;
    IF cardinality(status_ids) > 0 THEN
        INSERT INTO qudo_job_status (id, job_id, ability, status, attempt, uniqkey, enqueued_at, started_at,
            finished_at, message)
        SELECT x.id, x.job, x.ability, x.status, x.attempt, x.uniqkey, x.enqueued, now_at - x.took, now_at,
            x.message
        FROM unnest(status_ids, status_jobs, status_abilities, status_texts, status_attempts, status_keys,
            status_enqueued, status_took, status_messages)
            AS x (id, job, ability, status, attempt, uniqkey, enqueued, took, message);
        GET DIAGNOSTICS counted = ROW_COUNT;
        IF counted <> cardinality(status_ids) THEN
            PERFORM qudo_refuse('rows do not add up: ' || counted || ' of ' || cardinality(status_ids)
                || ' rows of the history put by the step "settle"');
        END IF;
    END IF;
    missing := qudo_remove(gone, gone_run_ids, gone_run_lengths);
    IF cardinality(key_ids) > 0 THEN
        DELETE FROM qudo_unique WHERE ctid = ANY (ARRAY(
            SELECT u.ctid FROM unnest(key_abilities, key_texts, key_ids) AS v (ability, uniqkey, id),
            LATERAL (SELECT k.ctid, k.id FROM qudo_unique k
                WHERE k.ability = v.ability AND k.uniqkey = v.uniqkey OFFSET 0) u
            WHERE u.id = v.id));
    END IF;
    RETURN missing;
END
$$;
