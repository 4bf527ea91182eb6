DROP FUNCTION qudo_claim(TEXT, INTEGER, UUID, TEXT[], BIGINT[], BIGINT, UUID, BIGINT);
DROP FUNCTION qudo_claim(TEXT, INTEGER, UUID, TEXT[], BIGINT[], BIGINT, UUID, BIGINT, BIGINT, BIGINT, UUID[]);
DROP FUNCTION qudo_refuse(TEXT);

CREATE FUNCTION qudo_claim(
    in_queue TEXT, from_rank INTEGER, from_id UUID, abilities TEXT[], leases BIGINT[],
    at_most BIGINT, in_worker UUID, in_claim BIGINT
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
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN QUERY
    WITH picked AS (
        DELETE FROM qudo_ready WHERE ctid = ANY (ARRAY(
            SELECT r.ctid FROM qudo_ready r
            WHERE r.queue = in_queue AND (r.claim_rank, r.id) > (from_rank, from_id)
              AND r.ability = ANY (abilities)
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
    )
    SELECT p.id, p.claim_rank, p.ability, p.attempt, p.crashes, j.codec, j.arg, j.uniqkey, j.enqueued_at
    FROM picked p CROSS JOIN LATERAL (
        -- OFFSET 0: evaluated once for each row of picked, by the primary key.
        SELECT f.codec, f.arg, f.uniqkey, f.enqueued_at FROM qudo_job f WHERE f.id = p.id OFFSET 0
    ) j;
END
$$;

ALTER TABLE qudo_worker DROP COLUMN dead_after;
