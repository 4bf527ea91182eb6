-- A claim ends at a place: while somebody's long transaction keeps dead rows, each rank is looked at
-- behind its last row, and the dead rows of the next one are not stepped over. Costs nothing: a function,
-- and settings of tables.

CREATE FUNCTION qudo_claim(
    in_queue TEXT, from_rank INTEGER, from_id UUID, abilities TEXT[], leases BIGINT[],
    at_most BIGINT, in_worker UUID, in_claim BIGINT, not_before BIGINT, not_after BIGINT,
    without UUID[], until_rank INTEGER, until_id UUID
) RETURNS TABLE (
    id UUID, claim_rank INTEGER, ability TEXT, attempt INTEGER, crashes INTEGER,
    codec TEXT, arg BYTEA, uniqkey TEXT, enqueued_at BIGINT
) LANGUAGE plpgsql VOLATILE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off SET jit = off AS
$$
#variable_conflict use_column
DECLARE
    asked_at BIGINT := qudo_now();
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
        INSERT INTO qudo_lease (id, worker, claim, leased_until, queue, claim_rank, ability, attempt, crashes)
        SELECT p.id, in_worker, in_claim,
               asked_at + leases[array_position(abilities, p.ability)],
               p.queue, p.claim_rank, p.ability, p.attempt + 1, p.crashes
        FROM picked p
        RETURNING 1
    )
    SELECT p.id, p.claim_rank, p.ability, p.attempt, p.crashes,
           COALESCE(j.codec, qudo_refuse('no facts: ' || p.id)), j.arg, j.uniqkey, j.enqueued_at
    FROM picked p LEFT JOIN LATERAL (
        -- OFFSET 0: evaluated once for each row of picked, by the primary key.
        SELECT f.codec, f.arg, f.uniqkey, f.enqueued_at FROM qudo_job f WHERE f.id = p.id OFFSET 0
    ) j ON true
    -- Evaluated once. A trigger or a rule may have kept a row out of the table.
    WHERE (SELECT CASE WHEN (SELECT count(*) FROM picked) = (SELECT count(*) FROM leased) THEN 'equal'
        ELSE qudo_refuse('rows do not add up: ' || (SELECT count(*) FROM picked) || ' taken, '
            || (SELECT count(*) FROM leased) || ' put by the step "claim"') END) = 'equal';
END
$$;

-- For programs of before, that run on while newer ones start. Replaced, so that what was granted on it stands.
CREATE OR REPLACE FUNCTION qudo_claim(
    in_queue TEXT, from_rank INTEGER, from_id UUID, abilities TEXT[], leases BIGINT[],
    at_most BIGINT, in_worker UUID, in_claim BIGINT, not_before BIGINT, not_after BIGINT,
    without UUID[]
) RETURNS TABLE (
    id UUID, claim_rank INTEGER, ability TEXT, attempt INTEGER, crashes INTEGER,
    codec TEXT, arg BYTEA, uniqkey TEXT, enqueued_at BIGINT
) LANGUAGE sql VOLATILE AS
$$
    SELECT c.* FROM qudo_claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
        2147483647, 'ffffffff-ffff-ffff-ffff-ffffffffffff') c
$$;

-- Vacuum would give the tail of these tables back to the file system, and lock the table to do so, only
-- for it to be needed again a moment later; on a standby that cancels queries.
ALTER TABLE qudo_ready SET (vacuum_truncate = off);
ALTER TABLE qudo_scheduled SET (vacuum_truncate = off);
ALTER TABLE qudo_lease SET (vacuum_truncate = off);
ALTER TABLE qudo_job SET (vacuum_truncate = off);

-- It changes as fast as the others where jobs have keys.
ALTER TABLE qudo_unique SET (vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
