ALTER TABLE hold_line DROP COLUMN returned;
