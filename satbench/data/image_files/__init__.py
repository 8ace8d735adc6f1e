"""Image files and folders: their contents, and the rules for their pixels."""
