"""Scenes from seeds, rendered by Blender or pyrender into Samples with exact depth, normals and instance ids."""
