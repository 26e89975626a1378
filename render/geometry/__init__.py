"""Geometry: procedural shapes, textures and triangle meshes."""
