"""One file per image generator, all behind `trainer.generators.protocol`."""
