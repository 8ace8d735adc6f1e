"""Image files and folders: what they hold, and what is done to their pixels."""
