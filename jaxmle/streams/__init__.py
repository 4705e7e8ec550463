"""One likelihood over more rows than memory: each pass of ``fit`` reads them from disk again."""
