-- What operators began: orders to cancel jobs that run, and verbs over many jobs, carried out in slices.
-- Programs that know only the tables before it go on working: they do not hear of these orders. Costs nothing.

-- Jobs that are to end. Whoever runs one reads its row with the heartbeat; a row goes with the end of its job, or is
-- swept later. enqueued_at is the job's, and tells it from a later one that was enqueued under the same id.
CREATE TABLE qudo_cancel (
    id UUID NOT NULL PRIMARY KEY,
    reason TEXT NOT NULL,
    asked_at BIGINT NOT NULL,
    enqueued_at BIGINT NOT NULL
);

-- A verb over the jobs or failures that a filter means. It was carried out up to place, which moves on in the transaction
-- of each slice, so that two who go on with it do nothing twice; at_most bounds the jobs of all databases together.
CREATE TABLE qudo_operation (
    id UUID NOT NULL PRIMARY KEY,
    verb TEXT NOT NULL,
    filter TEXT NOT NULL,
    operator TEXT NOT NULL,
    reason TEXT NOT NULL,
    at_most BIGINT,
    asked_at BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    finished_at BIGINT,
    place TEXT COLLATE "C" NOT NULL,
    done BIGINT NOT NULL,
    conflicts BIGINT NOT NULL,
    gone BIGINT NOT NULL
) WITH (fillfactor = 50);

CREATE INDEX ix_qudo_operation_changed ON qudo_operation (changed_at);
