-- A journal that is being restored here is nobody's to open until it is whole.

ALTER TABLE cairn.meta ADD COLUMN restoring boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN cairn.meta.restoring IS 'a backup is being restored, or a restore has not come to its end';

UPDATE cairn.meta SET schema = 3;
