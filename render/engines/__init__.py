"""Engines: Blender and pyrender, each in a supervised child process."""
