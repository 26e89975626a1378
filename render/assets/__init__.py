"""Assets: meshes and environment maps of others, found, checked and read."""
