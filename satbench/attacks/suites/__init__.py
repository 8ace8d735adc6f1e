"""Suites: files of attacks (`attacks/*.toml`), read and divided into stages."""
