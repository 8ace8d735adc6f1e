"""Records and the files beside them: written, read, and checked in one way.  No torch."""
