-- extract() answers in decimal numbers, which cost a lone insert a twenty-fifth of its time. A float
-- holds microseconds exactly enough: rounded they are the same until 2106, and off by 1 for years after.
CREATE OR REPLACE FUNCTION qudo_now() RETURNS BIGINT LANGUAGE sql VOLATILE PARALLEL SAFE AS
$$ SELECT (date_part('epoch', clock_timestamp()) * 1000000)::BIGINT $$;
