"""Pages of studies: tables and figures from the kept runs, text from templates."""
