"""Storage: local paths and fsspec URLs behind one seam, atomic writes, caches and synchronization."""
