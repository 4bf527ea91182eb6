-- Removes what up.sql made. The numbers are lost.
DROP FUNCTION qudo_claim_2(TEXT, INTEGER, UUID, TEXT[], BIGINT[], BIGINT, UUID, BIGINT, BIGINT, BIGINT, UUID[],
    INTEGER, UUID);
DROP TABLE qudo_stat_report;
DROP TABLE qudo_stat;
ALTER TABLE qudo_ready DROP COLUMN ready_at;

-- As it was before.
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
        INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags)
        SELECT x.queue, x.claim_rank, x.id, x.ability, x.attempt, x.crashes, x.flags
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
