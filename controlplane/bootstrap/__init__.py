"""Where everything is put together; the only importer of store, notify and collectors."""
