"""Labels: exact depth, normals and ids by ray casting, and their checks."""
