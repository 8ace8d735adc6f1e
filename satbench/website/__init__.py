"""The boards as a web site: pages that open from disk, without a server or a network."""
