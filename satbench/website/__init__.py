"""The boards as a web site: pages that open from disk and need no server and no network."""
