-- Who was erased, so that news of them that is still on its way leaves no address.
CREATE TABLE erased (
    user_id TEXT PRIMARY KEY NOT NULL
) WITHOUT ROWID;
