-- Removes what up.sql made. Orders that were not carried out are lost. IF EXISTS: a reversal that broke off half way
-- is simply run again.
DROP TABLE IF EXISTS qudo_operation;
DROP TABLE IF EXISTS qudo_cancel;
