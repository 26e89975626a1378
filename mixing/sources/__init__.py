"""Shards and folders made by others, turned into shards of ours."""
