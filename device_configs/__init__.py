"""Device files (TOML) and their references (BibTeX)."""
