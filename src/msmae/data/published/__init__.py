"""Data sets as their publishers ship them -> manifests, with their groups, masks and official splits."""
