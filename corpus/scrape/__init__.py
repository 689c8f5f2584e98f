"""Pages and rows from the sources named in params."""
