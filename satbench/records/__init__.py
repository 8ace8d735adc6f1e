"""Records and the files next to them: written, read, and checked in one way.  No torch."""
