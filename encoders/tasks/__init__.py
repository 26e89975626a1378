"""Tasks: sample to prompt, target image and decode spec, one file per task."""
