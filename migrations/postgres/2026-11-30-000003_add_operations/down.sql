-- Removes what up.sql made. Orders that were not carried out are lost.
DROP TABLE qudo_operation;
DROP TABLE qudo_cancel;
