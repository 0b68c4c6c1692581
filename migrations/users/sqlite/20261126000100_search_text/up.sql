-- Name and address in lower case, as the search for users reads them.
ALTER TABLE account RENAME COLUMN sought TO search_text;
