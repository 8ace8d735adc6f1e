"""Pages of studies: tables and figures from the runs that are kept, text from templates."""
