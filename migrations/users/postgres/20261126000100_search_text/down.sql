ALTER TABLE account RENAME COLUMN search_text TO sought;
