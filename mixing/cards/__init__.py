"""Dataset cards: what a set of shards, or a mixture, holds, under which licences, for people and for machines."""
