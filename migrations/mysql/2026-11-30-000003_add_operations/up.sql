-- What operators began: orders to cancel jobs that run, and verbs over many jobs, carried out in slices.
-- Programs that know only the tables before it go on working: they do not hear of these orders. Costs nothing.

-- Jobs that are to end. Whoever runs one reads its row with the heartbeat; a row goes with the end of its job, or is
-- swept later. enqueued_at is the job's, and tells it from a later one that was enqueued under the same id.
CREATE TABLE IF NOT EXISTS qudo_cancel (
    id BINARY(16) NOT NULL PRIMARY KEY,
    reason MEDIUMTEXT NOT NULL,
    asked_at BIGINT NOT NULL,
    enqueued_at BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin STATS_PERSISTENT = 0;

-- A verb over the jobs or failures that a filter means. It was carried out up to place, which moves on in the transaction
-- of each slice, so that two who go on with it do nothing twice; at_most bounds the jobs of all databases together.
CREATE TABLE IF NOT EXISTS qudo_operation (
    id BINARY(16) NOT NULL PRIMARY KEY,
    verb MEDIUMTEXT NOT NULL,
    filter MEDIUMTEXT NOT NULL,
    operator MEDIUMTEXT NOT NULL,
    reason MEDIUMTEXT NOT NULL,
    at_most BIGINT,
    asked_at BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    finished_at BIGINT,
    place VARCHAR(1000) NOT NULL,
    done BIGINT NOT NULL,
    conflicts BIGINT NOT NULL,
    gone BIGINT NOT NULL,
    KEY ix_qudo_operation_changed (changed_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
