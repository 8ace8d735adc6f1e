"""Suites: files of attacks (`attacks/*.toml`), read, and cut into stages."""
