"""`fedmeta bench`: grids of attacks, defences and seeds, from one file to a table, files and a page."""
