"""Evaluations on many machines: Ray, and shards for the job arrays of a batch system."""
