"""Data files, whatever they are of: where they are looked for, downloads, caches and formats."""
