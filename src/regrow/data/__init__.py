"""Data files of any domain: where they are looked for, downloads, caches, file formats."""
